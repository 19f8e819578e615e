"""How much of each layer's current the local banks make, measured on test samples.

The norm of a bank says little about that: a bank is nearly rank one along the mean input, so that
it adds up where random weights of the same norm cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import numpy as np
import torch

from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.batches import BatchOrder, Samples, to_window
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network
from mpsl_train.network.regulation import squared_currents

__all__ = ["SAMPLES", "current_shares", "norm_share"]

SAMPLES = 200
"""Test samples that the share is measured on, at most."""
_LARGEST_CURRENT = 1 << 24  # values of one layer's current that are in memory at once


@torch.no_grad()
def norm_share(layer: SpikingLayer) -> float | None:
    """‖λ2·W2 + λ3·W3‖ / ‖λ1·W1 + λ2·W2 + λ3·W3‖: `current_shares` without s.

    None where the layer has no local bank or no weight.
    """
    local, whole = layer.local_and_whole()
    sums = [float(weight.double().square().sum()) for weight in (local, whole)]
    return _ratio(sums) if layer.has_local_bank else None


@torch.no_grad()
def current_shares(
    network: Network, samples: Samples, metadata: ModelMetadata, most: int = SAMPLES
) -> list[float | None]:
    """The local banks' share of the current, for each layer:

        ‖(λ2·W2 + λ3·W3)·s‖ / ‖I‖,   I = (λ1·W1 + λ2·W2 + λ3·W3)·s

    Both norms are taken over outputs, positions, all T steps and all samples together, so that one
    silent sample weighs nothing; s is what the trained network lets into the layer, I has neither
    bias nor batch normalisation. W1 and a bank may oppose each other: the share can exceed 1.

    Args:
        samples: of the test set. most: so many of them at most, evenly spaced in their order.

    Returns:
        one number a layer; None where it has no local bank or no current.
    """
    network.eval()
    count = len(samples.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    layers = network.layer_list
    device = layers[0].bias.device
    largest = max(prod(layer.spec.neurons) for layer in layers)
    batch = max(1, min(100, _LARGEST_CURRENT // (largest * metadata.steps)))
    totals = np.zeros((len(layers), 2))
    for _, indices in BatchOrder(chosen, batch):
        frames = to_window(samples[(None, indices)][0].to(device))
        output = network(frames, metadata.steps, record=True)
        # A constant current is the same in all steps, which changes no ratio.
        inputs = [frames if frames.dim() == 4 else frames.flatten(0, 1)]
        inputs += [spikes.flatten(0, 1) for spikes in output.layers[:-1]]
        for index, (layer, x) in enumerate(zip(layers, inputs, strict=True)):
            if layer.has_local_bank:
                seen = layer.prepare(x, layer.begin())
                rows = max(1, _LARGEST_CURRENT // prod(layer.spec.neurons))
                totals[index] += [float(sums) for sums in squared_currents(layer, seen, rows)]
    return [_ratio(totals[index]) for index in range(len(layers))]


def _ratio(sums: Sequence[float]) -> float | None:
    return sqrt(sums[0] / sums[1]) if sums[1] > 0 else None
