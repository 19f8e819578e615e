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

from mpsl_train.network.kernels import Kernels
from mpsl_train.network.layers import LayerState, SpikingLayer
from mpsl_train.network.window import run_window

__all__ = ["ON_DEVICE", "GraphedWindow"]


class _OnDevice(Kernels):
    name = "torch, numbers on the device"
    reads_numbers = False


ON_DEVICE = _OnDevice()


class _Window(nn.Module):
    """One window as a function of its frames: what a graph can record."""

    def __init__(self, layers: Sequence[SpikingLayer], steps: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._layers, self._steps = list(layers), steps

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """S of the last layer [T, B, K], its U [B, K], then U and the local banks of each layer."""
        spikes, membrane, states = run_window(self._layers, frames, self._steps, ON_DEVICE)
        rest: list[Tensor] = []
        for layer, state in zip(self._layers, states, strict=True):
            rest += [_membrane(state).detach(), *_local(layer, state)]
        return spikes, membrane, *rest


class GraphedWindow:
    """Windows of one shape, in training.

    Args:
        layers: of the network, on a CUDA device. frames: of a window, for their shape. steps: T.
    """

    def __init__(self, layers: Sequence[SpikingLayer], frames: Tensor, steps: int) -> None:
        self._layers = list(layers)
        self.shape, self.steps = frames.shape, steps
        # Recorded from: what the windows before recording do to the banks is not kept.
        sample = torch.zeros_like(frames)
        # The last layer's λ_p steers nothing: it gets no gradient.
        self._window: Any = torch.cuda.make_graphed_callables(
            _Window(layers, steps), (sample,), allow_unused_input=True
        )

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor, list[LayerState]]:
        """As `run_window`; the banks of the states are good until the next call."""
        spikes, membrane, *rest = self._window(frames)
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


def _membrane(state: LayerState) -> Tensor:
    if state.membrane is None:
        raise RuntimeError("no step has run")
    return state.membrane


def _local(layer: SpikingLayer, state: LayerState) -> list[Tensor]:
    pairs = zip(layer.rule_list, state.banks, strict=True)
    return [bank.detach() for rule, bank in pairs if not rule.learned]
