"""The Hebbian rule: the bank W2, changed by what meets at the synapse."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, RuleSettings, register

__all__ = ["Hebbian"]


@register("hebbian")
class Hebbian(Rule):
    """Eq. 8:   ΔW2 = ±η·(C + β[out]·P),   W2_t = d·W2_{t−1} + ΔW2

        g = tanh(U/V_th),   C = ⟨g sᵀ⟩ over the batch and positions,   P = the same with g ≡ 1
        η = η̂·(1 − d)/fan_in

    so that the gain of the bank depends on neither the width of the layer nor τ_w.

    Attributes:
        eta_hat: η̂, scalar. beta: β, [Co].
    """

    shared: ClassVar[bool] = True

    def __init__(self, weight_shape: tuple[int, ...], settings: RuleSettings) -> None:
        super().__init__(weight_shape, settings)
        fan_in = torch.Size(weight_shape[1:]).numel()
        self.scale = settings.sign * (1.0 - settings.decay) / fan_in
        self.eta_hat = nn.Parameter(
            torch.tensor(settings.eta_hat), requires_grad=settings.eta_learnable
        )
        self.beta = nn.Parameter(torch.full((weight_shape[0],), settings.beta))

    @property
    def eta(self) -> Tensor:
        """η, scalar, with its sign."""
        return self.eta_hat * self.scale

    def update(self, pre: Pre, post: Post) -> Tensor:
        """ΔW2 of Eq. 8."""
        eta = self.eta
        return torch.addcmul(
            eta * pre.correlate(post.activity), self.per_output(eta * self.beta), pre.mean
        )
