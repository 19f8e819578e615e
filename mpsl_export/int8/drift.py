"""How far an int8 network leaves its float one: each population, when all layers are int8.

Both run side by side on the same samples. The errors of the layers before a population are in what
it sees, so this is how the errors add up, not what one layer makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model import readout
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

__all__ = ["Drift", "DriftMeter", "drift_of"]

Array = NDArray[np.float32]

# Samples that run side by side: a wide layer fills much memory.
_BATCH = 16


@dataclass(frozen=True)
class Drift:
    """Of one population.

    Attributes:
        layer: its name.
        rate, int8_rate: spikes in a neuron and a step, float32 and int8.
        differing: part of its outputs, neurons times steps, that differ.
        first: the first that does, {sample, step, neuron}; None: none.
    """

    layer: str
    rate: float
    int8_rate: float
    differing: float
    first: dict[str, Any] | None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "layer": self.layer,
            "rate": {"float32": self.rate, "int8": self.int8_rate},
            "rate_difference": self.int8_rate - self.rate,
            "spike_difference": self.differing,
            "first_difference": self.first,
        }


class DriftMeter:
    """Runs both networks on samples, as they come.

    Args:
        plan, on_grid: the same network in float32 and int8.
    """

    def __init__(self, plan: Plan, on_grid: Plan) -> None:
        self._runs = _Watched(plan), _Watched(on_grid)
        self._totals = {name: np.zeros(4) for name in self._runs[0].names}
        self._first: dict[str, dict[str, Any]] = {}
        self._seen = 0
        self._scores: tuple[list[Array], list[Array]] = [], []

    def take(self, frames: Array, ids: Sequence[str] | None = None) -> None:
        """Some samples, [T, B, *input_shape]. ids: their names; default their numbers."""
        batch = frames.shape[1]
        names = ids or [str(self._seen + i) for i in range(batch)]
        steps = (run.steps_of(frames) for run in self._runs)
        for step, pair in enumerate(zip(*steps, strict=True)):
            for name, one, two in zip(self._totals, *pair, strict=True):
                differing = one != two
                count = int(differing.sum())
                self._totals[name] += one.size, float(one.sum()), float(two.sum()), count
                if count:
                    self._note(name, step, differing, names)
        for run, scores in zip(self._runs, self._scores, strict=True):
            scores.append(run.scores())
        self._seen += batch

    def result(self) -> tuple[Drift, ...]:
        """Of each population that fires, in order."""
        found = []
        for name, totals in self._totals.items():
            rate, int8_rate, differing = (float(part / max(totals[0], 1)) for part in totals[1:])
            found.append(Drift(name, rate, int8_rate, differing, self._first.get(name)))
        return tuple(found)

    def scores(self) -> dict[str, Array]:
        """Of both, [N, K]."""
        names = ("float32", "int8")
        return {name: np.concatenate(s) for name, s in zip(names, self._scores, strict=True)}

    def _note(self, name: str, step: int, differing: NDArray[np.bool_], ids: Sequence[str]) -> None:
        """The first difference, in the order of samples, then steps; samples of a batch run at
        once, so that an earlier one may come later."""
        known = self._first.get(name)
        for sample, neuron in np.argwhere(differing.reshape(len(differing), -1)).tolist():
            place = {"sample": ids[sample], "step": step, "neuron": neuron}
            if known is None or (known["sample"] in ids and ids.index(known["sample"]) > sample):
                known = self._first[name] = place


class _Watched(Reference):
    """A network whose populations can be looked at after each step."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.names = [neuron.name for neuron in plan.spiking]
        self._spikes: list[Array] = []

    def steps_of(self, frames: Array) -> Iterator[list[Array]]:
        """Spikes of each population [B, *shape], step by step, from rest."""
        self.reset(batch=frames.shape[1])
        self._spikes = []
        for frame in frames:
            self._spikes.append(self._step(np.ascontiguousarray(frame, np.float32)))
            yield [self._outputs[name] for name in self.names]

    def scores(self) -> Array:
        """Of the last samples, [B, K]."""
        batch = len(self._spikes[0])
        return readout.scores(
            self.plan.readout, np.stack(self._spikes), self.membrane.reshape(batch, -1)
        )


def drift_of(
    plan: Plan, on_grid: Plan, frames: Array
) -> tuple[tuple[Drift, ...], dict[str, Array]]:
    """The drift on samples [T, B, *input_shape], and the scores of both networks."""
    meter = DriftMeter(plan, on_grid)
    for start in range(0, frames.shape[1], _BATCH):
        meter.take(frames[:, start : start + _BATCH])
    return meter.result(), meter.scores()
