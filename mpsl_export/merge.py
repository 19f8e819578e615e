"""From several banks to one weight a layer: Eq. 12, and batch normalisation folded in.

Eq. 12 itself is `mpsl_runtime.model.banks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import BatchNorm, Checkpoint, Layer
from mpsl_runtime.model import banks

__all__ = [
    "Merged",
    "ParameterCounts",
    "effective_weight",
    "fold_scale",
    "merge",
    "parameter_counts",
]

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
    return banks.effective_weight(layer.banks, layer.coefficients)


def fold_scale(layer: Layer) -> NDArray[np.float64]:
    """What each output's weights are multiplied with: 1/k² of the pooling before them, and the gain
    of the batch normalisation behind them; float64 [Co]."""
    area = layer.pool_before**2
    if layer.norm is None:
        return np.float64(1.0 / area) * np.ones(len(layer.bias))
    return _gain(layer.norm) / area


def _gain(norm: BatchNorm) -> NDArray[np.float64]:
    gain: NDArray[np.float64] = norm.weight.astype(np.float64) / np.sqrt(
        norm.var.astype(np.float64) + norm.eps
    )
    return gain


def merge(layer: Layer) -> Merged:
    """The banks of a layer as one weight; pooling (1/k²) and batch normalisation folded in.

    Folding multiplies in float64 and rounds once. Pooling by a power of two alone is exact; it
    scales the weight and never the bias. Numbers beyond float32 become infinite, which the loader
    refuses by name.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _folded(layer)


def _folded(layer: Layer) -> Merged:
    weight = banks.folded(effective_weight(layer), fold_scale(layer))
    bias, area, norm = layer.bias, layer.pool_before**2, layer.norm
    if norm is not None:
        shifted = (bias.astype(np.float64) - norm.mean.astype(np.float64)) * _gain(norm)
        bias = (shifted + norm.bias.astype(np.float64)).astype(np.float32)
    return Merged(weight, bias, exact=norm is None and area & (area - 1) == 0)


def parameter_counts(checkpoint: Checkpoint) -> ParameterCounts:
    """How many weights and biases the network of banks holds, and how many the merge leaves."""
    whole = merged = 0
    for layer in checkpoint.layers:
        whole += sum(bank.size for bank in layer.banks) + layer.bias.size
        merged += layer.banks[0].size + layer.bias.size
    return ParameterCounts(banks=whole, merged=merged)
