"""Shapes as NIR states them, and as they are meant.

Exporters leak the batch into shapes as ones in front, and give an array one number, or one for each
channel. A signal [C, L] is held as [C, 1, L], an image of one row.
"""

from __future__ import annotations

import math
from typing import TypeVar

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.nested import FlatGraph
from mpsl_runtime.model.order import Order
from mpsl_runtime.model.plan import Shape

__all__ = [
    "LARGEST_SIGNAL",
    "check_output",
    "check_size",
    "input_shape",
    "sizes_of",
    "spread",
    "without_ones",
]

LARGEST_SIGNAL = 1 << 27
"""The most values between two nodes: half a GiB of float32."""

_Number = TypeVar("_Number", bound=np.generic)


def sizes_of(value: object, what: str, where: str) -> Shape:
    """A shape as NIR stores it: whole numbers ≥ 1."""
    array = np.atleast_1d(np.asarray(value))
    if array.dtype.kind not in "iu" or array.ndim != 1 or not array.size or (array < 1).any():
        raise ModelError(f"{what} is not a shape", got=value, expected="sizes ≥ 1", where=where)
    return tuple(int(size) for size in array)


def without_ones(shape: Shape) -> Shape:
    """What is left of a shape when ones mean nothing."""
    return tuple(size for size in shape if size != 1)


def spread(value: NDArray[_Number], shape: Shape) -> NDArray[_Number] | None:
    """An array as one of `shape`, a view: one number for all, one for each channel [C, 1, 1], or
    all of them; None where it is none of these."""
    if value.size == 1:
        return np.broadcast_to(value.reshape(()), shape)
    if without_ones(value.shape) == without_ones(shape):
        return value.reshape(shape)
    if value.ndim == len(shape) == 3 and value.shape == (shape[0], 1, 1):
        return np.broadcast_to(value, shape)
    return None


def check_size(shape: Shape, where: str) -> None:
    """Refuses a signal that no memory holds."""
    if math.prod(shape) > LARGEST_SIGNAL:
        raise ModelError(
            "signal is too large",
            got=f"shape {shape}",
            expected=f"≤ {LARGEST_SIGNAL} values",
            where=where,
        )


def input_shape(flat: FlatGraph, order: Order, source: str, notes: list[str]) -> Shape:
    """The shape of one sample and step.

    Args:
        flat, order: the graph. source: the file, for messages.
        notes: takes a line where ones in front are dropped.
    """
    heads = [flat.nodes[head] for tail, head in flat.edges
             if tail == flat.input and head in order.names]  # fmt: skip
    if flat.input_node is None:
        where = source
        stated = _taken_by(heads[0]) if heads else None
        if stated is None:
            raise ModelError("number of Input nodes", got="none", expected="one Input", where=where)
        sizes = sizes_of(stated, "input shape", where)
    else:
        where = f"node {flat.input!r} of {source}"
        sizes = sizes_of(flat.input_node.input_type["input"], "input shape", where)
    shape = _meant(sizes, heads)
    is_row = len(shape) == 2 and not any(isinstance(head, _IMAGES) for head in heads)
    if len(shape) not in (1, 3) and not is_row:
        raise ModelError(
            "input shape is not supported",
            got=sizes,
            expected="[channels, rows, columns], [channels, length] or [features]",
            where=where,
        )
    if shape != sizes:
        notes.append(f"Input {sizes} is taken as {shape}")
    check_size(shape, where)
    return (shape[0], 1, shape[1]) if is_row else shape


_IMAGES = (nir.Conv2d, nir.SumPool2d, nir.AvgPool2d)


def _meant(sizes: Shape, heads: list[nir.NIRNode]) -> Shape:
    """Without the ones in front that are a batch."""
    while len(sizes) > 3 and sizes[0] == 1:
        sizes = sizes[1:]
    if len(sizes) in (2, 3) and heads:
        takes_rows = any(isinstance(head, (*_IMAGES, nir.Conv1d)) for head in heads)
        vectors = [_taken_by(head) for head in heads]
        if not takes_rows and all(
            taken is not None and taken == (math.prod(sizes),) for taken in vectors
        ):
            while len(sizes) > 1 and sizes[0] == 1:
                sizes = sizes[1:]
    return sizes


def _taken_by(node: nir.NIRNode) -> Shape | None:
    """The input that a node's own arrays ask for; None where they do not tell."""
    if isinstance(node, nir.Linear | nir.Affine):
        return tuple(int(size) for size in np.shape(node.weight)[1:])
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        if node.input_shape is None:
            return None
        channels = np.shape(node.weight)[1] * int(np.asarray(node.groups).item())
        return (channels, *(int(size) for size in np.atleast_1d(node.input_shape)))
    for key in ("tau", "tau_mem", "r", "threshold", "scale", "delay"):
        shape = np.shape(getattr(node, key, ()))
        if math.prod(shape) > 1:
            return tuple(int(size) for size in shape)
    return None


def check_output(node: nir.Output, shape: Shape, where: str, notes: list[str]) -> None:
    """Refuses a stated shape that is another one; ones mean nothing."""
    stated = sizes_of(node.output_type["output"], "output shape", where)
    if without_ones(stated) != without_ones(shape):
        raise ModelError("output shape does not fit", got=stated, expected=shape, where=where)
    if stated != shape and not (len(stated) == 2 and stated == (shape[0], shape[-1])):
        notes.append(f"Output {stated} is taken as {shape}")
