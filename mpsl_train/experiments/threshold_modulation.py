"""Thresholds that follow the statistics of the membranes: TM-NORM, a control beside `aligned`.

Zhao et al., "Threshold Modulation for Online Test-Time Adaptation of Spiking Neural Networks",
IJCNN 2025, arXiv:2505.05375, after their public code NneurotransmitterR/TM-OTTA-SNN. No label, no
weight changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpsl_train.experiments.inference import currents_of, unfolded
from mpsl_train.network import neuron
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network, Output

__all__ = ["ThresholdModulation"]

_EPSILON = 1e-5


class ThresholdModulation:
    """Windows whose neurons fire at a modulated threshold, channel by channel:

        Ṽ = (V_th − β)·√(σ² + ε)/γ + μ,     μ ← (1 − m)·μ + m·μ(U),  σ² ← (1 − m)·σ² + m·σ²(U)

    with μ(U), σ²(U) of this step's membranes over batch and positions, before they fire. γ and β
    are those of the membranes' batch normalisation (MPBN), which the authors train with. Networks
    without one are given the one that changes nothing where they were trained: γ = √(σ_s² + ε),
    β = μ_s, of training samples, so that Ṽ = V_th there. Statistics are kept for each time step,
    since all membranes begin at 0. A spike takes Ṽ from U. Of a batch of one a fully connected
    layer takes nothing in, as in their code: a channel is one number there.

    Args:
        windows: of training samples, as `inference.potentials` takes them, of one size.
        momentum: m; 1: the statistics of this very batch alone, as their code does by default.
    """

    def __init__(
        self, network: Network, windows: Sequence[Tensor], steps: int = 0, momentum: float = 0.1
    ) -> None:
        self.network, self.momentum = network, momentum
        found = [self._source(frames, steps) for frames in windows]
        layers = range(len(network.layer_list))
        # Windows are of one size: means of means, and what the means vary besides.
        self._means = [torch.stack([each[k][0] for each in found]).mean(0) for k in layers]
        squares = [
            torch.stack([each[k][1] + each[k][0].square() for each in found]).mean(0)
            for k in layers
        ]
        self._variances = [
            (square - mean.square()).clamp_min(0)
            for square, mean in zip(squares, self._means, strict=True)
        ]
        self.reset()

    def reset(self) -> None:
        """The statistics of training again."""
        self.means = [mean.clone() for mean in self._means]
        self.variances = [variance.clone() for variance in self._variances]

    @torch.no_grad()
    def _source(self, frames: Tensor, steps: int) -> list[tuple[Tensor, Tensor]]:
        """(μ_s, σ_s²) of each layer, each [T, Co], of the network as it is."""
        x, steps = unfolded(frames, steps)
        found = []
        for layer in self.network.layer_list:
            currents, carried, spikes, seen = currents_of(layer, x), None, [], []
            for step in range(steps):
                current = currents[0 if len(currents) == 1 else step]
                fired, carried, membrane = _stepped(layer, carried, current)
                spikes.append(fired)
                seen.append(_statistics(membrane))
            x = torch.stack(spikes)
            means, variances = zip(*seen, strict=True)
            found.append((torch.stack(means), torch.stack(variances)))
        return found

    @torch.no_grad()
    def __call__(self, frames: Tensor, steps: int = 0) -> Output:
        """One window; the statistics go on.

        Args:
            frames: as `inference.potentials` takes them.
        """
        x, steps = unfolded(frames, steps)
        membrane = x
        for index in range(len(self.network.layer_list)):
            x, membrane = self.layer(index, x, steps)
        return Output(x, membrane)

    @torch.no_grad()
    def layer(self, index: int, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Spikes [T, B, …] of one layer, and its U at the last step, from what enters it,
        [T or 1, B, …]."""
        layer = self.network.layer_list[index]
        currents, carried, spikes, membrane = currents_of(layer, x), None, [], x
        for step in range(steps):
            current = currents[0 if len(currents) == 1 else step]
            _, _, membrane = _stepped(layer, carried, current)
            threshold = self._threshold(index, step, membrane)
            fired, carried, _ = _stepped(layer, None, membrane, threshold)
            spikes.append(fired)
        return torch.stack(spikes), membrane

    def _threshold(self, index: int, step: int, membrane: Tensor) -> Tensor:
        """Ṽ [1, Co, 1, …] of a layer at a step, by statistics that take in these membranes."""
        m, threshold = self.momentum, self.network.layer_list[index].settings.threshold
        if membrane.dim() > 2 or len(membrane) > 1:
            new = _statistics(membrane)
            for kept, value in zip((self.means, self.variances), new, strict=True):
                kept[index][step] = (1 - m) * kept[index][step] + m * value
        gamma = (self._variances[index][step] + _EPSILON).sqrt()
        sigma = (self.variances[index][step] + _EPSILON).sqrt()
        modulated = (threshold - self._means[index][step]) * sigma / gamma + self.means[index][step]
        return modulated.view(1, -1, *([1] * (membrane.dim() - 2)))


def _stepped(
    layer: SpikingLayer, carried: Tensor | None, current: Tensor, threshold: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """S, V and U; without a past, `current` is U itself."""
    settings = layer.settings
    return neuron.step(
        carried, current, decay=settings.decay, reset=settings.reset,
        threshold=settings.threshold if threshold is None else threshold,
    )  # fmt: skip


def _statistics(membrane: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, [Co], over batch and positions."""
    flat = membrane.transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1, unbiased=False)
