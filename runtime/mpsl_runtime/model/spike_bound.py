"""How often a neuron can fire in one step, whatever happened before.

One that fires as often as its threshold goes into U keeps less than the threshold. In the next step
U is at most that and the current: S ≤ (kept + largest current)/drop. A bound on the current bounds
the spikes, and with them the sums of the layer behind.
"""

from __future__ import annotations

import math

import numpy as np

from mpsl_runtime.model.plan import Neuron

__all__ = ["most_spikes"]

# Of the few operations of a step, each rounded to float32.
_SLACK = 1 + 1e-5


def most_spikes(neuron: Neuron, current: float) -> int | None:
    """The most spikes of one neuron in a step.

    Args:
        current: |I| of none of the neurons is larger, before gain and synapse.

    Returns:
        A whole number; None where there is no bound: U is the output, or grows by itself.
    """
    if neuron.is_binary:
        return 1
    if not neuron.many or not math.isfinite(current):
        return None
    if (neuron.decay < 0).any() or (neuron.decay > 1).any():
        return None
    largest = np.full((), current, np.float64)
    if neuron.synaptic_decay is not None and neuron.synaptic_gain is not None:
        fading = np.abs(neuron.synaptic_decay.astype(np.float64))
        if (fading >= 1).any():
            return None
        largest = largest * np.abs(neuron.synaptic_gain.astype(np.float64)) / (1 - fading)
    if neuron.has_input_map:
        largest = largest * np.abs(neuron.gain.astype(np.float64)) + np.abs(neuron.leak)
    kept = np.maximum(neuron.threshold.astype(np.float64), neuron.reset_value)
    if neuron.initial is not None:
        kept = np.maximum(kept, neuron.initial)
    spikes = float(((kept + largest) * _SLACK / neuron.taken).max())
    return int(spikes) + 1 if spikes < 2**53 else None
