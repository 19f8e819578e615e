"""From several banks to one weight a layer: Eq. 12, and batch normalisation folded in.

    W = (λ1·W1 + λ2·W2) + λ3·W3                                                       Eq. 12

in float32 and in this order, which is the order in which training's evaluation adds the banks
(Eq. 5), so that both hold the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint, Layer

__all__ = ["Merged", "ParameterCounts", "effective_weight", "merge", "parameter_counts"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Merged:
    """One weight and one bias: what is left of a layer for a deployed network.

    Attributes:
        weight: [Co, Ci, kh, kw] or [out, in], float32.
        bias: [Co] or [out], float32.
        exact: every fold was free of rounding, so the sums are those of training bit for bit.
    """

    weight: Array
    bias: Array
    exact: bool


@dataclass(frozen=True)
class ParameterCounts:
    """Weights and biases: `banks` with all banks, `merged` of the exported network, which are those
    of a network with a single rule. The same count as in training's report.json."""

    banks: int
    merged: int


def effective_weight(layer: Layer) -> Array:
    """Eq. 12 of one layer, float32; a layer with fewer banks has fewer summands."""
    tail = (1,) * (layer.banks[0].ndim - 1)
    total: Array | None = None
    for bank, coefficient in zip(layer.banks, layer.coefficients, strict=True):
        scale = coefficient.reshape(-1, *tail) if coefficient.ndim else coefficient
        part = scale * bank
        total = part if total is None else total + part
    if total is None:
        raise ValueError("a layer without banks")
    return np.asarray(total, dtype=np.float32)


def merge(layer: Layer) -> Merged:
    """The banks of a layer as one weight; pooling (1/k²) and batch normalisation folded in.

    Folding multiplies in float64 and rounds once. Pooling by a power of two alone is exact; it
    scales the weight and never the bias. Numbers beyond float32 become infinite, which the loader
    refuses by name.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _folded(layer)


def _folded(layer: Layer) -> Merged:
    weight, bias = effective_weight(layer), layer.bias
    area = layer.pool_before**2
    if layer.norm is None and area == 1:
        return Merged(weight, bias, exact=True)
    scale = np.float64(1.0 / area) * np.ones(len(bias))
    if layer.norm is not None:
        norm = layer.norm
        gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
        shifted = (bias.astype(np.float64) - norm.mean.astype(np.float64)) * gain
        bias = (shifted + norm.bias.astype(np.float64)).astype(np.float32)
        scale = gain / area
    folded = weight.astype(np.float64) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return Merged(
        folded.astype(np.float32), bias, exact=layer.norm is None and area & (area - 1) == 0
    )


def parameter_counts(checkpoint: Checkpoint) -> ParameterCounts:
    """How many weights and biases the network of banks holds, and how many the merge leaves."""
    banks = merged = 0
    for layer in checkpoint.layers:
        banks += sum(bank.size for bank in layer.banks) + layer.bias.size
        merged += layer.banks[0].size + layer.bias.size
    return ParameterCounts(banks=banks, merged=merged)
