"""One time step in plain numpy: what every other back end is held against (ENGINE.md).

For each population, in float32 and in this order:

    I = f(W, spikes in) + b                 summed from 0, then the bias
    U = decay·V + I
    S = [U ≥ threshold]
    V = U − S·threshold                     or the reset value where S

Nothing here is fast, and nothing is skipped: silence is multiplied like everything else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.grid import InputBound
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
from mpsl_runtime.run.checks import checked, checked_addresses, checked_frames
from mpsl_runtime.run.memory import (
    check_memory,
    check_output,
    check_work,
    limit_or_default,
    reference_memory,
)

__all__ = ["Reference", "apply", "fanout"]

Array = NDArray[np.float32]


def apply(node: Node, x: Array) -> Array:
    """The output of a node without state, for x [B, *input_shape]."""
    if isinstance(node, Convolution):
        return _convolve(node, x) + node.bias[:, None, None]
    if isinstance(node, Dense):
        return np.asarray(x @ node.weight.T, dtype=np.float32) + node.bias
    if isinstance(node, Pooling):
        return _pool(node, x) * np.float32(node.scale)
    if isinstance(node, Scaling):
        return x * node.scale
    if isinstance(node, Flatten):
        return x.reshape(len(x), *node.output_shape)
    if isinstance(node, Sum):
        return x
    raise TypeError(f"{type(node).__name__} keeps state")


def _convolve(node: Convolution, x: Array) -> Array:
    """Cross-correlation without bias: one matrix product for each kernel tap and group."""
    filters, rows, columns = node.output_shape
    per_group = filters // node.groups
    channels = node.input_shape[0] // node.groups
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))  # what stands for all padding
    out = np.zeros((len(x), filters, rows * columns), np.float32)
    for i, j in np.ndindex(node.weight.shape[2:]):
        above, beside = _inputs(node, 0, i), _inputs(node, 1, j)
        seen = padded[:, :, above[:, None], beside]
        seen = np.ascontiguousarray(seen).reshape(len(x), node.groups, channels, rows * columns)
        for g in range(node.groups):
            own = slice(g * per_group, (g + 1) * per_group)
            out[:, own] += node.weight[own, :, i, j] @ seen[:, g]
    return out.reshape(len(x), *node.output_shape)


def _inputs(node: Convolution, axis: int, tap: int) -> NDArray[np.int64]:
    """The row (axis 0) or column (1) that each output reads with a tap; in the padding, the one
    behind the last."""
    size, outputs = node.input_shape[1 + axis], node.output_shape[1 + axis]
    at = np.arange(outputs) * node.stride[axis] + tap * node.dilation[axis] - node.padding[axis][0]
    return np.where((at >= 0) & (at < size), at, size)


def _pool(node: Pooling, x: Array) -> Array:
    """Sums over windows [B, C, H, W] -> [B, C, H', W']; padding adds nothing."""
    out = np.zeros((len(x), *node.output_shape), np.float32)
    columns = list(_window_taps(node, 1))
    for rows_to, rows_from in _window_taps(node, 0):
        for columns_to, columns_from in columns:
            out[:, :, rows_to, columns_to] += x[:, :, rows_from, columns_from]
    return out


def _window_taps(node: Pooling, axis: int) -> Iterator[tuple[slice, slice]]:
    """For each tap of the window, in order, the outputs that find an input there, and that input.

    Taps that meet padding alone are passed over: there may be millions.
    """
    size, outputs = node.input_shape[1 + axis], node.output_shape[1 + axis]
    stride, before, taps = node.stride[axis], node.padding[axis], node.kernel[axis]
    done = 0
    for last in reversed(range(outputs)):
        first_input = last * stride - before
        until = min(taps, size - first_input)
        for tap in range(max(done, -first_input), until):
            begin = max(0, -((tap - before) // stride))
            end = min(outputs, (size - 1 + before - tap) // stride + 1)
            origin = begin * stride - before + tap
            inside = slice(origin, origin + (end - begin - 1) * stride + 1, stride)
            yield slice(begin, end), inside
        done = max(done, until)
        if done == taps:
            return


def fanout(node: Convolution | Dense) -> NDArray[np.int64]:
    """Weights that each element of the input reaches, int64 [*input_shape].

    At an image's border fewer taps of a kernel land on an output, so fewer weights count.
    """
    if isinstance(node, Dense):
        return np.full(node.input_shape, node.output_shape[0], np.int64)
    per_tap = node.output_shape[0] // node.groups
    reached = np.outer(_reached(node, 0), _reached(node, 1)) * per_tap
    return np.broadcast_to(reached, node.input_shape).astype(np.int64)


def _reached(node: Convolution, axis: int) -> NDArray[np.int64]:
    """How many taps reach an output from each position along rows (0) or columns (1)."""
    size, outputs = node.input_shape[1 + axis], node.output_shape[1 + axis]
    stride, taps = node.stride[axis], node.weight.shape[2 + axis]
    offset = np.arange(taps) * node.dilation[axis] - node.padding[axis][0]
    begin = np.clip(-(offset // stride), 0, outputs)
    end = np.clip((size - 1 - offset) // stride + 1, 0, outputs)
    offset, begin, end = (values[begin < end] for values in (offset, begin, end))
    # A tap is met at every stride-th position from its first output to its last.
    step = min(stride, size)
    marks = np.zeros((-(-size // step) + 1) * step, np.int64)
    np.add.at(marks, begin * stride + offset, 1)
    np.add.at(marks, np.minimum(end * stride + offset, len(marks) - 1), -1)
    return marks.reshape(-1, step).cumsum(axis=0).reshape(-1)[:size]


@dataclass
class _State:
    """Of one population, each [B, *shape]: V after reset, U before it, the synapse's J."""

    V: Array
    U: Array
    J: Array


def _fire(neuron: Neuron, state: _State, current: Array) -> Array:
    """One step of a population; returns its output and changes its state."""
    if neuron.kind == "threshold":
        return (current >= neuron.threshold).astype(np.float32)
    if neuron.synaptic_decay is not None and neuron.synaptic_gain is not None:
        state.J = neuron.synaptic_decay * state.J + neuron.synaptic_gain * current
        current = state.J
    if neuron.has_input_map:
        current = neuron.gain * current + neuron.leak
    state.U = np.add(neuron.decay * state.V, current, dtype=np.float32)
    if neuron.kind == "integrating":
        state.V = state.U
        return state.U
    S = np.greater_equal(state.U, neuron.threshold).astype(np.float32)
    if neuron.reset == "subtract":
        state.V = state.U - S * neuron.threshold
    else:
        state.V = np.where(S == 1, neuron.reset_value, state.U)
    return S


class Reference:
    """Runs a plan, one step at a time; the same interface and errors as `engine.Engine`.

    An int8 model refuses input that its proof does not cover (DataError, `grid.InputBound`).

    Attributes:
        plan: what it runs.
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
        self._states: dict[str, _State] = {}
        self._outputs: dict[str, Array] = {}
        # How often a signal is seen within a step; what is kept beyond that counts as once more.
        self._uses = Counter(i for row in plan.wiring for i, delayed in row if not delayed)
        self._uses.update((*plan.late, len(plan.nodes) - 1))
        # Of the last step, of the nodes that somebody sees late: values, and spikes behind them.
        self._late: dict[int, tuple[Array, Array]] = {}
        self._rings: dict[str, Array] = {}  # of each Delay [D, B, *shape], the latest first
        self.reset()

    def fork(self) -> Reference:
        """Another one of the same network, at rest; all together keep to the limit."""
        rows, copies = reference_memory(self.plan), len(self._family) + 1
        check_memory(rows, self._limit, self.plan.source, copies=copies)
        other = Reference(self.plan, memory_limit=self._limit)
        other._family = self._family
        self._family.add(other)
        return other

    def reset(self, batch: int = 1) -> None:
        """Sets every V to its start and the counter to 0, for `batch` samples side by side."""
        self.synops = 0
        for index, node in enumerate(self.plan.nodes):
            zeros = np.zeros((batch, *node.output_shape), np.float32)
            if isinstance(node, Neuron):
                start = zeros if node.initial is None else zeros + node.initial
                self._states[node.name] = _State(start, zeros, zeros)
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
        """Runs frames [T, *input_shape]; the spikes of each of `plan.spiking`: bool [T, *shape]."""
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
                zip(self.plan.nodes, self.plan.wiring, strict=True)
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
        return self._last.reshape(len(self._last), -1)

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        """A node's output, and the spikes behind each value."""
        if isinstance(node, Neuron):
            y = self._outputs[node.name] = _fire(node, self._states[node.name], x)
        elif isinstance(node, Delay):
            y, self._rings[node.name] = _delayed(node, x, self._rings[node.name])
        else:
            y = apply(node, x)
        # Behind a 0 there is nothing that weights would see.
        is_active = (y != 0).astype(np.float32)
        if isinstance(node, Pooling):
            return y, _pool(node, activity) * is_active
        if isinstance(node, Flatten | Scaling | Sum):
            return y, activity.reshape(y.shape) * is_active
        return y, is_active


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
