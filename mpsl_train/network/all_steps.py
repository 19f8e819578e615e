"""A window on a GPU in which no bank changes: each layer's T steps at once.

Weights stay what they are, so that the T currents of a layer are one product, and the gradient of
its weights another. What is left of time is the neuron, and its T steps are one pass forward and
one back. Autograd does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mpsl_train.network.cuda import FEW_INPUTS, CudaKernels
from mpsl_train.network.cuda_layout import flat_weight, patches_of, steps_apart
from mpsl_train.network.dropout import Masks
from mpsl_train.network.layers import LayerState, NeuronSettings, SpikingLayer

__all__ = ["run_all_steps"]


class _Fire(torch.autograd.Function):
    """S of all steps and U of the last, of a population whose currents are known."""

    @staticmethod
    def forward(
        ctx: Any, kernels: CudaKernels, current: Tensor, bias: Tensor, neuron: NeuronSettings,
        steps: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        spikes, near, membrane = kernels.fire_all(current, bias, neuron, steps)
        ctx.near, ctx.kept = near, (kernels, neuron, current.dtype, len(current) == 1)
        return spikes, membrane

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_spikes: Tensor, of_membrane: Tensor) -> tuple[Any, ...]:
        kernels, neuron, dtype, constant = ctx.kept
        current, bias = kernels.unfire_all(of_spikes, of_membrane, ctx.near, neuron, constant)
        return None, current.to(dtype), bias, None, None


def run_all_steps(
    layers: Sequence[SpikingLayer],
    frames: Tensor,
    steps: int,
    kernels: CudaKernels,
    masks: Masks,
) -> tuple[Tensor, Tensor, list[LayerState]]:
    """One window, as `run_window` takes and returns it; without batch normalisation."""
    constant = frames.dim() == 4
    x, count = (frames, 1) if constant else (frames.flatten(0, 1), steps)
    states, membrane = [], frames
    for layer, mask in zip(layers, masks, strict=True):
        spec, state = layer.spec, layer.begin(mask)
        weight, bias = layer.synapses(state)
        if spec.pool_before > 1:
            x = F.avg_pool2d(x, spec.pool_before)
        if spec.flatten_before:
            x = x.flatten(1)
        if mask is not None:
            x = (x.view(count, *mask.shape) * mask.to(x.dtype)).flatten(0, 1)
        current = _product(x, weight, layer, kernels)
        spikes, membrane = _Fire.apply(  # type: ignore[no-untyped-call]
            kernels, steps_apart(current, count), bias, layer.settings, steps
        )
        state.membrane = membrane
        states.append(state)
        x, count = spikes.flatten(0, 1), steps
    return steps_apart(x, steps).to(frames.dtype), membrane, states


def _product(x: Tensor, weight: Tensor, layer: SpikingLayer, kernels: CudaKernels) -> Tensor:
    """The currents without their bias, channels last."""
    spec = layer.spec
    x, weight = kernels.lowered(x), kernels.lowered(kernels.arrange(weight))
    if spec.kind != "conv":
        return F.linear(x, weight)
    if weight.shape[1] >= FEW_INPUTS:
        return F.conv2d(kernels.arrange(x), weight, None, spec.stride, spec.padding)
    patches = patches_of(x, weight.shape, spec.stride, spec.padding)
    flat = F.pad(flat_weight(weight), (0, patches.shape[1] - weight[0].numel()))
    out = F.linear(patches, flat).view(len(x), *spec.neurons[1:], len(weight))
    return out.permute(0, 3, 1, 2)
