"""Whether the spikes of a run are those of every program, in whatever order it adds.

The sum of n numbers in float32 is off by at most about (n − 1)·u·Σ|terms|, u = 2^-24, whatever the
order (Higham, Accuracy and Stability of Numerical Algorithms, §4.2). That bound is carried along
with every value of a run. Where a membrane potential stays farther from its threshold than twice
its bound, two programs cannot differ: there is no tie. Sums of whole multiples of a power of two
that stay below 2^24 of them do not round at all, and what a neuron does with the same float is the
same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Convolution, Delay, Dense, Neuron, Node, Plan, Pooling, Scaling
from mpsl_runtime.run.neuron_step import NeuronState
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.stateless import apply, pool

__all__ = ["Rounding"]

Array = NDArray[np.float32]

# Somewhat more than 2^-24: the bounds are computed in float32 too.
_U = np.float32(1.05 * 2.0**-24)
_EXACT = np.float32(1 << 24)


@dataclass
class _Bounds:
    """Of a population: how far V and J of any program may be from ours, each [1, *shape]."""

    V: Array
    J: Array


class Rounding(Reference):
    """A run of one sample that knows how far any other program's values may be from its own."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._index = {node.name: index for index, node in enumerate(plan.nodes)}
        self._weights = {n.name: _Weights(n) for n in plan.nodes if isinstance(n, _WEIGHTED)}
        self._values: dict[int, Array] = {}
        self._errors: dict[int, Array] = {}
        self._late_errors: dict[int, Array] = {}
        self._bounds: dict[str, _Bounds] = {}
        self._past: dict[str, list[Array]] = {}
        self._ties = 0

    def steps_without_tie(self, frames: Array) -> int:
        """How many of the first steps of frames [T, *input_shape] have no tie."""
        self.reset()
        self._bounds, self._late_errors, self._past, self._ties = {}, {}, {}, 0
        for step, frame in enumerate(frames):
            self._values, self._errors = {-1: frame[None]}, {-1: np.zeros_like(frame[None])}
            self._step(frame[None])
            if self._ties:
                return step
            self._late_errors = {index: self._errors[index] for index in self.plan.late}
        return len(frames)

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        index, error = self._index[node.name], self._seen(self._index[node.name], x)
        if isinstance(node, Neuron):
            before = self._states[node.name]
            before = NeuronState(before.V, before.U, before.J)
        y, behind = super()._apply(node, x, activity)
        if isinstance(node, Neuron):
            error = self._fired(node, x, error, before)
        elif isinstance(node, Convolution | Dense):
            error = self._weights[node.name].bound(x, error)
        elif isinstance(node, Pooling):
            summed = _rounded(pool(node, np.abs(x)), pool(node, (x != 0).astype(np.float32)), x)
            error = _scaled(pool(node, error) + summed, y, np.asarray(node.scale, np.float32))
        elif isinstance(node, Scaling):
            error = _scaled(error, y, node.scale)
        elif isinstance(node, Delay):
            error = self._delayed(node, error)
        self._values[index], self._errors[index] = y, error.reshape(y.shape)
        return y, behind

    def _seen(self, index: int, x: Array) -> Array:
        """The bound on what a node sees, [1, *shape]: those of its sources, and of their sum."""
        error, size, parts = np.zeros_like(x), np.zeros_like(x), 0
        for i, delayed in self.plan.wiring[index]:
            known = self._late_errors.get(i) if delayed else self._errors[i]
            value = self._late[i][0] if delayed else self._values[i]
            if known is not None:
                error = error + known.reshape(x.shape)
            size, parts = size + np.abs(value).reshape(x.shape), parts + 1
        quanta = [self._late[i][0] if d else self._values[i] for i, d in self.plan.wiring[index]]
        finest = min(_quantum(values) for values in quanta)
        exact = (error == 0) & (size < _EXACT * finest)
        return error + np.where(exact, 0, np.float32(parts - 1) * _U * (size + error))

    def _fired(self, node: Neuron, x: Array, error: Array, before: NeuronState) -> Array:
        """The bound on a population's output; counts its ties and keeps the bounds of its state."""
        zero = np.zeros_like(x)
        if node.kind == "threshold":
            self._count(node, x, error)
            return zero
        kept = self._bounds.setdefault(node.name, _Bounds(zero, zero))
        current = x
        if node.synaptic_decay is not None and node.synaptic_gain is not None:
            old, new = node.synaptic_decay * before.J, node.synaptic_gain * current
            error = abs(node.synaptic_decay) * kept.J + abs(node.synaptic_gain) * error
            error = kept.J = _stepped(error, abs(old) + abs(new))
            current = self._states[node.name].J
        if node.has_input_map:
            size = abs(node.gain * current) + abs(node.leak)
            error = _stepped(abs(node.gain) * error, size)
            current = node.gain * current + node.leak
        size = abs(node.decay * before.V) + abs(current)
        error = _stepped(abs(node.decay) * kept.V + error, size)
        U = self._states[node.name].U
        if node.kind == "integrating":
            kept.V = error
            return error
        taken = abs(node.taken) if "subtract" in node.reset else np.float32(0)
        if node.resets_late:  # what fell at V was told apart a step ago, or there is a tie by now
            late = node.threshold <= before.V
            error = self._reset(node, error, late, size + taken)
        self._count(node, U, error)
        fired = node.threshold <= U
        kept.V = error if node.resets_late else self._reset(node, error, fired, abs(U) + taken)
        return zero

    @staticmethod
    def _reset(node: Neuron, error: Array, fired: NDArray[np.bool_], size: Array) -> Array:
        """The bound behind a reset; a reset to a value forgets all."""
        if "subtract" in node.reset:
            return np.where(fired, _stepped(error, size), error)
        return np.where(fired, 0, error)

    def _count(self, node: Neuron, U: Array, error: Array) -> None:
        """Ties: U may be on either side of a threshold."""
        apart = np.abs(U - node.threshold)
        if node.many:
            spikes = U / node.taken
            apart = np.minimum(apart, np.abs(spikes - np.rint(spikes)) * node.taken)
            error = np.where(error > 0, error + _U * np.abs(U), 0)
        self._ties += int(((error > 0) & ~(apart > 2 * error)).sum())

    def _delayed(self, node: Delay, error: Array) -> Array:
        past = [error, *self._past.get(node.name, [])][: int(node.steps.max()) + 1]
        self._past[node.name] = past
        padded = [*past, *[np.zeros_like(error)] * (int(node.steps.max()) + 1 - len(past))]
        result: Array = np.take_along_axis(np.stack(padded), node.steps[None, None], axis=0)[0]
        return result


_WEIGHTED = (Convolution, Dense)


class _Weights:
    """The sums of a weighted node: how many terms, how large, on which grid."""

    def __init__(self, node: Convolution | Dense) -> None:
        none = np.zeros_like(node.bias)
        self._sizes = replace(node, weight=np.abs(node.weight), bias=none)
        self._terms = replace(node, weight=(node.weight != 0).astype(np.float32), bias=none)
        bias = np.abs(node.bias)
        self._bias = bias[:, None, None] if isinstance(node, Convolution) else bias
        self._quantum = _quantum(node.weight)
        self._bias_quantum = _quantum(node.bias)

    def bound(self, x: Array, error: Array) -> Array:
        """How far a current may be from ours; ours is off by as much at most."""
        size = apply(self._sizes, np.abs(x)) + self._bias
        active = ((x != 0) | (error > 0)).astype(np.float32)
        terms = apply(self._terms, active) + (self._bias != 0)
        passed = apply(self._sizes, error)
        # Products with powers of two are exact; others round once each.
        products = 0 if (np.frexp(x[x != 0])[0] == 0.5).all() and not error.any() else 1
        finest = min(self._quantum * _quantum(x), self._bias_quantum)
        exact = (passed == 0) & (size < _EXACT * np.float32(finest))
        rounds = np.maximum(terms - 1, 0) + products
        return passed + np.where(exact, 0, rounds * _U * (size + passed))


def _rounded(size: Array, terms: Array, x: Array) -> Array:
    """The bound on sums of so many terms of x, of that size in all."""
    exact = size < _EXACT * np.float32(_quantum(x))
    return np.where(exact, 0, np.maximum(terms - 1, 0) * _U * size)


def _scaled(error: Array, y: Array, scale: Array) -> Array:
    """Of y = scale · x; a power of two rounds nothing."""
    rounds = (np.abs(np.frexp(scale)[0]) != 0.5) & (scale != 0)
    return np.asarray(np.abs(scale) * error + rounds * _U * np.abs(y), np.float32)


def _stepped(error: Array, size: Array) -> Array:
    """After the few operations of a neuron: none rounds otherwise where they get the same."""
    return np.where(error > 0, error + np.float32(4) * _U * (size + error), 0).astype(np.float32)


def _quantum(values: Array) -> float:
    """The largest power of two of which all values are whole multiples."""
    mantissa, exponent = np.frexp(values[values != 0].astype(np.float64))
    if not mantissa.size:
        return float("inf")
    whole = np.abs(mantissa * (1 << 24)).astype(np.int64)
    low = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return float(2.0 ** float((exponent - 24 + low).min()))
