"""Reward-modulated Hebbian learning as a plug-in: `mpsl train … --plugins reward_hebbian.py`."""

import torch
from torch import nn

from mpsl_train import Rule, register


@register("reward-hebbian")
class RewardHebbian(Rule):
    """ΔW = η·⟨(R − R̄)·g sᵀ⟩ over the batch and positions,   η = η̂·(1 − d)/fan_in

    Hebb's g sᵀ is kept where the network is right and taken back where it is wrong: R is 1 where
    the leading class is the right one, else 0, and R̄ is what the batch was to expect, its mean.
    """

    def __init__(self, weight_shape, settings):
        super().__init__(weight_shape, settings)
        fan_in = torch.Size(weight_shape[1:]).numel()
        self.scale = settings.sign * (1.0 - settings.decay) / fan_in
        self.eta_hat = nn.Parameter(torch.tensor(settings.eta_hat))

    def update(self, pre, post):
        if post.reward is None:  # nobody tells what is right
            return torch.zeros(self.weight_shape)
        surprise = post.reward - post.reward.mean()
        activity = post.activity * surprise.view(-1, *[1] * (post.activity.dim() - 1))
        return self.eta_hat * self.scale * pre.correlate(activity)
