"""A fused window as two CUDA graphs, one forward and one backward, recorded once and replayed.

A window of T steps is some thousand small operations, which take longer to start than to run. A
graph starts them all at once. It cannot stop to look at a number, so that λ, η, λ_f and λ_p stay on
the device (`ON_DEVICE`), and it reads and writes the same memory each time, so that banks are
copied into place instead of rebound.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpsl_train.network.all_steps import run_all_steps
from mpsl_train.network.cuda import CudaKernels
from mpsl_train.network.dropout import Masks
from mpsl_train.network.kernels import Kernels
from mpsl_train.network.layers import LayerState, SpikingLayer, membrane_of
from mpsl_train.network.regulation import held
from mpsl_train.network.window import run_window

__all__ = ["ON_DEVICE", "GraphedWindow"]


class _OnDevice(Kernels):
    name = "torch, numbers on the device"
    reads_numbers = False


ON_DEVICE = _OnDevice()


class _Window(nn.Module):
    """One window as a function of its frames and dropout's masks: what a graph can record."""

    def __init__(
        self, layers: Sequence[SpikingLayer], steps: int, kernels: Kernels = ON_DEVICE
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._layers, self._steps, self._kernels = list(layers), steps, kernels

    def forward(self, frames: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        """S of the last layer [T, B, K], its U [B, K], whether every number is finite, then U and
        the local banks of each layer, as they are to be committed.

        Args:
            masks: of the layers that have dropout, in order.
        """
        given = iter(masks)
        spread = [next(given) if _drops(layer) else None for layer in self._layers]
        plastic = any(layer.plastic for layer in self._layers)
        if isinstance(self._kernels, CudaKernels) and not plastic:
            spikes, membrane, states = run_all_steps(
                self._layers, frames, self._steps, self._kernels, spread
            )
        else:
            spikes, membrane, states = run_window(
                self._layers, frames, self._steps, self._kernels, spread
            )
        with torch.no_grad():
            banks = [
                _local(layer, state) for layer, state in zip(self._layers, states, strict=True)
            ]
            potentials = [membrane_of(state).detach() for state in states]
            # Sums of absolute values: NaN and infinity stay what they are.
            sizes = torch._foreach_norm([*potentials, *(b for own in banks for b in own)], 1)
            finite = torch.isfinite(torch.stack(sizes)).all()
            rest: list[Tensor] = []
            for layer, potential, own in zip(self._layers, potentials, banks, strict=True):
                rest += [potential, *held(own, _learned(layer), layer.limits)]
        return spikes, membrane, finite, *rest


class GraphedWindow:
    """Windows of one shape, in training.

    Args:
        layers: of the network, on a CUDA device. steps: T.
        frames, masks: of a window and of its dropout, for their shapes.
        kernels: that read no numbers from the device.
    """

    def __init__(
        self,
        layers: Sequence[SpikingLayer],
        frames: Tensor,
        steps: int,
        masks: Masks,
        kernels: Kernels = ON_DEVICE,
    ) -> None:
        self._layers = list(layers)
        self.shape, self.steps = frames.shape, steps
        # Recorded from: what the windows before recording do to the banks is not kept.
        sample = (torch.zeros_like(frames), *map(torch.ones_like, _present(masks)))
        self._finite = torch.ones((), dtype=torch.bool, device=frames.device)
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # once, for all the windows to come
        try:
            with warnings.catch_warnings():
                # Recorded on a stream of its own, replayed on another: torch warns of that, once.
                warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
                # The last layer's λ_p steers nothing: it gets no gradient.
                self._window: Any = torch.cuda.make_graphed_callables(
                    _Window(layers, steps, kernels), sample, allow_unused_input=True
                )
        finally:
            torch.backends.cudnn.benchmark = benchmark

    def __call__(self, frames: Tensor, masks: Masks) -> tuple[Tensor, Tensor, list[Tensor]]:
        """S of the last layer [T, B, K], its U [B, K], and U of every layer at the last step; the
        banks are committed.

        Nothing waits for the device. Whether a number was not finite is asked of `settled`.
        """
        spikes, membrane, finite, *rest = self._window(frames, *_present(masks))
        potentials, old, new = [], [], []
        for layer in self._layers:
            own = _buffers(layer)
            potentials.append(rest[0])
            old += own
            new += rest[1 : 1 + len(own)]
            rest = rest[1 + len(own) :]
        with torch.no_grad():
            if old:
                torch._foreach_copy_(old, new)
            self._finite.logical_and_(finite)
        return spikes, membrane, potentials

    def settled(self) -> bool:
        """Whether all windows since the last call were finite; waits for the device."""
        holds = bool(self._finite)
        self._finite.fill_(True)
        return holds


def _drops(layer: SpikingLayer) -> bool:
    return layer.spec.dropout_before > 0


def _present(masks: Masks) -> list[Tensor]:
    return [mask for mask in masks if mask is not None]


def _local(layer: SpikingLayer, state: LayerState) -> list[Tensor]:
    pairs = zip(layer.rule_list, state.banks, strict=True)
    return [bank.detach() for rule, bank in pairs if not rule.learned and not rule.fixed]


def _buffers(layer: SpikingLayer) -> list[Tensor]:
    """The banks that a window changes, where they are kept."""
    pairs = zip(layer.rule_list, layer.banks, strict=True)
    return [bank for rule, bank in pairs if not rule.learned and not rule.fixed]


def _learned(layer: SpikingLayer) -> Tensor | None:
    pairs = zip(layer.rule_list, layer.banks, strict=True)
    return next((bank for rule, bank in pairs if rule.learned), None)
