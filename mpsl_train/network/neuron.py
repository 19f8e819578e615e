"""The spiking neuron of Eq. 1, 3 and 7: one step, and its surrogate gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["step"]


class _Step(torch.autograd.Function):
    """One node in the graph for the whole step: a dozen small operations would each cost as much
    as the arithmetic itself on small networks."""

    @staticmethod
    def forward(
        ctx: Any,
        carried: Tensor | None,
        current: Tensor,
        decay: float,
        threshold: float | Tensor,
        width: float,
        soft: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Two roundings on purpose: a fused multiply-add would differ from the exported model.
        membrane = current.clone() if carried is None else torch.mul(carried, decay).add_(current)
        spikes = (membrane >= threshold).to(membrane.dtype)
        left = membrane - spikes * threshold if soft else membrane * (1 - spikes)
        ctx.save_for_backward(membrane)
        ctx.constants = (carried is not None, decay, threshold, width, soft)
        return spikes, left, membrane

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (membrane,) = ctx.saved_tensors
        has_past, decay, threshold, width, soft = ctx.constants
        spikes_gradient, left_gradient, membrane_gradient = gradients
        near = (membrane - threshold).abs_() < width / 2
        if soft:
            through_spike = torch.sub(spikes_gradient, left_gradient, alpha=threshold)
            through_left = left_gradient
        else:
            through_spike = spikes_gradient - left_gradient * membrane
            through_left = left_gradient * (membrane < threshold)
        gradient = through_spike.mul_(near).div_(width).add_(through_left).add_(membrane_gradient)
        past = gradient * decay if has_past and ctx.needs_input_grad[0] else None
        return past, gradient, None, None, None, None


def step(
    carried: Tensor | None,
    current: Tensor,
    *,
    decay: float,
    threshold: float | Tensor,
    surrogate_width: float = 1.0,
    reset: str = "subtract",
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a population.

        U_t = ρ_m·V_{t−1} + I_t                              Eq. 3
        S_t = [U_t ≥ V_th],  backward 1/a·[|U_t − V_th| < a/2]   Eq. 1, 7
        V_t = U_t − S_t·V_th  (`subtract`)   or   U_t·(1 − S_t)  (`zero`)

    Args:
        carried: V_{t−1}, the membrane after its reset, or None at the first step.
        current: I_t, the same shape.
        decay: ρ_m. surrogate_width: a. threshold: V_th, one number; or, where nothing is learned,
            a tensor that broadcasts.
        reset: `subtract` or `zero`.

    Returns:
        (S_t, V_t, U_t), all of the shape of `current`.
    """
    spikes, left, membrane = _Step.apply(  # type: ignore[no-untyped-call]
        carried, current, decay, threshold, surrogate_width, reset == "subtract"
    )
    return spikes, left, membrane
