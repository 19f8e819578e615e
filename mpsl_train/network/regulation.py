"""What becomes of the local banks between two windows: bounds, and a given share of the current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpsl_train.network.processes import average

if TYPE_CHECKING:
    from mpsl_train.network.layers import LayerState, SpikingLayer

__all__ = ["BankLimits", "held", "regulate", "squared_currents"]

_LARGEST_GAIN = 0.25
_LEAST = 1e-12


@dataclass(frozen=True)
class BankLimits:
    """What holds the banks of a layer.

    Attributes:
        cap: largest ‖Wk‖/‖W1‖ of a committed bank; 0 = none.
        per_output: instead, each output's W2 is brought to ‖W2[o]‖ = cap·‖W1[o]‖.
        current_share: ‖(λ2·W2 + λ3·W3)·s‖/‖I‖ that is aimed at; 0: none is.
    """

    cap: float = 0.25
    per_output: bool = False
    current_share: float = 0.0


def held(banks: Sequence[Tensor], learned: Tensor | None, limits: BankLimits) -> list[Tensor]:
    """Local banks as they are committed.

    `per_output` is what Oja's rule converges to, up to a constant. His own term, −η·⟨g²⟩·W2, is
    1/fan_in of the leak of Eq. 8 and would do nothing beside it. W3 follows W2: it is made of the
    same changes.

    Args:
        banks: W2, W3, … learned: W1; None: nothing to compare with, so nothing is held.
    """
    if limits.cap <= 0 or learned is None or not banks:
        return list(banks)
    if not limits.per_output:
        return [
            bank * (limits.cap * learned.norm() / bank.norm().clamp_min(_LEAST)).clamp(max=1.0)
            for bank in banks
        ]
    rows = (-1, *([1] * (learned.dim() - 1)))
    own = banks[0].flatten(1).norm(dim=1)
    scale = limits.cap * learned.flatten(1).norm(dim=1) / own.clamp_min(_LEAST)
    # An output whose bank is still empty has no direction to keep.
    scale = torch.where(own > _LEAST, scale, 1.0).view(rows)
    return [bank * scale for bank in banks]


@torch.no_grad()
def squared_currents(layer: SpikingLayer, x: Tensor, rows: int = 1 << 62) -> tuple[Tensor, Tensor]:
    """(Σ((λ2·W2 + λ3·W3)·s)², Σ I²) over all outputs, positions and inputs.

    I is the current of Eq. 5 without bias and before batch normalisation, by the banks as they were
    last committed.

    Args:
        x: s, what enters the weights, [N, …]. rows: of x at once.
    """
    none = torch.zeros_like(layer.bias)
    sums = []
    for weight in layer.local_and_whole():
        parts = torch.split(x, min(rows, len(x)))
        squares = [layer.multiply(part, weight, none).double().square().sum() for part in parts]
        sums.append(torch.stack(squares).sum())
    return sums[0], sums[1]


@torch.no_grad()
def regulate(layer: SpikingLayer, state: LayerState, steps: int) -> None:
    """Brings the local banks nearer to their share of the current, as measured on what entered the
    layer in the last step of this window:

        η̂ ← η̂·(wanted/measured)^κ,   κ = T/(4·τ_w), at most 1/4

    A bank follows its η̂ after τ_w/T windows; with this κ the loop is critically damped, for one
    window's error counted as a factor of e at most. A fixed bank is itself multiplied.

    Args:
        state: of the window, whose banks were committed. steps: T.
    """
    wanted = layer.limits.current_share
    if wanted <= 0 or state.pre is None or not layer.has_local_bank:
        return
    local, whole = average(torch.stack(squared_currents(layer, state.pre.spikes))).tolist()
    if whole <= 0:
        return
    error = log(wanted) - log(local / whole) / 2 if local > 0 else 1.0
    error = min(1.0, max(-1.0, error))
    for index, rule in enumerate(layer.rule_list, start=1):
        if rule.learned:
            continue
        gain = min(_LARGEST_GAIN, steps / (4 * rule.settings.tau_w_steps))
        factor = exp(gain * error)
        if rule.fixed:
            setattr(layer, f"W{index}", getattr(layer, f"W{index}") * factor)
        else:
            rule.strengthen(factor)
