"""Self-backpropagation as a method of its own: every weight learns from what its layer sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, register

__all__ = ["LocalSbp", "local_changes", "nudged_states"]

# Zhang 2021 and its code (thomasaimondy/SBP): β, ε, relaxations of the nudged phase; fraction and
# range of what spreads; the weight of the lateral spread over outputs.
NUDGE, STEP, RELAXATIONS = 0.5, 0.5, 5
FRACTION, LATERAL = 0.2, 0.5


@register("sbp-local")
class LocalSbp(Rule):
    """W moves by pre-synaptic state times the change of the post-synaptic state when the output is
    drawn to its target, and that change spreads to neighbouring synapses (`local_changes`). No
    error passes back through the window; what a hidden neuron hears of the layer above comes
    through the weights between them.

    After Zhang et al., "Self-backpropagation of synaptic modifications elevates the efficiency of
    spiking and artificial neural networks", Science Advances 2021. Ours differs in that the free
    states are the spike rates of the network that is deployed, in place of membrane potentials
    relaxed 20 times, and that states lie in [0, 1], as rates do, in place of a sigmoid's (−1, 1).
    """

    learned: ClassVar[bool] = True

    def update(self, pre: Pre, post: Post) -> Tensor:
        """Never called: the window's end changes this bank, see `local_changes`."""
        raise NotImplementedError("sbp-local learns at the end of a window")


def nudged_states(
    free: Sequence[Tensor], weights: Sequence[Tensor], labels: Tensor
) -> list[Tensor]:
    """The states of all layers when the output is drawn to one-hot labels.

        D_i = Δ_i − Δ_{i−1}·W_{i−1}ᵀ − Δ_{i+1}·W_i        hidden, Δ = nudged − free
        D_n = Δ_n − Δ_{n−1}·W_{n−1}ᵀ + β·(x_n − y)         output
        x_i ← clip(x_i − ε·D_i, 0, 1), 5 times, first layer first

    A hidden neuron that was silent or fired at every step stays as it was: the slope of the hard
    sigmoid there is 0. Without that, all silent neurons are drawn up (*measured*: MNIST 91 %
    instead of 96 %).

    Args:
        free: states [B, n_i] of the input and of every layer, in [0, 1] but for the input.
        weights: [n_{i+1}, n_i]. labels: [B].
    """
    target = F.one_hot(labels, free[-1].shape[1]).to(free[-1].dtype)
    nudged = list(free)
    last = len(free) - 1
    for _ in range(RELAXATIONS):
        for i in range(1, last + 1):
            difference = nudged[i] - free[i]
            below = nudged[i - 1] - free[i - 1]
            difference = difference - below @ weights[i - 1].t()
            if i == last:
                difference = difference + NUDGE * (nudged[i] - target)
            else:
                difference = difference - (nudged[i + 1] - free[i + 1]) @ weights[i]
                difference = difference * ((free[i] > 0) & (free[i] < 1))
            nudged[i] = (nudged[i] - STEP * difference).clamp(0, 1)
    return nudged


def _share(values: Tensor) -> Tensor:
    total = values.sum()
    return values / torch.where(total == 0, torch.ones_like(total), total)


def local_changes(
    free: Sequence[Tensor], nudged: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """ΔW [n_{i+1}, n_i] and Δbias [n_{i+1}] of every layer.

        C = ⟨(x⁺ − x)_{i+1} ⊗ x_i⟩/β = P + M, gains and losses apart
        P_pre, M_pre  = (1 + f·share(Σ_out |·|))·(P, M)     to other synapses of the same input
        M_post        = (1 + ½·f·share(Σ_in |M|))·M          of the same output, losses alone
        P_bp, M_bp    = (1 + f·share(Σ_out of the layer above's P_pre, M_pre))·(P, M)
        ΔW = (P_pre + P_bp)/2 + (M_pre + M_post + M_bp)/3;   last layer P_pre + (M_pre + M_post)/2

    with share(v) = v/Σv and f = 0.2. A share is about 1/n, so that the spread changes ΔW by 0.2/n.

    Args:
        free, nudged: as of `nudged_states`.
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    above: tuple[Tensor, Tensor] | None = None
    for i in range(len(free) - 1, 0, -1):
        change = (nudged[i] - free[i]) / NUDGE
        plain = change.t() @ free[i - 1] / len(change)
        gain, loss = plain.clamp(min=0), plain.clamp(max=0)
        gain_pre = gain * (1 + FRACTION * _share(gain.sum(0)))
        loss_pre = loss * (1 + FRACTION * _share(loss.sum(0).abs()))
        loss_post = loss * (1 + LATERAL * FRACTION * _share(loss.sum(1).abs()))[:, None]
        if above is None:
            total = gain_pre + (loss_pre + loss_post) / 2
        else:
            gain_back = gain * (1 + FRACTION * _share(above[0].sum(0)))[:, None]
            loss_back = loss * (1 + FRACTION * _share(above[1].sum(0)))[:, None]
            total = (gain_pre + gain_back) / 2 + (loss_pre + loss_post + loss_back) / 3
        above = (gain_pre, loss_pre)
        weights.insert(0, total)
        biases.insert(0, change.mean(0))
    return weights, biases
