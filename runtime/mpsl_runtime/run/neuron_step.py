"""The step of a population in plain numpy: `mpsl_runtime.model.plan.Neuron`, line by line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Neuron

__all__ = ["NeuronState", "after_spikes", "fire", "spikes_at"]

Array = NDArray[np.float32]


@dataclass
class NeuronState:
    """Of one population, each [B, *shape]: V after reset, U before it, the synapse's J."""

    V: Array
    U: Array
    J: Array


def fire(neuron: Neuron, state: NeuronState, current: Array) -> Array:
    """One step of a population; returns its output and changes its state."""
    if neuron.kind == "threshold":
        return spikes_at(neuron, current)
    if neuron.synaptic_decay is not None and neuron.synaptic_gain is not None:
        state.J = neuron.synaptic_decay * state.J + neuron.synaptic_gain * current
        current = state.J
    if neuron.has_input_map:
        current = neuron.gain * current + neuron.leak
    state.U = np.add(neuron.decay * state.V, current, dtype=np.float32)
    if neuron.kind == "integrating":
        state.V = state.U
        return state.U
    if neuron.resets_late:
        state.U = _reset(neuron, state.U, spikes_at(neuron, state.V))
    S = spikes_at(neuron, state.U)
    state.V = after_spikes(neuron, state.U, S)
    return S


def spikes_at(neuron: Neuron, U: Array) -> Array:
    """How often each neuron fires at this U, float32: 0 or 1, or any number where it is `many`."""
    S = np.greater_equal(U, neuron.threshold).astype(np.float32)
    return np.where(S == 1, np.floor(U / neuron.taken), S) if neuron.many else S


def after_spikes(neuron: Neuron, U: Array, S: Array) -> Array:
    """V, with which the next step begins, where spikes S fell at U."""
    return U if neuron.resets_late else _reset(neuron, U, S)


def _reset(neuron: Neuron, U: Array, S: Array) -> Array:
    """What spikes S leave of U."""
    if neuron.reset in ("subtract", "subtract-undecayed"):
        return U - S * neuron.taken
    return np.where(S > 0, neuron.reset_value, U)
