"""The numpy reference with spikes that somebody else decides: of any graph, branches and loops too.

Each population computes U from what it sees; whether it fires is asked for, and it is reset by the
answer. So another program's spikes can drive the reference, or a few of its own be flipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Neuron, Node, Plan
from mpsl_runtime.run.neuron_step import after_spikes
from mpsl_runtime.run.reference import Reference

__all__ = ["Forced"]

Array = NDArray[np.float32]
Decide = Callable[[int, int, Array, NDArray[np.bool_]], NDArray[np.bool_]]
"""(step, population, its U [B, n], whether it would fire [B, n]) -> whether it does [B, n]."""


class Forced(Reference):
    """Args: plan: neurons that fire at most once in a step.

    Raises:
        ModelError: some fire many times a step.
    """

    def __init__(self, plan: Plan) -> None:
        many = [neuron.name for neuron in plan.spiking if neuron.many]
        if many:
            raise ModelError("spikes of 0 and 1 alone can be compared", where=many[0])
        super().__init__(plan)
        self._number = {neuron.name: i for i, neuron in enumerate(plan.spiking)}
        self._decide: Decide = lambda step, index, U, fired: fired

    def run_decided(self, frames: Array, decide: Decide) -> Array:
        """Output [T, B, K] of B samples, frames [T, B, *input_shape], from rest."""
        self._decide = decide
        self.reset(batch=frames.shape[1])
        return np.stack([self._step(np.ascontiguousarray(frame)) for frame in frames])

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        y, behind = super()._apply(node, x, activity)
        index = self._number.get(node.name)
        if index is None or not isinstance(node, Neuron):
            return y, behind
        state = self._states[node.name]
        U = x if node.kind == "threshold" else state.U
        fired = y > 0
        flat = (len(y), -1)
        decided = self._decide(self.steps, index, U.reshape(flat), fired.reshape(flat))
        spikes = decided.reshape(y.shape).astype(np.float32)
        if node.kind != "threshold":
            state.V = after_spikes(node, state.U, spikes)
            if node.resets_late:
                # The next step asks V whether this one fired: it lies on the side of the answer.
                below = np.nextafter(node.threshold, np.float32(-np.inf))
                beside = np.where(spikes > 0, node.threshold, below)
                state.V = np.where((spikes > 0) != fired, beside, state.V)
        self._outputs[node.name] = spikes
        return spikes, spikes
