"""Runs exported artifacts on the samples of training's record and compares (DESIGN §3, §8).

For every artifact and every program that reads it: at most 1e-4 of the output spikes may differ
from the record, each sample that differs must be explained as a tie (`compare`), and the
prediction may differ only there, at most max(1, N/1000) times. An artifact must also hold, bit for
bit, what the run's banks merge to: a wrong weight that no test sample shows is still wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.artifact import artifact_differences, check_shapes
from mpsl_export.backends import NAMES, SUFFIXES, Backend, Outcome, Recording, open_backend
from mpsl_export.checkpoint import Checkpoint, Evaluation, read_checkpoint, read_evaluation
from mpsl_export.compare import Difference, Referee
from mpsl_export.to_nir import graph_of
from mpsl_runtime import datasets, readout
from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.plan import Plan

__all__ = ["DEFAULT_BACKENDS", "SPIKE_TOLERANCE", "verify"]

DEFAULT_BACKENDS = ("torch", "onnx", "reference", "engine")
SPIKE_TOLERANCE = 1e-4
BATCH = 32
# Two membrane potentials as scores may come as near as this and still be a tie.
SCORE_TOLERANCE = 2e-5


@dataclass(eq=False)
class _Trial:
    """One artifact in one back end, and what came out of it."""

    model: Path
    backend: Backend
    spikes: list[NDArray[np.uint8]] = field(default_factory=list)
    membranes: list[NDArray[np.float32]] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        self.spikes.append(outcome.spikes)
        if outcome.membrane is not None:
            self.membranes.append(outcome.membrane)


def verify(
    run: Path,
    *,
    models: Sequence[Path] = (),
    data: Path | None = None,
    limit: int | None = None,
    backends: Sequence[str] = (),
    dump: Path | None = None,
) -> dict[str, Any]:
    """Compares artifacts with the record of a run.

    Args:
        run: the run folder; models: files, default every `RUN/model*`.
        data: where the data set lies; limit: only the first samples of the record.
        backends: default torch, onnx, reference and engine, as far as they read the files.
        dump: an .npz to write: `input` [T,B,C,H,W] and the record's `spikes` [T,B,K], float32.

    Returns:
        The document of `verify --json` (DESIGN §3), with two more keys for each model: `reasons`
        for a failure and `devices`, what each back end ran on.

    Raises:
        RunError: no record, another test set, or a model that does not fit the run.
        UsageError: nothing to verify. DataError: the data set is absent.
    """
    if limit is not None and limit < 1:
        raise UsageError("limit must be positive", got=limit, expected="≥ 1", where="--limit")
    checkpoint, evaluation = read_checkpoint(run), read_evaluation(run)
    _check_run(checkpoint, evaluation)
    found = list(models) or _exported(run)
    plan = _merged_plan(checkpoint)
    trials = _open(found, backends)
    for model in found:
        check_shapes(model, plan)
    split, order = _samples(checkpoint, evaluation, data)
    count = min(limit or len(order), len(order))
    inputs = _Inputs(split, order, checkpoint)
    dumped = []
    for start in range(0, count, BATCH):
        frames = inputs.batch(range(start, min(start + BATCH, count)))
        for trial in trials:
            trial.take(trial.backend.run(frames))
        if dump is not None:
            dumped.append(frames)
    if dump is not None:
        recorded = evaluation.spikes[:count].swapaxes(0, 1).astype(np.float32)
        with replacing(dump) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                input=np.concatenate(dumped, axis=1),
                spikes=recorded,
                ids=np.array(evaluation.ids[:count]),
            )
    judge = _Judge(checkpoint, plan, evaluation, inputs, count)
    reports = [
        judge.report(model, [trial for trial in trials if trial.model == model]) for model in found
    ]
    return {
        "passed": all(report["passed"] for report in reports),
        "samples": count,
        "models": reports,
    }


@dataclass(frozen=True, eq=False)
class _Inputs:
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


class _Judge:
    """Holds outputs against the record."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        evaluation: Evaluation,
        inputs: _Inputs,
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
            from mpsl_export.backends.replay import TrainedReplay

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

    def report(self, model: Path, trials: Sequence[_Trial]) -> dict[str, Any]:
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
            if mismatch > SPIKE_TOLERANCE:
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

    def _scores(self, trial: _Trial) -> NDArray[np.float32]:
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
        self, trial: _Trial, positions: NDArray[np.int64], spikes: NDArray[np.uint8]
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

    def _first_hidden(self, trials: Sequence[_Trial]) -> Difference | None:
        """The first sample in which a layer differs, for an artifact whose outputs do not."""
        for trial in trials[:1]:
            for position in range(self._count):
                found = self._referee.hidden(
                    self._evaluation.ids[position], self._inputs.one(position), trial.backend
                )
                if found is not None and not found.tie:
                    return found
        return None


def _sentence(difference: Difference) -> str:
    return (
        f"{difference.backend}: sample {difference.sample}, layer {difference.layer}, step "
        f"{difference.step}: neuron {difference.neuron} differs first and is no tie "
        f"(U {difference.membrane:.7g}, threshold {difference.threshold:.7g})"
    )


def _check_run(checkpoint: Checkpoint, evaluation: Evaluation) -> None:
    """Banks and record of one folder must come from one training."""
    for key, expected in (
        ("recipe_hash", checkpoint.model.recipe_hash),
        ("dataset", checkpoint.model.dataset),
    ):
        got = evaluation.record.get(key)
        if got != expected:
            raise RunError(
                f"banks and record differ in their {key}",
                got=got,
                expected=expected,
                where=evaluation.path,
            )
    steps, classes = evaluation.spikes.shape[1:]
    expected_shape = [checkpoint.model.steps, checkpoint.layers[-1].neurons[0]]
    if [steps, classes] != expected_shape:
        raise RunError(
            "record does not fit the banks",
            got=f"[T, K] = {[steps, classes]}",
            expected=expected_shape,
            where=evaluation.path,
        )


def _exported(run: Path) -> list[Path]:
    """Every model that lies in a run folder."""
    found = sorted(path for path in run.glob("model*") if path.suffix in set(SUFFIXES.values()))
    if not found:
        raise UsageError("run has no exported model; run `mpsl export` first", where=run)
    return found


def _merged_plan(checkpoint: Checkpoint) -> Plan:
    from mpsl_runtime.graph import plan_of

    return plan_of(graph_of(checkpoint), source=str(checkpoint.path))


def _open(models: Sequence[Path], backends: Sequence[str]) -> list[_Trial]:
    """Every back end that was asked for, on every model that it reads."""
    for name in backends:
        if name not in SUFFIXES:
            raise UsageError(
                "unknown back end", got=name, expected=", ".join(NAMES), where="--backend"
            )
    for model in models:
        if not model.is_file():
            raise UsageError("no such model", got=model, where="--model")
        if model.suffix not in SUFFIXES.values():
            raise UsageError(
                "no back end reads this model",
                got=model.name,
                expected="a .nir or .onnx file",
                where="--model",
            )
    names = list(dict.fromkeys(backends)) or list(DEFAULT_BACKENDS)
    trials = [
        _Trial(model, open_backend(name, model))
        for model in models
        for name in names
        if SUFFIXES[name] == model.suffix
    ]
    for name in backends:
        if not any(trial.backend.name == name for trial in trials):
            raise UsageError(
                f"no model for back end {name}",
                got=[str(m) for m in models],
                expected=f"a {SUFFIXES[name]} file",
                where="--backend",
            )
    idle = [model for model in models if not any(trial.model == model for trial in trials)]
    if idle and not backends:
        raise UsageError("no back end for a model", got=idle[0])
    return trials


def _samples(
    checkpoint: Checkpoint, evaluation: Evaluation, data: Path | None
) -> tuple[datasets.Split, list[int]]:
    """The test split, and for every sample of the record its place in it."""
    name = checkpoint.model.dataset
    split = datasets.open_split(name, datasets.find(name, data), "test")
    found = datasets.content_hash(split)
    recorded = evaluation.record.get("test_hash")
    if found != recorded:
        raise RunError(
            "this is another test set than training evaluated",
            got=f"sha256 {found[:12]}…",
            expected=f"{str(recorded)[:12]}…",
            where=evaluation.path,
        )
    places = {sample: place for place, sample in enumerate(split.ids)}
    unknown = [sample for sample in evaluation.ids if sample not in places]
    if unknown:
        raise RunError(
            "record names a sample that is not there",
            got=unknown[0],
            expected=f"an id of {name}",
            where=evaluation.path,
        )
    return split, [places[sample] for sample in evaluation.ids]
