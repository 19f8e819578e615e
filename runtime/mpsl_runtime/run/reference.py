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
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpsl_runtime.errors import UsageError
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

__all__ = ["Reference", "apply", "checked", "checked_addresses", "checked_frames", "fanout"]

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
    padded = np.pad(x, ((0, 0), (0, 0), *node.padding))
    out = np.zeros((len(x), filters, rows * columns), np.float32)
    for i, j in np.ndindex(node.weight.shape[2:]):
        top, left = i * node.dilation[0], j * node.dilation[1]
        seen = padded[
            :,
            :,
            top : top + (rows - 1) * node.stride[0] + 1 : node.stride[0],
            left : left + (columns - 1) * node.stride[1] + 1 : node.stride[1],
        ].reshape(len(x), node.groups, channels, rows * columns)
        for g in range(node.groups):
            own = slice(g * per_group, (g + 1) * per_group)
            out[:, own] += node.weight[own, :, i, j] @ seen[:, g]
    return out.reshape(len(x), *node.output_shape)


def _pool(node: Pooling, x: Array) -> Array:
    """Sums over windows [B, C, H, W] -> [B, C, H', W']."""
    _, rows, columns = node.output_shape
    (down, right), pads = node.stride, node.padding
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0],) * 2, (pads[1],) * 2))
    out = np.zeros((len(x), *node.output_shape), np.float32)
    for i, j in np.ndindex(node.kernel):
        out += padded[
            :, :, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right
        ]
    return out


def fanout(node: Convolution | Dense) -> NDArray[np.int64]:
    """Weights that each element of the input reaches, int64 [*input_shape].

    At an image's border fewer taps of a kernel land on an output, so fewer weights count.
    """
    if isinstance(node, Dense):
        return np.full(node.input_shape, node.output_shape[0], np.int64)
    reach = []
    for axis in (0, 1):
        taps = node.weight.shape[2 + axis]
        size = node.input_shape[1 + axis]
        positions = (
            np.arange(node.output_shape[1 + axis])[:, None] * node.stride[axis]
            + np.arange(taps) * node.dilation[axis]
            - node.padding[axis][0]
        )
        inside = positions[(positions >= 0) & (positions < size)]
        reach.append(np.bincount(inside, minlength=size))
    per_tap = node.output_shape[0] // node.groups
    return np.broadcast_to(np.outer(*reach) * per_tap, node.input_shape).astype(np.int64)


def checked(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The values as float32, without a copy where they are; they must be finite, of `shape`.

    Raises:
        UsageError: they are not.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.shape != shape:
        raise UsageError(
            "input does not fit the model",
            got=f"{array.dtype} {array.shape}",
            expected=f"numbers of shape {shape}",
        )
    with np.errstate(over="ignore"):
        result: Array = array.astype(np.float32, copy=False)
    if not np.isfinite(result).all():
        raise UsageError("input is not finite", expected="finite numbers")
    return result


def checked_frames(frames: ArrayLike, plan: Plan, *, least: int = 0) -> Array:
    """Frames float32 [T, *input_shape], without a copy where they are; one broadcast over T stays
    broadcast.

    Args:
        least: so many steps there must be.

    Raises:
        UsageError: they have another shape, or are not finite numbers.
    """
    array = np.asarray(frames)
    if array.shape[1:] != plan.input_shape or array.ndim == 0 or len(array) < least:
        shape = ", ".join(map(str, plan.input_shape))
        raise UsageError(
            "input does not fit the model",
            got=f"{array.dtype} {array.shape}",
            expected=f"numbers of shape (T, {shape}){f', T ≥ {least}' if least else ''}",
        )
    return checked(array, array.shape)


def checked_addresses(
    address: ArrayLike, value: ArrayLike, size: int
) -> tuple[NDArray[np.int32], Array]:
    """Addresses int32 [n] within 0 … size−1 and their finite values float32 [n].

    Raises:
        UsageError: they are not.
    """
    where, values = np.asarray(address), checked(value, np.shape(value))
    if where.ndim != 1 or where.shape != values.shape or where.dtype.kind not in "iu":
        raise UsageError(
            "addresses and values do not fit",
            got=f"{where.dtype} {where.shape} and {values.shape}",
            expected="two vectors of one length, whole numbers and numbers",
        )
    if where.size and not (where.min() >= 0 and where.max() < size):
        raise UsageError(
            "address outside the input",
            got=f"{where.min()} … {where.max()}",
            expected=f"0 … {size - 1}",
        )
    return where.astype(np.int32, copy=False), values


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
    """Runs a plan, one step at a time; the same interface as `engine.Engine`.

    An int8 model refuses input that its proof does not cover (DataError, `grid.InputBound`).

    Attributes:
        plan: what it runs.
        synops: synaptic operations since the last reset: for each spike (or input that is not
            zero) the weights that it reaches, counted through pooling.
    """

    def __init__(self, plan: Plan, *, threads: int = 1) -> None:
        self.plan = plan
        self.synops = 0
        self._bound = InputBound(plan.metadata)
        self._fanout = {
            node.name: fanout(node) for node in plan.nodes if isinstance(node, Convolution | Dense)
        }
        self._states: dict[str, _State] = {}
        self._outputs: dict[str, Array] = {}
        # Of the last step, of the nodes that somebody sees late: values, and spikes behind them.
        self._late: dict[int, tuple[Array, Array]] = {}
        self._rings: dict[str, Array] = {}  # of each Delay [D, B, *shape], the latest first
        self.reset()

    def fork(self) -> Reference:
        """Another one of the same network, at rest."""
        return Reference(self.plan)

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
        self.reset(batch=shape[1])
        steps = [self._step(frame) for frame in frames]
        outputs = math.prod(self.plan.output_shape)
        return np.stack(steps) if steps else np.zeros((0, shape[1], outputs), np.float32)

    def record(self, frames: Array) -> list[NDArray[np.bool_]]:
        """Runs frames [T, *input_shape]; the spikes of each of `plan.spiking`: bool [T, *shape]."""
        self.reset()
        recorded: list[list[Array]] = [[] for _ in self.plan.spiking]
        for frame in self._sequence(frames):
            self._step(frame[None])
            for steps, neuron in zip(recorded, self.plan.spiking, strict=True):
                steps.append(self._outputs[neuron.name][0])
        return [
            np.array(steps, dtype=np.bool_).reshape(-1, *neuron.output_shape)
            for steps, neuron in zip(recorded, self.plan.spiking, strict=True)
        ]

    def record_membrane(self, frames: Array) -> list[Array]:
        """Runs frames [T, *input_shape]; U of each of `plan.spiking`, before its reset.

        Returns:
            float32 [T, *shape] for each; a Threshold, which has no U, gives zeros.
        """
        self.reset()
        recorded: list[list[Array]] = [[] for _ in self.plan.spiking]
        for frame in self._sequence(frames):
            self._step(frame[None])
            for steps, neuron in zip(recorded, self.plan.spiking, strict=True):
                steps.append(self._states[neuron.name].U[0])
        return [
            np.array(steps, dtype=np.float32).reshape(-1, *neuron.output_shape)
            for steps, neuron in zip(recorded, self.plan.spiking, strict=True)
        ]

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
        with np.errstate(over="ignore", invalid="ignore"):
            for index, (node, sources) in enumerate(
                zip(self.plan.nodes, self.plan.wiring, strict=True)
            ):
                x, activity = _sum(
                    [self._late[i] if delayed else signals[i] for i, delayed in sources],
                    node.input_shape,
                )
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
        if isinstance(node, Pooling):
            return y, _pool(node, activity)
        if isinstance(node, Flatten | Scaling | Sum):
            return y, activity.reshape(y.shape)
        return y, (y != 0).astype(np.float32)


def _sum(sources: list[tuple[Array, Array]], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """What a node sees: values and activity, added in order, each [B, *shape]."""
    x, activity = sources[0]
    x, activity = x.reshape(len(x), *shape), activity.reshape(len(x), *shape)
    for other, behind in sources[1:]:
        x = x + other.reshape(x.shape)
        activity = (activity + behind.reshape(x.shape)) * (x != 0)
    return x, activity


def _delayed(node: Delay, x: Array, ring: Array) -> tuple[Array, Array]:
    """The output [B, *shape] and the ring after this step."""
    past = np.concatenate([x[None], ring])
    steps = np.broadcast_to(node.steps, x.shape)[None]
    return np.take_along_axis(past, steps, axis=0)[0], past[: len(ring)]
