"""What a layer of a fused window multiplies with while it trains on its int8 grid.

A step's merged weight W_t becomes whole numbers times a power of two,
Q_t = 2^e·round(fold(W_t)/step)
(`int8_training`). On the way back ∂L/∂Q_t goes straight through the rounding to W_t, the bias and
batch normalisation. A window averages over pools where an int8 model sums, so that it takes
k²·Q_t: where k² is a power of two that is the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mpsl_runtime.model.quanta import LARGEST_WEIGHT
from mpsl_runtime.model.scale import Scale
from mpsl_train.network.int8_training import fold, on_grid, on_grid_bias
from mpsl_train.network.layers import NeuronSettings, SpikingLayer

__all__ = ["Stored", "WindowGrid", "keeps_pools"]

_PIECE = 1 << 16


def keeps_pools(layer: SpikingLayer) -> bool:
    """Whether k² of the pool before a layer is a power of two."""
    area = layer.spec.pool_before**2
    return area & (area - 1) == 0


@dataclass(eq=False)
class Stored:
    """A weight and its bias as they are stored.

    Attributes:
        weight: k²·Q_t. bias: in the units of Q_t. made, sources: the same and what they were made
            of, as autograd knows them; without `weight` where that is only rounded.
        gain: ∂Q_t/∂W_t of a weight that is only rounded. inside: where it is not clipped; None:
            everywhere.
    """

    weight: Tensor
    bias: Tensor
    made: list[Tensor]
    sources: list[Tensor]
    gain: float | None = None
    inside: Tensor | None = None

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """∂L of what it was made of: W_t, the bias, and gain and shift of batch normalisation
        where there is one.

        Args:
            weight, bias: ∂L of `weight`, which is consumed, and of `bias`.
        """
        if self.gain is None:
            return torch.autograd.grad(self.made, self.sources, (weight, bias))
        weight.mul_(self.gain)
        if self.inside is not None:
            weight.mul_(self.inside)
        return weight, *torch.autograd.grad(self.made, self.sources, (bias,))


class WindowGrid:
    """The grid of a layer, the same for a whole window.

    Attributes:
        settings: the neuron in stored units.
    """

    def __init__(self, layer: SpikingLayer, scale: Scale) -> None:
        self._layer, self._scale = layer, scale
        self._area = int(layer.spec.pool_before**2)
        self._gain = scale.quantum / scale.step
        self.settings: NeuronSettings = replace(
            layer.settings,
            threshold=scale.stored_threshold,
            surrogate_width=layer.settings.surrogate_width * self._gain,
        )

    def stored(self, weight: Tensor) -> Stored:
        """What a merged weight, dense in memory, and the layer's bias become."""
        norm: Any = self._layer.batchnorm
        bias = self._layer.bias.detach().requires_grad_()
        if norm is None:
            simple, inside = self._rounded(weight)
            with torch.enable_grad():
                made = on_grid_bias(bias, self._scale)
            return Stored(simple, made.detach(), [made], [bias], self._gain, inside)
        with torch.enable_grad():
            merged = weight.detach().requires_grad_()
            folded, shifted = fold(merged, bias, norm, self._area)
            rounded = on_grid(folded, self._scale) * self._area
            made = on_grid_bias(shifted, self._scale)
        sources = [merged, bias, norm.weight, norm.bias]
        return Stored(rounded.detach(), made.detach(), [rounded, made], sources)

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """k²·Q_t, and where it is not clipped, without batch normalisation: as `fold` and `on_grid`
        have it, in pieces that stay in the cache."""
        out, area = torch.empty_like(weight), self._area
        step = torch.full((), self._scale.step * area, dtype=torch.float64)
        largest = 0.0
        for piece, into in zip(_pieces(weight), _pieces(out), strict=True):
            whole = torch.div(piece.double(), step).round_()
            largest = max(largest, float(whole.abs().max()))
            into.copy_(
                whole.clip_(-LARGEST_WEIGHT, LARGEST_WEIGHT).mul_(self._scale.quantum * area)
            )
        if largest <= LARGEST_WEIGHT:
            return out, None
        return out, weight.double().abs() < (LARGEST_WEIGHT + 0.5) * step


def _pieces(values: Tensor) -> tuple[Tensor, ...]:
    """All elements in the order in which they lie in memory."""
    return torch.split(values.as_strided((values.numel(),), (1,)), _PIECE)
