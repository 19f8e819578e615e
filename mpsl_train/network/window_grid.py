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

from mpsl_runtime.model.scale import Scale
from mpsl_train.network.int8_training import fold, on_grid, on_grid_bias
from mpsl_train.network.layers import NeuronSettings, SpikingLayer

__all__ = ["Stored", "WindowGrid", "keeps_pools"]


def keeps_pools(layer: SpikingLayer) -> bool:
    """Whether k² of the pool before a layer is a power of two."""
    area = layer.spec.pool_before**2
    return area & (area - 1) == 0


@dataclass(eq=False)
class Stored:
    """A weight and its bias as they are stored.

    Attributes:
        weight: k²·Q_t. bias: in the units of Q_t. sources: what they were made of, with what
            autograd knows of it.
    """

    weight: Tensor
    bias: Tensor
    made: tuple[Tensor, Tensor]
    sources: list[Tensor]

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """∂L of what it was made of: W_t, the bias, and gain and shift of batch normalisation
        where there is one.

        Args:
            weight, bias: ∂L of `weight` and `bias`.
        """
        return torch.autograd.grad(self.made, self.sources, (weight, bias))


class WindowGrid:
    """The grid of a layer, the same for a whole window.

    Attributes:
        settings: the neuron in stored units.
    """

    def __init__(self, layer: SpikingLayer, scale: Scale) -> None:
        self._layer, self._scale = layer, scale
        ratio = scale.quantum / scale.step
        self.settings: NeuronSettings = replace(
            layer.settings,
            threshold=scale.stored_threshold,
            surrogate_width=layer.settings.surrogate_width * ratio,
        )

    def stored(self, weight: Tensor) -> Stored:
        """What a merged weight and the layer's bias become."""
        layer = self._layer
        area = int(layer.spec.pool_before**2)
        norm: Any = layer.batchnorm
        with torch.enable_grad():
            merged = weight.detach().requires_grad_()
            bias = layer.bias.detach().requires_grad_()
            folded, shifted = fold(merged, bias, norm, area)
            made = on_grid(folded, self._scale) * area, on_grid_bias(shifted, self._scale)
        norms = [] if norm is None else [norm.weight, norm.bias]
        return Stored(made[0].detach(), made[1].detach(), made, [merged, bias, *norms])
