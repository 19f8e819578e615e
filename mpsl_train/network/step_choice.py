"""Which of two ways a training window takes: the fused one, or plain autograd, and why."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.compiled import choose
from mpsl_train.network.cuda import cuda_kernels
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.plasticity import Rule
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.plasticity.random_bank import RandomBank
from mpsl_train.network.plasticity.sbp import SelfBackpropagation
from mpsl_train.network.plasticity.stbp import Stbp
from mpsl_train.network.processes import place
from mpsl_train.network.window_grid import keeps_pools

__all__ = ["check_step", "detour", "graph_obstacle", "obstacle"]

_ORDERS: tuple[tuple[type[Rule], ...], ...] = (
    (Stbp,), (Stbp, Hebbian), (Stbp, Hebbian, SelfBackpropagation), (Stbp, RandomBank),
)  # fmt: skip


def obstacle(
    layers: Sequence[SpikingLayer],
    frames: Tensor | None = None,
    *,
    device: str | None = None,
    quantised: bool = False,
) -> str | None:
    """Why these layers cannot take the fused way; None: they can.

    Asked anew for each window: a layer may become quantised between two epochs.

    Args:
        frames: of the window, where they are known. device: that the layers will lie on; None: the
            one they lie on. quantised: they will be on the int8 grid.
    """
    for layer in layers:
        cuda = layer.bias.is_cuda if device is None else device == "cuda"
        whole = layer.quantised or quantised
        kinds = tuple(type(rule) for rule in layer.rule_list)
        if kinds not in _ORDERS:
            return f"its gradients are not written out for {'+'.join(layer.mechanisms)}"
        if type(layer) is not SpikingLayer:
            return f"a layer is a {type(layer).__name__}"
        if layer.settings.reset != "subtract":
            return f"neuron.reset is {layer.settings.reset!r}"
        if layer.flow and layer.plastic:
            return "rules.local_gradient is 'flow'"
        if whole and cuda:
            return "the weights are quantised, and cuDNN's sums are not exact"
        if layer.bf16 and whole:
            return "training.precision is 'bf16', and sums on the int8 grid are exact"
        if layer.bf16 and not _multiplies_in_bf16(layer, cuda):
            return "training.precision is 'bf16'"
        if whole and not keeps_pools(layer):
            return "the weights are quantised behind a pool of k² values, no power of two"
        if type(layer.batchnorm) not in (type(None), nn.BatchNorm1d, nn.BatchNorm2d):
            return "batch normalisation spans several processes"
    if frames is not None and frames.requires_grad:
        return "the input asks for a gradient"
    return None


def _multiplies_in_bf16(layer: SpikingLayer, cuda: bool) -> bool:
    """On CUDA with Triton, on a CPU with C++."""
    if cuda:
        return cuda_kernels(bf16=True) is not None
    return choose(layer.bias, bf16=True)[0].bf16


def graph_obstacle(layers: Sequence[SpikingLayer], frames: Tensor) -> str | None:
    """Why a window cannot be recorded as CUDA graphs; None: it can."""
    if place()[1] > 1:
        return "means over several processes are not recorded"
    for layer in layers:
        if layer.batchnorm is not None:
            return "batch normalisation counts its windows"
        if layer.limits.current_share > 0:
            return "rules.current_share is measured after each window"
        if any(isinstance(rule, Hebbian) and rule.warmth != 1 for rule in layer.rule_list):
            return "the banks are being warmed up"
    return obstacle(layers, frames)


def detour(step: str, layers: Sequence[SpikingLayer], frames: Tensor) -> str | None:
    """Why a window goes through plain autograd; None: it takes the fused way.

    Args:
        step: the recipe's `auto`, `fused`, `graphed` or `autograd`. frames: as for `obstacle`.

    Raises:
        RecipeError: `fused` or `graphed` was asked for and cannot be.
    """
    if step == "autograd":
        return "training.step says so"
    reason = obstacle(layers, frames)
    if reason is not None:
        _refuse(step, reason)
    return reason


def check_step(step: str, layers: Sequence[SpikingLayer], device: str, int8: bool) -> None:
    """Before training: refuses a step that these layers cannot take, now or in later epochs.

    Args:
        step: as for `detour`. device: that training will run on. int8: the last epochs are on the
            int8 grid.

    Raises:
        RecipeError: `fused` or `graphed` was asked for and cannot be.
    """
    reason = obstacle(layers, device=device, quantised=int8)
    if reason is not None:
        _refuse(step, reason)


def _refuse(step: str, reason: str) -> None:
    if step in ("fused", "graphed"):
        raise RecipeError(
            f"the {step} step cannot train this network", got=reason, expected="'auto'",
            where="recipe key training.step",
        )  # fmt: skip
