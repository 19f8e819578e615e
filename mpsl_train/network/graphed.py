"""A fused window as two CUDA graphs, one forward and one backward, recorded once and replayed.

A window of T steps is some thousand small operations, which take longer to start than to run. A
graph starts them all at once. It cannot stop to look at a number, so that λ, η, λ_f and λ_p stay on
the device (`ON_DEVICE`), and it reads and writes the same memory each time, so that banks are
copied into place instead of rebound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpsl_train.network.dropout import Masks
from mpsl_train.network.kernels import Kernels
from mpsl_train.network.layers import LayerState, SpikingLayer
from mpsl_train.network.window import run_window

__all__ = ["ON_DEVICE", "GraphedWindow"]


class _OnDevice(Kernels):
    name = "torch, numbers on the device"
    reads_numbers = False


ON_DEVICE = _OnDevice()


class _Window(nn.Module):
    """One window as a function of its frames and dropout's masks: what a graph can record."""

    def __init__(self, layers: Sequence[SpikingLayer], steps: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._layers, self._steps = list(layers), steps

    def forward(self, frames: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        """S of the last layer [T, B, K], its U [B, K], then U and the local banks of each layer.

        Args:
            masks: of the layers that have dropout, in order.
        """
        given = iter(masks)
        spread = [next(given) if _drops(layer) else None for layer in self._layers]
        spikes, membrane, states = run_window(self._layers, frames, self._steps, ON_DEVICE, spread)
        rest: list[Tensor] = []
        for layer, state in zip(self._layers, states, strict=True):
            rest += [_membrane(state).detach(), *_local(layer, state)]
        return spikes, membrane, *rest


class GraphedWindow:
    """Windows of one shape, in training.

    Args:
        layers: of the network, on a CUDA device. steps: T.
        frames, masks: of a window and of its dropout, for their shapes.
    """

    def __init__(
        self, layers: Sequence[SpikingLayer], frames: Tensor, steps: int, masks: Masks
    ) -> None:
        self._layers = list(layers)
        self.shape, self.steps = frames.shape, steps
        # Recorded from: what the windows before recording do to the banks is not kept.
        sample = (torch.zeros_like(frames), *map(torch.ones_like, _present(masks)))
        # The last layer's λ_p steers nothing: it gets no gradient.
        self._window: Any = torch.cuda.make_graphed_callables(
            _Window(layers, steps), sample, allow_unused_input=True
        )

    def __call__(self, frames: Tensor, masks: Masks) -> tuple[Tensor, Tensor, list[LayerState]]:
        """As `run_window`; the banks of the states are good until the next call."""
        spikes, membrane, *rest = self._window(frames, *_present(masks))
        states = []
        for layer in self._layers:
            number = sum(not rule.learned for rule in layer.rule_list)
            potential, banks, rest = rest[0], rest[1 : 1 + number], rest[1 + number :]
            kept = iter(banks)
            state = LayerState(
                banks=[
                    bank if rule.learned else next(kept)
                    for rule, bank in zip(layer.rule_list, layer.banks, strict=True)
                ],
                weighted=[None] * len(layer.rule_list),
            )
            state.membrane = potential
            states.append(state)
        return spikes, membrane, states


def _drops(layer: SpikingLayer) -> bool:
    return layer.spec.dropout_before > 0


def _present(masks: Masks) -> list[Tensor]:
    return [mask for mask in masks if mask is not None]


def _membrane(state: LayerState) -> Tensor:
    if state.membrane is None:
        raise RuntimeError("no step has run")
    return state.membrane


def _local(layer: SpikingLayer, state: LayerState) -> list[Tensor]:
    pairs = zip(layer.rule_list, state.banks, strict=True)
    return [bank.detach() for rule, bank in pairs if not rule.learned]
