"""Weights and biases of a node as whole numbers of its quanta, and the largest sum that they allow.

A model is loaded piece by piece here, in pieces that stay in the cache: fresh memory costs more
than the arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Convolution, Dense

__all__ = ["EXACT_LIMIT", "LARGEST_WEIGHT", "integer_bias", "integer_weights", "worst_sum"]

LARGEST_WEIGHT = 127
EXACT_LIMIT = 1 << 24
"""Whole numbers below it, and their sums below it, are exact in float32."""

_PIECE = 1 << 16


def integer_weights(node: Convolution | Dense) -> tuple[NDArray[np.int8], float]:
    """The weights of a node as whole numbers, and their quantum: weight = integers · quantum.

    Raises:
        ModelError: the node has no grid, or a weight that is not on it or beyond ±127 quanta.
    """
    quantum = _quantum(node)
    whole = _whole_bytes(node.weight, quantum)
    if whole is not None:
        return whole, quantum
    quanta = _on_grid(node.weight, quantum, f"weight of {node.name!r}")
    if np.abs(quanta).max() > LARGEST_WEIGHT:
        index = tuple(int(i) for i in np.argwhere(np.abs(quanta) > LARGEST_WEIGHT)[0])
        raise ModelError(
            "weight is no int8",
            got=f"{int(quanta[index])} quanta at {index}",
            expected=f"−{LARGEST_WEIGHT} … {LARGEST_WEIGHT}",
            where=f"node {node.name!r}",
        )
    return quanta.astype(np.int8), quantum


def integer_bias(node: Convolution | Dense) -> NDArray[np.int32]:
    """The bias of a node in quanta of its weights, below 2^24.

    Raises:
        ModelError: the node has no grid, or a value that is not on it.
    """
    quanta = _on_grid(node.bias, _quantum(node), f"bias of {node.name!r}")
    return quanta.astype(np.int32)


def worst_sum(
    weight: NDArray[np.integer], bias: NDArray[np.integer], input_quantum: float, input_max: int
) -> int:
    """The largest that |Σ weight·input + bias|, or any part of the sum, can be, in current quanta.

    Args:
        weight: [Co, …] in weight quanta. bias: [Co] in weight quanta.
        input_quantum, input_max: of the layer's input.
    """
    flat = weight.reshape(len(weight), -1)
    kind = np.int16 if weight.dtype == np.int8 else np.int64
    # Python's integers: what a file declares may be any number.
    rows: list[int] = []
    step = max(1, _PIECE // max(1, flat.shape[1]))
    for begin in range(0, len(flat), step):
        wide = flat[begin : begin + step].astype(kind)
        rows += np.abs(wide, out=wide).sum(axis=1, dtype=np.int64).tolist()
    scale = round(1 / input_quantum)
    offsets: list[int] = [abs(b) * scale for b in bias.astype(np.int64).tolist()]
    return max(row * input_max + offset for row, offset in zip(rows, offsets, strict=True))


def _whole_bytes(values: NDArray[np.float32], quantum: float) -> NDArray[np.int8] | None:
    """Values as whole numbers of quanta within ±127; None where one is none."""
    if not 2.0**-100 <= quantum <= 1:
        return None
    flat, whole = values.reshape(-1), np.empty(values.size, np.int8)
    factor = np.float32(1 / quantum)
    for begin in range(0, len(flat), _PIECE):
        piece = whole[begin : begin + _PIECE]
        with np.errstate(over="ignore", invalid="ignore"):
            # Exact, see `_on_grid`. What is no int8 becomes some other one, and is seen below.
            quanta = flat[begin : begin + _PIECE] * factor
            piece[:] = quanta.astype(np.int8)
        if not (piece == quanta).all() or piece.min() < -LARGEST_WEIGHT:
            return None
    return whole.reshape(values.shape)


def _quantum(node: Convolution | Dense) -> float:
    if node.weight_grid is None:
        raise ModelError("node has no weight_grid", where=f"node {node.name!r}")
    return math.ldexp(1.0, node.weight_grid)


def _on_grid(values: NDArray[np.float32], quantum: float, what: str) -> NDArray[np.floating]:
    """Values as whole multiples of a power of two; ModelError for one that is none."""
    # Dividing by a power of two is exact: in float64, and in float32, which takes half the time,
    # where nothing can underflow. What overflows is beyond the limit anyway.
    kind = np.dtype(np.float32 if 2.0**-100 <= quantum <= 1 else np.float64)
    with np.errstate(over="ignore"):
        quanta: NDArray[np.floating] = values.astype(kind, copy=False) / kind.type(quantum)
    off = np.rint(quanta) != quanta
    if off.any() or np.abs(quanta).max(initial=0) >= EXACT_LIMIT:
        off |= np.abs(quanta) >= EXACT_LIMIT
        index = tuple(int(i) for i in np.argwhere(off)[0])
        raise ModelError(
            f"{what} is off its grid",
            got=f"{values[index]} at {index}",
            expected=f"a multiple of {quantum:g} below 2^24 of them",
        )
    return quanta
