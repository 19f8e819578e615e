"""The nodes that keep no state, in plain numpy: values in, values out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import (
    Convolution,
    Dense,
    Flatten,
    Node,
    Pooling,
    Scaling,
    Sum,
)

__all__ = ["apply", "fanout", "pool", "taps"]

Array = NDArray[np.float32]


def apply(node: Node, x: Array) -> Array:
    """The output of a node without state, for x [B, *input_shape]."""
    if isinstance(node, Convolution):
        return _convolve(node, x) + node.bias[:, None, None]
    if isinstance(node, Dense):
        return np.asarray(x @ node.weight.T, dtype=np.float32) + node.bias
    if isinstance(node, Pooling):
        return pool(node, x) * np.float32(node.scale)
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


def taps(node: Convolution) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row [kh, Ho] and the column [kw, Wo] that each output reads with each tap; in the
    padding, the one behind the last."""
    rows, columns = node.weight.shape[2:]
    return (
        np.stack([_inputs(node, 0, i) for i in range(rows)]),
        np.stack([_inputs(node, 1, j) for j in range(columns)]),
    )


def pool(node: Pooling, x: Array) -> Array:
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
