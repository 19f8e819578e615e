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

    so that the gain of the bank depends on neither the width of the layer nor τ_w. With a learned
    sign η is that times tanh θ, θ = 0 at first.

    Attributes:
        eta_hat: η̂, scalar. beta: β, [Co]. theta_sign: θ, scalar, or None.
    """

    shared: ClassVar[bool] = True

    def __init__(self, weight_shape: tuple[int, ...], settings: RuleSettings) -> None:
        super().__init__(weight_shape, settings)
        fan_in = torch.Size(weight_shape[1:]).numel()
        self.scale = (settings.sign or 1) * (1.0 - settings.decay) / fan_in
        self.warmth = 1.0
        self.eta_hat = nn.Parameter(
            torch.tensor(settings.eta_hat), requires_grad=settings.eta_learnable
        )
        self.beta = nn.Parameter(torch.full((weight_shape[0],), settings.beta))
        self.theta_sign: nn.Parameter | None
        learned = nn.Parameter(torch.zeros(())) if settings.sign == 0 else None
        self.register_parameter("theta_sign", learned)

    @property
    def eta(self) -> Tensor:
        """η, scalar, with its sign."""
        eta = self.eta_hat * (self.scale * self.warmth)
        return eta if self.theta_sign is None else eta * torch.tanh(self.theta_sign)

    def warm(self, factor: float) -> None:
        """η times `factor`."""
        self.warmth = factor

    @torch.no_grad()
    def strengthen(self, factor: float) -> None:
        """η̂ times `factor`, between 1e-3 and 1e4."""
        self.eta_hat.copy_((self.eta_hat * factor).clamp(1e-3, 1e4))

    def update(self, pre: Pre, post: Post) -> Tensor:
        """ΔW2 of Eq. 8."""
        eta = self.eta
        return torch.addcmul(
            eta * pre.correlate(post.activity), self.per_output(eta * self.beta), pre.mean
        )
