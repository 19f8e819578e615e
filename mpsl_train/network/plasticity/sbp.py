"""Self-backpropagation: the bank W3, a Hebbian change steered by that of the next layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, RuleSettings, register

__all__ = ["EPSILON", "SelfBackpropagation", "normalise", "received"]

EPSILON = 1e-12


def normalise(r: Tensor, how: str) -> Tensor:
    """δ from r [.., channels]: `l1` r/Σ|r|, `split` with gains and losses each over their own sum,
    `literal` r/Σr, which is 0/0 in a silent layer."""
    if how == "literal":
        return r / r.sum(-1, keepdim=True)
    if how == "split":
        gain, loss = r.clamp(min=0), r.clamp(max=0)
        gains, losses = (part.abs().sum(-1, keepdim=True) for part in (gain, loss))
        return gain / (gains + EPSILON) + loss / (losses + EPSILON)
    return r / (r.abs().sum(-1, keepdim=True) + EPSILON)


def received(above: Tensor, channels: int) -> Tensor:
    """r [channels]: ΔW2 of the next layer, [.., channels, kh, kw] or [.., channels·H·W]
    (channel-major), summed for each channel that it comes from."""
    if above.dim() == 4:
        return above.sum((0, 2, 3))
    return above.sum(0).view(channels, -1).sum(1)


@register("sbp")
class SelfBackpropagation(Rule):
    """Eq. 9–11:   ΔW3 = λ_f·(1 + λ_p·δ)[out]·ΔW2,   W3_t = d·W3_{t−1} + ΔW3

        r = ΔW2 of the next weighted layer, summed over its outputs and taps: one number for each
            channel of this layer
        δ = r/(Σ|r| + ε);   in the last layer ΔW3 = λ_f·ΔW2
        λ_f, λ_p = 0.1 + 0.9·sigmoid(θ), the paper's range [0.1, 1]

    Attributes:
        theta_f, theta_p: θ, scalars, 0 at first.
    """

    needs: ClassVar[tuple[str, ...]] = ("hebbian",)
    shared: ClassVar[bool] = True

    def __init__(self, weight_shape: tuple[int, ...], settings: RuleSettings) -> None:
        super().__init__(weight_shape, settings)
        self.theta_f = nn.Parameter(torch.zeros(()))
        self.theta_p = nn.Parameter(torch.zeros(()))

    @property
    def fraction(self) -> Tensor:
        """λ_f, scalar."""
        return 0.1 + 0.9 * torch.sigmoid(self.theta_f)

    @property
    def steering(self) -> Tensor:
        """λ_p, scalar."""
        return 0.1 + 0.9 * torch.sigmoid(self.theta_p)

    def update(self, pre: Pre, post: Post) -> Tensor:
        """ΔW3 of Eq. 9–11."""
        fraction = self.fraction
        hebbian = post.updates["hebbian"]
        if post.above is None or "hebbian" not in post.above.updates:
            return fraction * hebbian
        above = received(post.above.updates["hebbian"], self.weight_shape[0])
        delta = normalise(above, self.settings.delta)
        return self.per_output(fraction * (1 + self.steering * delta)) * hebbian
