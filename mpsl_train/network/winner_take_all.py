"""Unsupervised learning by spike timing: excitatory neurons that compete, after Diehl & Cook 2015.

"Unsupervised learning of digit recognition using spike-timing-dependent plasticity", Frontiers in
Computational Neuroscience 9:99. Constants are those of the paper and its code where none is said.
What differs, for speed:
- current-based neurons instead of conductances, and steps of 2.5 ms, 100 of them (250 ms instead of
  350 ms and a rest of 150 ms; state starts at rest for each image);
- one inhibitory neuron for each excitatory one becomes what it does: a spike pushes all others down
  by 120 mV, and of several neurons over their threshold the one furthest over it spikes;
- 16 images are seen at once with common weights and thresholds; weights move after the images, by
  the sum over all pairs of spikes of all of them;
- an image that draws fewer than 5 spikes is not shown again with more contrast.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mpsl_runtime.errors import RecipeError

__all__ = ["WinnerTakeAll", "class_scores", "labels_of", "neurons_in"]

_NETWORK = re.compile(r"(\d+)WTA")
_STEP_MS = 2.5
# Poisson rates: 63.75 Hz at full intensity. mV over rest: threshold, reset, push of an inhibition.
_RATE_HZ, _THRESHOLD, _RESET, _INHIBITION = 63.75, 13.0, 5.0, 120.0
_MEMBRANE_MS, _TRACE_MS, _REFRACTORY_MS = 100.0, 20.0, 5.0
_THETA_STEP, _THETA_MS = 0.05, 1e7
_GAIN, _LOSS = 1e-2, 1e-4
_WEIGHTS_OF_A_NEURON = 78.4


def neurons_in(network: str) -> int:
    """N of `NWTA`, the notation of these networks.

    Raises:
        RecipeError: it is another network.
    """
    match = _NETWORK.fullmatch(network)
    if match is None or int(match[1]) < 2:
        raise RecipeError(
            "stdp needs a network of competing neurons",
            got=repr(network), expected="100WTA, or another number ≥ 2", where="network",
        )  # fmt: skip
    return int(match[1])


@dataclass(eq=False)
class WinnerTakeAll:
    """N competing neurons.

    Attributes:
        weights: [pixels, N] in [0, 1], 78.4 in all for each neuron.
        theta: [N], what each neuron's threshold has grown by, in mV.
        generator: of Poisson spikes.
    """

    weights: Tensor
    theta: Tensor
    generator: torch.Generator

    @classmethod
    def fresh(cls, pixels: int, neurons: int, generator: torch.Generator) -> WinnerTakeAll:
        """Random weights, no threshold grown."""
        weights = _normalise(0.3 * torch.rand(pixels, neurons, generator=generator))
        return cls(weights, torch.zeros(neurons), generator)

    def encode(self, images: Tensor, steps: int) -> Tensor:
        """Poisson spikes [T, B, pixels] of images uint8 [B, pixels]."""
        chance = images.float() / 255 * (_RATE_HZ * _STEP_MS / 1000)
        dice = torch.empty(steps, *images.shape, dtype=torch.uint8)
        return (dice.random_(0, 255, generator=self.generator) < chance * 255).float()

    def present(self, spikes: Tensor, *, learn: bool) -> Tensor:
        """Runs images from rest; which neuron fired when, [T, B, N].

            V ← e^(−dt/100 ms)·V + I;   a spike where V ≥ 13 mV + θ is furthest over it;
            then V = 5 mV and silence for 5 ms, all others −120 mV;   θ += 0.05 mV

        Args:
            spikes: [T, B, pixels]. learn: weights and thresholds change.
        """
        steps, batch = spikes.shape[:2]
        neurons = len(self.theta)
        current = (spikes.flatten(0, 1) @ self.weights).view(steps, batch, neurons)
        decay, silence = math.exp(-_STEP_MS / _MEMBRANE_MS), round(_REFRACTORY_MS / _STEP_MS)
        potential, waits = torch.zeros(batch, neurons), torch.zeros(batch, neurons)
        theta, fired = self.theta.clone(), torch.zeros(steps, batch, neurons)
        for step in range(steps):
            potential = potential * decay + current[step] * (waits <= 0)
            waits = waits - 1
            most, winner = (potential - theta - _THRESHOLD).max(1)
            rows = torch.nonzero(most >= 0)[:, 0]
            if not len(rows):
                continue
            winners = winner[rows]
            fired[step, rows, winners] = 1
            potential[rows] -= _INHIBITION
            potential[rows, winners] = _RESET
            waits[rows, winners] = silence
            if learn:
                theta = theta * math.exp(-_STEP_MS / _THETA_MS)
                theta = theta + _THETA_STEP * fired[step].sum(0)
        if learn:
            self.theta = theta
            changed = self.weights + _pairs(spikes, fired)
            self.weights = _normalise(changed.clamp_(0, 1))
        return fired


def _normalise(weights: Tensor) -> Tensor:
    return weights * (_WEIGHTS_OF_A_NEURON / weights.sum(0))


def _pairs(spikes: Tensor, fired: Tensor) -> Tensor:
    """ΔW [pixels, N] of all pairs of spikes:

        Σ 1e-2·e^(−(t_post − t_pre)/20 ms) over t_pre ≤ t_post
      − Σ 1e-4·e^(−(t_pre − t_post)/20 ms) over t_post < t_pre

    Both sums are linear in the input's spikes, so one product makes them: with the trace of later
    outputs for gains, of earlier ones for losses.
    """
    change = torch.zeros(spikes.shape[2], fired.shape[2])
    active = torch.nonzero(fired.sum((0, 1)))[:, 0]
    outputs = fired[:, :, active]
    decay = math.exp(-_STEP_MS / _TRACE_MS)
    later, earlier = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
    traces = torch.empty_like(outputs)
    for step in reversed(range(len(outputs))):
        later = later * decay + outputs[step]
        traces[step] = _GAIN * later
    for step in range(len(outputs)):
        earlier = earlier * decay
        traces[step] -= _LOSS * earlier
        earlier = earlier + outputs[step]
    change[:, active] = spikes.flatten(0, 1).t() @ traces.flatten(0, 1)
    return change


def labels_of(counts: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The class that each neuron answers to most strongly on average; int64 [N].

    Args:
        counts: spikes [samples, N]. labels: of the samples.
    """
    sums = torch.zeros(classes, counts.shape[1]).index_add_(0, labels, counts)
    sizes = torch.bincount(labels, minlength=classes).clamp(min=1)
    return (sums / sizes[:, None]).argmax(0)


def class_scores(counts: Tensor, assigned: Tensor, classes: int) -> Tensor:
    """Mean spikes of the neurons of each class, [samples, classes]; 0 for a class without any."""
    members = torch.nn.functional.one_hot(assigned, classes).to(counts.dtype)
    return counts @ (members / members.sum(0).clamp(min=1))
