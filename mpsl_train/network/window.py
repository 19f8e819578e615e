"""A whole training window as one node of autograd: exact gradients from one trace a layer.

Forward, layer l and step t, all steps of all layers, since a layer's bank at t + 1 needs what the
layer above did at t:

    W_t = λ1·W1 + λ2·W2_{t−1} + λ3·W3_{t−1},   I_t = f(W_t, s_t) + bias
    D_t = C_t + β·P_t,   W2_t = d·W2_{t−1} + η·D_t,   W3_t = d·W3_{t−1} + η·c_t·D_t
    c_t = λ_f·(1 + λ_p·δ_t)  on each output, λ_f in the last layer

Backward, t = T … 1, with e_t = ∂L/∂U_t and G_t = ∂L/∂W_t:

    E_{t−1} = d·E_t + G_t,  E_T = 0:   ∂L/∂W2_t = λ2·E_t,   ∂L/∂W3_t = λ3·E_t
    q_t = η·⟨E_t, D_t⟩ on each output: everything that λ, η, β, λ_f, λ_p get is a sum of vectors
    ∂L/∂λ2 = ⟨E_0, W2_0⟩ + Σ q_t,   ∂L/∂λ3 = ⟨E_0, W3_0⟩ + Σ c_t·q_t   (summed by parts, so that no
    W2_t, W3_t is kept)

Kept for the backward pass: two bits a neuron and step (as booleans), D_t and W_t. Membranes,
activities and pooled inputs are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpsl_train.network.dropout import Masks
from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import LayerState, SpikingLayer
from mpsl_train.network.window_layer import WindowLayer
from mpsl_train.network.window_rules import rule_gradients

__all__ = ["run_window"]


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: list[WindowLayer], frames: Tensor, steps: int, *values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All steps; returns S of the last layer [T, B, K] and its last U [B, K]."""
        first = 0
        for part in parts:
            first += part.begin(values[first:])
        constant = frames.dim() == 4
        out = []
        for step in range(steps):
            last = step == steps - 1
            x = frames if constant else frames[step]
            for part in parts:
                x = part.step(x, last)
            out.append(x.to(frames.dtype))
            for part in parts:
                part.learn(last)
        ctx.parts, ctx.frames, ctx.steps = parts, frames, steps
        for part in parts:
            part.hand_over()
        # A copy: an output that `parts` hold too would be a cycle, and keep the window until Python
        # looks for cycles, which counts objects and not their megabytes.
        return torch.stack(out), parts[-1].membrane.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, spike_gradient: Tensor, membrane_gradient: Tensor) -> tuple[Any, ...]:
        """Frees what it has used, so that the next window does not find it in memory."""
        parts: list[WindowLayer] = ctx.parts
        if not parts[0].tape:
            raise RuntimeError("a window is propagated backwards a second time")
        constant = ctx.frames.dim() == 4
        for step in reversed(range(ctx.steps)):
            for part in parts:
                part.note_change()
            gradient: Tensor = spike_gradient[step].clone()
            for index in reversed(range(len(parts))):
                part = parts[index]
                below = parts[index - 1].spikes() if index else None
                x = below if below is not None else ctx.frames if constant else ctx.frames[step]
                size = parts[index + 1].layer.spec.pool_before if index + 1 < len(parts) else 1
                outer = (
                    membrane_gradient if index == len(parts) - 1 and part.later is None else None
                )
                gradient = part.step_back(gradient, size, x, outer, needs_input=index > 0)
            for part in parts:
                part.tape.pop()
        asked = None
        for part in parts:
            asked = rule_gradients(part, asked)
        return (None, None, None, *(gradient for part in parts for gradient in part.gradients()))


def run_window(
    layers: list[SpikingLayer],
    frames: Tensor,
    steps: int,
    kernels: Kernels = TORCH,
    masks: Masks | None = None,
) -> tuple[Tensor, Tensor, list[LayerState]]:
    """Runs one window of a network whose rules are the built-in ones.

    Args:
        frames: [T, B, C, H, W], or a constant current [B, C, H, W]; no gradient reaches them.
        masks: of dropout, one a layer; None: no layer has dropout.

    Returns:
        S of the last layer [T, B, K], its U at the last step [B, K], and each layer's state at the
        end, with banks that are not committed yet.
    """
    parts: list[WindowLayer] = []
    pairs = list(zip(layers, masks or [None] * len(layers), strict=True))
    for layer, mask in reversed(pairs):
        parts.insert(0, WindowLayer(layer, parts[0] if parts else None, kernels, mask))
    values = [value for part in parts for value in part.values]
    frames = kernels.arrange_frames(frames)
    spikes, membrane = _Window.apply(parts, frames, steps, *values)  # type: ignore[no-untyped-call]
    return spikes, membrane, [part.state for part in parts]
