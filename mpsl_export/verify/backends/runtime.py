"""The two programs of the runtime: the numpy reference and the event-driven engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity, Outcome, check_steps, outputs
from mpsl_runtime.model.plan import Plan

if TYPE_CHECKING:
    from mpsl_runtime.run.engine import Engine
    from mpsl_runtime.run.reference import Reference

__all__ = ["RuntimeProgram"]


class RuntimeProgram:
    """`reference`, many samples at once, or `engine`, one after the other; each from rest."""

    device = "cpu"

    def __init__(self, plan: Plan, name: str) -> None:
        self.name = name
        self._plan = plan
        self._runner: Engine | Reference
        self._batched: Reference | None = None
        if name == "engine":
            from mpsl_runtime.run.engine import Engine

            self._runner = Engine(plan)
        else:
            from mpsl_runtime.run.reference import Reference

            self._runner = self._batched = Reference(plan)

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        check_steps(frames)
        if self._batched is not None:
            spikes = self._batched.run_batch(np.ascontiguousarray(frames))
            membrane = self._batched.membrane.reshape(frames.shape[1], -1)
            return Outcome(outputs(spikes), membrane)
        samples, membranes = [], []
        for index in range(frames.shape[1]):
            samples.append(self._runner.run(np.ascontiguousarray(frames[:, index])))
            membranes.append(self._runner.membrane.reshape(-1).copy())
        return Outcome(outputs(np.stack(samples, axis=1)), np.stack(membranes))

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`."""
        frames = np.ascontiguousarray(frames)
        layers, membranes = self._runner.record(frames), self._runner.record_membrane(frames)
        return [
            LayerActivity(
                neuron.name,
                np.asarray(spikes, np.bool_).reshape(len(spikes), -1),
                membrane.reshape(len(spikes), -1),
            )
            for neuron, spikes, membrane in zip(self._plan.spiking, layers, membranes, strict=True)
        ]
