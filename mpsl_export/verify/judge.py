"""Holds what came out of artifacts against the record of training, and words the verdict.

For every artifact and every program that reads it: at most 1e-4 of the output spikes may differ
from the record (or those of one sample, where a set is so small that one is more), each sample that
differs must be explained as a tie (`compare`), and the prediction may differ only there, at most
max(1, N/1000) times. An artifact must also hold, bit for
bit, what the run's banks merge to: a wrong weight that no test sample shows is still wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint, Evaluation
from mpsl_export.verify.artifact import artifact_differences
from mpsl_export.verify.backends import Backend, Outcome, Recording
from mpsl_export.verify.compare import Difference, Referee
from mpsl_runtime.data import datasets
from mpsl_runtime.model import readout
from mpsl_runtime.model.plan import Plan

__all__ = ["SPIKE_TOLERANCE", "Inputs", "Judge", "Trial"]

SPIKE_TOLERANCE = 1e-4
# Two membrane potentials as scores may come as near as this and still be a tie.
SCORE_TOLERANCE = 2e-5


@dataclass(eq=False)
class Trial:
    """One artifact in one back end, and what came out of it."""

    model: Path
    backend: Backend
    spikes: list[NDArray[np.uint8]] = field(default_factory=list)
    membranes: list[NDArray[np.float32]] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        self.spikes.append(outcome.spikes)
        if outcome.membrane is not None:
            self.membranes.append(outcome.membrane)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The network's input for the samples of the record."""

    split: datasets.Split
    order: Sequence[int]
    checkpoint: Checkpoint

    def one(self, position: int) -> NDArray[np.float32]:
        """[T, C, H, W] of the sample at `position` of the record."""
        return self.split.input(self.order[position], self.checkpoint.model)

    def batch(self, positions: range) -> NDArray[np.float32]:
        """[T, B, C, H, W]."""
        return np.stack([self.one(position) for position in positions], axis=1)


class Judge:
    """Holds outputs against the record."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        evaluation: Evaluation,
        inputs: Inputs,
        count: int,
    ) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._evaluation = evaluation
        self._inputs = inputs
        self._count = count
        self._loaded: Referee | None = None

    @property
    def _referee(self) -> Referee:
        """Built only when something differs: the replay needs torch."""
        if self._loaded is None:
            from mpsl_export.verify.backends.replay import TrainedReplay

            names = [neuron.name for neuron in self._plan.spiking]
            sizes = [int(np.prod(neuron.output_shape)) for neuron in self._plan.spiking]
            probes = {
                sample: [
                    Recording(name, spikes[:, :size])
                    for name, size, spikes in zip(names, sizes, layers, strict=True)
                ]
                for sample, layers in self._evaluation.probes.items()
            }
            self._loaded = Referee(self._plan, TrainedReplay(self._checkpoint, names), probes)
        return self._loaded

    def report(self, model: Path, trials: Sequence[Trial]) -> dict[str, Any]:
        """The entry of one artifact."""
        n = self._count
        labels = self._evaluation.labels[:n]
        trained = self._evaluation.predictions[:n]
        result: dict[str, Any] = {
            "file": str(model),
            "against": "trained",
            "accuracy": {"trained": float((trained == labels).mean())},
            "argmax_agreement": {},
            "spike_mismatch": {},
            "explained_ties": 0,
            "first_difference": None,
            "reasons": [],
            "devices": {trial.backend.name: trial.backend.device for trial in trials},
        }
        altered = artifact_differences(model, self._plan)
        result["reasons"] += [f"is not the merge of the banks: {line}" for line in altered]
        ties = []
        for trial in trials:
            name = trial.backend.name
            spikes = np.concatenate(trial.spikes, axis=1).swapaxes(0, 1)
            scores = self._scores(trial)
            predictions = readout.label(scores)
            differing = (spikes != self._evaluation.spikes[:n]).any(axis=(1, 2))
            mismatch = float((spikes != self._evaluation.spikes[:n]).mean())
            result["accuracy"][name] = float((predictions == labels).mean())
            result["argmax_agreement"][name] = float((predictions == trained).mean())
            result["spike_mismatch"][name] = mismatch
            # In a small set one sample is more than the tolerance; it may differ if its prediction
            # may.
            if mismatch > SPIKE_TOLERANCE and differing.sum() > 1:
                result["reasons"].append(
                    f"{name}: {mismatch:.2e} of the output spikes differ, at most "
                    f"{SPIKE_TOLERANCE:.0e} may"
                )
            changed = predictions != trained
            if changed.sum() > max(1, n / 1000):
                result["reasons"].append(f"{name}: {changed.sum()} of {n} predictions differ")
            for position in np.flatnonzero(changed & ~differing):
                if not self._score_tie(int(position), int(predictions[position])):
                    result["reasons"].append(
                        f"{name}: prediction of {self._evaluation.ids[position]} differs without "
                        "a differing spike"
                    )
            wrong, explained = self._explain(trial, np.flatnonzero(differing), spikes)
            ties += explained
            if wrong is not None:
                result["reasons"].append(_sentence(wrong))
                result["first_difference"] = result["first_difference"] or wrong.to_mapping()
        if result["reasons"] and result["first_difference"] is None:
            hidden = self._first_hidden(trials)
            if hidden is not None:
                result["reasons"].append(_sentence(hidden))
                result["first_difference"] = hidden.to_mapping()
            elif altered:
                # Wrong, though no sample shows it.
                result["first_difference"] = {
                    "sample": None,
                    "layer": altered[0].split()[0],
                    "step": None,
                    "detail": altered[0],
                }
        if ties and result["first_difference"] is None:
            result["first_difference"] = ties[0].to_mapping()
        result["explained_ties"] = len(ties)
        result["passed"] = not result["reasons"]
        return result

    def _scores(self, trial: Trial) -> NDArray[np.float32]:
        rule = self._checkpoint.model.readout
        membrane = np.concatenate(trial.membranes) if trial.membranes else None
        return readout.scores(rule, np.concatenate(trial.spikes, axis=1), membrane)

    def _score_tie(self, position: int, other: int) -> bool:
        """Whether the record's scores of two classes are the same but for rounding."""
        scores = self._evaluation.scores[position]
        label = int(self._evaluation.predictions[position])
        scale = max(1.0, float(np.abs(scores).max()))
        return abs(float(scores[label] - scores[other])) <= SCORE_TOLERANCE * scale

    def _explain(
        self, trial: Trial, positions: NDArray[np.int64], spikes: NDArray[np.uint8]
    ) -> tuple[Difference | None, list[Difference]]:
        """The first difference that is no tie, and the ties found up to it."""
        ties: list[Difference] = []
        for position in positions:
            found = self._referee.explain(
                self._evaluation.ids[position],
                self._inputs.one(int(position)),
                trial.backend,
                self._evaluation.spikes[position],
                spikes[position],
            )
            if not found.tie:
                return found, ties
            ties.append(found)
        return None, ties

    def _first_hidden(self, trials: Sequence[Trial]) -> Difference | None:
        """The first sample in which a layer differs, for an artifact whose outputs do not."""
        for trial in trials[:1]:
            for position in range(self._count):
                found = self._referee.hidden(
                    self._evaluation.ids[position], self._inputs.one(position), trial.backend
                )
                if found is not None:
                    return found
        return None


def _sentence(difference: Difference) -> str:
    place = (
        f"{difference.backend}: sample {difference.sample}, layer {difference.layer}, step "
        f"{difference.step}: neuron {difference.neuron} differs first"
    )
    if difference.seen is not None:
        return f"{place}, in U alone: {difference.seen:.7g} instead of {difference.membrane:.7g}"
    return (
        f"{place} and is no tie (U {difference.membrane:.7g}, threshold {difference.threshold:.7g})"
    )
