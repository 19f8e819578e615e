"""One time step in plain numpy: what every other back end is held against (ENGINE.md).

For each population, in float32 and in this order, as mpsl trains it (`neuron_step` has them all):

    I = f(W, spikes in) + b                 summed from 0, then the bias
    U = decay·V + I
    S = [U ≥ threshold]
    V = U − S·threshold                     or the reset value where S

Nothing here is fast, and nothing is skipped: silence is multiplied like everything else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.input_bound import InputBound
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Sum,
)
from mpsl_runtime.run.checks import checked, checked_addresses, checked_frames, checked_weight
from mpsl_runtime.run.memory import (
    check_memory,
    check_output,
    check_work,
    limit_or_default,
    reference_memory,
)
from mpsl_runtime.run.neuron_step import NeuronState, fire
from mpsl_runtime.run.state import NetworkState
from mpsl_runtime.run.stateless import apply, fanout, pool

__all__ = ["Reference", "apply", "fanout"]

Array = NDArray[np.float32]


class Reference:
    """Runs a plan, one step at a time; the same interface and errors as `engine.Engine`.

    An int8 model refuses input that its proof does not cover (DataError, `input_bound`).

    Attributes:
        plan: what it runs.
        steps: since the last reset.
        synops: synaptic operations since the last reset: for each spike (or input that is not
            zero) the weights that it reaches, counted through pooling.
    """

    def __init__(self, plan: Plan, *, threads: int = 1, memory_limit: int | None = None) -> None:
        self._limit = limit_or_default(memory_limit)
        check_work(plan)
        check_memory(reference_memory(plan), self._limit, plan.source)
        self._family: WeakSet[Reference] = WeakSet([self])
        self.plan = plan
        self.synops = 0
        self._bound = InputBound(plan.metadata)
        self._fanout = {
            node.name: fanout(node) for node in plan.nodes if isinstance(node, Convolution | Dense)
        }
        self._nodes = list(plan.nodes)  # as they run: a weight may be replaced
        self._states: dict[str, NeuronState] = {}
        self._outputs: dict[str, Array] = {}
        # How often a signal is seen within a step; what is kept beyond that counts as once more.
        self._uses = Counter(i for row in plan.wiring for i, delayed in row if not delayed)
        self._uses.update((*plan.late, len(plan.nodes) - 1))
        # Of the last step, of the nodes that somebody sees late: values, and spikes behind them.
        self._late: dict[int, tuple[Array, Array]] = {}
        self._last: Array
        self._delays = [node for node in plan.nodes if isinstance(node, Delay)]
        self._rings: dict[str, Array] = {}  # of each Delay [D, B, *shape], the latest first
        self.reset()

    @property
    def fired(self) -> tuple[int, ...]:
        """As `engine.Engine.fired`; of a batch, of all its samples together."""
        outputs = (self._outputs[neuron.name] for neuron in self.plan.spiking)
        return tuple(int(np.count_nonzero(spikes)) for spikes in outputs)

    def state(self) -> bytes:
        """As `engine.Engine.state`; of one sample, not of a batch."""
        neurons = [node for node in self.plan.nodes if isinstance(node, Neuron)]
        states = [self._states[node.name] for node in neurons]
        synaptic = [node.synaptic_decay is not None for node in neurons]
        spikes = [
            (self._outputs[node.name] != 0) * np.float32(node.kind != "integrating")
            for node in neurons
        ]
        late = [part for index in self.plan.late for part in self._late[index]]
        late += [_arriving(node, self._rings[node.name]) for node in self._delays]
        last = self.plan.output_neuron
        return NetworkState(
            self.steps,
            self.synops,
            V=_flat([state.V for state in states]),
            J=_flat([state.J for state, has in zip(states, synaptic, strict=True) if has]),
            S=_flat(spikes).astype(np.uint8),
            U=_flat([] if last is None else [self._states[last.name].U]),
            late=_flat(late),
            output=_flat([self._last] if last is None else []),
        ).to_bytes(self.plan)

    def restore(self, state: bytes) -> None:
        """As `engine.Engine.restore`."""
        given = NetworkState.from_bytes(self.plan, state)
        self.reset()
        self.steps, self.synops = given.steps, given.synops
        V, J, S, late = (_Cut(part) for part in (given.V, given.J, given.S, given.late))
        for node in self.plan.nodes:
            if not isinstance(node, Neuron):
                continue
            kept = self._states[node.name]
            kept.V, spikes = V.like(kept.V), S.like(kept.V)
            if node.synaptic_decay is not None:
                kept.J = J.like(kept.V)
            integrates = node.kind == "integrating"
            self._outputs[node.name] = kept.V if integrates else spikes.astype(np.float32)
            if node is self.plan.output_neuron:
                kept.U = given.U.reshape(kept.V.shape)
        for index in self.plan.late:
            values, activity = self._late[index]
            self._late[index] = late.like(values), late.like(activity)
        for node in self._delays:
            ring = self._rings[node.name]
            self._rings[node.name] = _arriving(node, late.like(ring))
        if given.output.size:
            self._last = given.output.reshape(self._last.shape)

    def fork(self) -> Reference:
        """Another one of the same network, at rest; all together keep to the limit."""
        rows, copies = reference_memory(self.plan), len(self._family) + 1
        check_memory(rows, self._limit, self.plan.source, copies=copies)
        other = Reference(self.plan, memory_limit=self._limit)
        other._family = self._family
        other._nodes = list(self._nodes)
        self._family.add(other)
        return other

    def keep_membranes(self) -> None:
        """As `engine.Engine.keep_membranes`."""

    def population(self, index: int) -> tuple[Array, Array]:
        """As `engine.Engine.population`; of one sample."""
        neuron = self.plan.spiking[index]
        return self._states[neuron.name].U[0], self._outputs[neuron.name][0]

    def replace_weight(self, name: str, weight: Array) -> None:
        """As `engine.Engine.replace_weight`."""
        index, array = checked_weight(self.plan, name, weight)
        node = self._nodes[index]
        if isinstance(node, Convolution | Dense):
            self._nodes[index] = replace(node, weight=array)

    def reset(self, batch: int = 1) -> None:
        """Sets every V to its start and the counters to 0, for `batch` samples side by side."""
        self.steps = self.synops = 0
        for index, node in enumerate(self.plan.nodes):
            zeros = np.zeros((batch, *node.output_shape), np.float32)
            if isinstance(node, Neuron):
                start = zeros if node.initial is None else zeros + node.initial
                self._states[node.name] = NeuronState(start, zeros, zeros)
                self._outputs[node.name] = zeros
            elif isinstance(node, Delay):
                self._rings[node.name] = np.zeros((int(node.steps.max()), *zeros.shape), np.float32)
            if index in self.plan.late:
                self._late[index] = zeros, zeros
        self._last = np.zeros((batch, *self.plan.output_shape), np.float32)

    def step(self, frame: Array) -> Array:
        """Advances one step.

        Args:
            frame: float32 [*input_shape], finite.

        Returns:
            float32 [K]: spikes of the last population, or its U where it does not fire.
        """
        output: Array = self._step(checked(frame, self.plan.input_shape)[None])[0]
        return output

    def step_sparse(self, address: NDArray[np.int32], value: Array) -> Array:
        """Advances one step on the inputs that are not zero.

        Args:
            address: int32 [n], flat index into the input; value: float32 [n]. Values of one
                address add up.
        """
        size = math.prod(self.plan.input_shape)
        address, value = checked_addresses(address, value, size)
        frame = np.zeros(size, np.float32)
        np.add.at(frame, address, value)
        return self.step(frame.reshape(self.plan.input_shape))

    def run(self, frames: Array) -> Array:
        """Resets, then advances through frames [T, *input_shape] -> float32 [T, K]."""
        frames = self._sequence(frames)
        return self.run_batch(frames[:, None])[:, 0]

    def run_batch(self, frames: Array) -> Array:
        """Resets, then runs B samples side by side.

        Args:
            frames: float32 [T, B, *input_shape].

        Returns:
            float32 [T, B, K].
        """
        shape = np.shape(frames)
        frames = checked(frames, (*shape[:2], *self.plan.input_shape))
        check_memory(reference_memory(self.plan, shape[1]), self._limit, self.plan.source)
        check_output(math.prod(shape[:2]) * math.prod(self.plan.output_shape), 4, self._limit)
        self.reset(batch=shape[1])
        steps = [self._step(frame) for frame in frames]
        outputs = math.prod(self.plan.output_shape)
        return np.stack(steps) if steps else np.zeros((0, shape[1], outputs), np.float32)

    def record(self, frames: Array) -> list[NDArray[np.bool_]]:
        """Runs frames [T, *input_shape]; which neurons of each of `plan.spiking` fired, once or
        several times: bool [T, *shape]."""
        return self._record(frames, np.bool_, lambda neuron: self._outputs[neuron.name])

    def record_membrane(self, frames: Array) -> list[Array]:
        """Runs frames [T, *input_shape]; U of each of `plan.spiking`, before its reset.

        Returns:
            float32 [T, *shape] for each; a Threshold, which has no U, gives zeros.
        """
        return self._record(frames, np.float32, lambda neuron: self._states[neuron.name].U)

    def _record(
        self, frames: Array, kind: type[np.generic], values: Callable[[Neuron], Array]
    ) -> list[NDArray[Any]]:
        """`values` [1, *shape] of each of `plan.spiking` after each step: [T, *shape]."""
        frames, neurons = self._sequence(frames), self.plan.spiking
        count = sum(math.prod(neuron.output_shape) for neuron in neurons)
        check_output(len(frames) * count, np.dtype(kind).itemsize, self._limit)
        recorded = [np.zeros((len(frames), *neuron.output_shape), kind) for neuron in neurons]
        self.reset()
        for t, frame in enumerate(frames):
            self._step(frame[None])
            for steps, neuron in zip(recorded, neurons, strict=True):
                steps[t] = values(neuron)[0]
        return recorded

    @property
    def membrane(self) -> Array:
        """U of the last population at the last step, before its reset: float32 [K].

        Where the output is that of another node, its values. After `run_batch` with B > 1: [B, K].
        """
        last = self.plan.output_neuron
        U = self._last if last is None else self._states[last.name].U
        return U.reshape(len(U), -1) if len(U) > 1 else U.reshape(-1)

    def _sequence(self, frames: Array) -> Array:
        return checked_frames(frames, self.plan)

    def _step(self, x: Array) -> Array:
        """x [B, *input_shape] -> [B, K]."""
        self._bound.check(x)
        # Along with each value the spikes behind it: pooling and sums add them up.
        signals = {-1: (x, (x != 0).astype(np.float32))}
        uses = dict(self._uses)
        with np.errstate(over="ignore", invalid="ignore"):
            for index, (node, sources) in enumerate(
                zip(self._nodes, self.plan.wiring, strict=True)
            ):
                x, activity = _sum(
                    [self._late[i] if delayed else signals[i] for i, delayed in sources],
                    node.input_shape,
                )
                for i, delayed in sources:
                    uses[i] -= not delayed
                    if not uses[i]:
                        signals.pop(i, None)
                if isinstance(node, Convolution | Dense):
                    spikes = activity.sum(axis=0, dtype=np.float64)
                    self.synops += int((spikes * self._fanout[node.name]).sum())
                signals[index] = self._apply(node, x, activity)
        for index in self.plan.late:
            self._late[index] = signals[index]
        self._last = signals[len(self.plan.nodes) - 1][0]
        self.steps += 1
        return self._last.reshape(len(self._last), -1)

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        """A node's output, and the spikes behind each value."""
        if isinstance(node, Neuron):
            y = self._outputs[node.name] = fire(node, self._states[node.name], x)
        elif isinstance(node, Delay):
            y, self._rings[node.name] = _delayed(node, x, self._rings[node.name])
        else:
            y = apply(node, x)
        # Behind a 0 there is nothing that weights would see.
        is_active = (y != 0).astype(np.float32)
        if isinstance(node, Neuron) and node.many:
            return y, y
        if isinstance(node, Pooling):
            return y, pool(node, activity) * is_active
        if isinstance(node, Flatten | Scaling | Sum):
            return y, activity.reshape(y.shape) * is_active
        return y, is_active


class _Cut:
    """An array from which pieces are cut, one after the other."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._rest = array

    def like(self, other: Array) -> Array:
        """The next piece, in the shape of `other`."""
        piece, self._rest = self._rest[: other.size], self._rest[other.size :]
        return piece.reshape(other.shape)


def _flat(arrays: list[Array]) -> Array:
    return np.concatenate([np.zeros(0, np.float32), *(array.reshape(-1) for array in arrays)])


def _sum(sources: list[tuple[Array, Array]], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """What a node sees: values and activity, added in order, each [B, *shape]."""
    x, activity = sources[0]
    x, activity = x.reshape(len(x), *shape), activity.reshape(len(x), *shape)
    for other, behind in sources[1:]:
        x = x + other.reshape(x.shape)
        activity = activity + behind.reshape(x.shape)
    return x, activity * (x != 0) if len(sources) > 1 else activity


def _delayed(node: Delay, x: Array, ring: Array) -> tuple[Array, Array]:
    """The output [B, *shape] and the ring after this step."""
    past = np.concatenate([x[None], ring])
    steps = np.broadcast_to(node.steps, x.shape)[None]
    return np.take_along_axis(past, steps, axis=0)[0], past[: len(ring)]


def _arriving(node: Delay, ring: Array) -> Array:
    """Of the past [D, B, *shape], latest first, what will arrive in each step to come, the next
    first; and the other way round, since what arrives k steps on has waited steps − 1 − k."""
    places = node.steps - 1 - np.arange(len(ring)).reshape(-1, *[1] * (node.steps.ndim + 1))
    places = np.broadcast_to(places, ring.shape)
    found: Array = np.take_along_axis(ring, np.maximum(places, 0), axis=0)
    return np.where(places >= 0, found, np.float32(0))
