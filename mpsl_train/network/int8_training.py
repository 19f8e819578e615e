"""Training on the grid of an int8 model: forward the weights as they will be deployed, backward
straight through the rounding.

What goes through the quantiser is what the exporter quantises, the merge of the banks with pooling
and batch normalisation folded in, and the rule is the exporter's (`mpsl_runtime.model.scale`). So
the network that training evaluates is the int8 model itself: the same whole numbers, the same sums.
The membrane is then in stored units, 2^e/step times the trained ones, and so are its threshold and
the width of its surrogate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mpsl_runtime.model.quanta import EXACT_LIMIT, LARGEST_WEIGHT
from mpsl_runtime.model.scale import Scale, whole_numbers

__all__ = ["fold", "on_grid", "on_grid_bias"]


class _OnGrid(torch.autograd.Function):
    """values → q · 2^e; the gradient as if it were values · 2^e/step, none where q is clipped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Scale, limit: int) -> Tensor:
        exact = values.double()
        step = torch.full((), scale.step, dtype=exact.dtype, device=exact.device)
        ctx.save_for_backward(exact.abs() < (limit + 0.5) * step)
        ctx.gain = scale.quantum / scale.step
        stored: Tensor = (whole_numbers(exact, step, limit) * scale.quantum).to(values.dtype)
        return stored

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside * ctx.gain, None, None


def on_grid(weight: Tensor, scale: Scale) -> Tensor:
    """A merged weight as the int8 model stores it; straight-through gradient."""
    stored: Tensor = _OnGrid.apply(weight, scale, LARGEST_WEIGHT)  # type: ignore[no-untyped-call]
    return stored


def on_grid_bias(bias: Tensor, scale: Scale) -> Tensor:
    """A merged bias as the int8 model stores it; straight-through gradient."""
    stored: Tensor = _OnGrid.apply(bias, scale, EXACT_LIMIT)  # type: ignore[no-untyped-call]
    return stored


def fold(
    weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d | None, area: int
) -> tuple[Tensor, Tensor]:
    """Pooling (1/area) and batch normalisation folded into weight and bias.

    `mpsl_export.merge` is the same formula in the same order, in float64 and rounded once: bit-
    equal. The statistics are the running ones, which stand still meanwhile.

    Args:
        weight: [Co, …]. bias: [Co]. area: k² of the pooling before the layer.
    """
    if norm is None and area == 1:
        return weight, bias
    scale = torch.full((len(bias),), 1.0 / area, dtype=torch.float64, device=bias.device)
    if norm is not None and norm.running_mean is not None and norm.running_var is not None:
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shifted = (bias.double() - norm.running_mean.double()) * gain
        bias = (shifted + norm.bias.double()).to(weight.dtype)
        # No reciprocal of a plain number, see `whole_numbers`.
        scale = gain / torch.full_like(gain, area)
    folded = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    return folded.to(weight.dtype), bias
