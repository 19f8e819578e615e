"""Runs exported artifacts on the samples of training's record and compares (DESIGN §3, §8).

What must hold is said in `judge`, `judge_int8` and `compare`; here files, back ends and samples
are brought together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpsl_export.checkpoint import Checkpoint, Evaluation, read_checkpoint, read_evaluation
from mpsl_export.verify.artifact import check_shapes
from mpsl_export.verify.backends import NAMES, SUFFIXES, open_backend
from mpsl_export.verify.judge import Inputs, Judge, Trial
from mpsl_export.verify.judge_int8 import Int8Judge, anchors_of
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import OutputError, RunError, UsageError
from mpsl_runtime.model.graph import plan_of

__all__ = ["DEFAULT_BACKENDS", "verify"]

DEFAULT_BACKENDS = ("torch", "onnx", "reference", "engine")
BATCH = 32


def verify(
    run: Path,
    *,
    models: Sequence[Path] = (),
    data: Path | None = None,
    limit: int | None = None,
    backends: Sequence[str] = (),
    dump: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compares artifacts with the record of a run.

    Args:
        run: the run folder; models: files, default every `RUN/model*`.
        data: where the data set lies; limit: only the first samples of the record.
        backends: default torch, onnx, reference and engine, as far as they read the files.
        dump: an .npz to write: `input` [T,B,C,H,W] and the record's `spikes` [T,B,K], float32.
        progress: called with the number of samples that have run, and of all.

    Returns:
        The document of `verify --json` (DESIGN §3), with two more keys for each model: `reasons`
        for a failure and `devices`, what each back end ran on.

    Raises:
        RunError: no record, another test set, or a model that does not fit the run.
        UsageError: nothing to verify. DataError: the data set is absent.
        OutputError: the dump cannot be written.
    """
    if limit is not None and limit < 1:
        raise UsageError("limit must be positive", got=limit, expected="≥ 1", where="--limit")
    if dump is not None and not dump.parent.is_dir():
        raise OutputError("cannot write output", got="no such folder", where=dump)
    checkpoint, evaluation = read_checkpoint(run), read_evaluation(run)
    _check_run(checkpoint, evaluation)
    found = list(models) or _exported(run)
    graph = graph_of(checkpoint)
    plan = plan_of(graph, source=str(checkpoint.path))
    trials = _open(found, backends)
    idle = [model for model in found if not any(trial.model == model for trial in trials)]
    if idle and models:
        raise UsageError(
            "none of the back ends reads this model", got=idle[0], expected=list(backends)
        )
    found = [model for model in found if model not in idle]
    for model in found:
        check_shapes(model, plan)
    anchors = anchors_of(found, trials, plan, checkpoint.scales)
    running = list(trials)
    for anchor in anchors.values():
        if anchor.reference is not None and anchor.reference not in running:
            running.append(anchor.reference)
    split, order = _samples(checkpoint, evaluation, data)
    count = min(limit or len(order), len(order))
    inputs = Inputs(split, order, checkpoint)
    dumped = []
    for start in range(0, count, BATCH):
        frames = inputs.batch(range(start, min(start + BATCH, count)))
        for trial in running:
            trial.take(trial.backend.run(frames))
        if dump is not None:
            dumped.append(frames)
        if progress is not None:
            progress(min(start + BATCH, count), count)
    if dump is not None:
        recorded = evaluation.spikes[:count].swapaxes(0, 1).astype(np.float32)
        with replacing(dump) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                input=np.concatenate(dumped, axis=1),
                spikes=recorded,
                ids=np.array(evaluation.ids[:count]),
            )
    judge = Judge(checkpoint, plan, evaluation, inputs, count)
    trained_int8 = checkpoint.scales is not None
    int8_judge = Int8Judge(evaluation, inputs, count, checkpoint.model.readout, trained_int8)
    reports = []
    for model in found:
        own = [trial for trial in trials if trial.model == model]
        if model in anchors:
            reports.append(int8_judge.report(anchors[model], own))
        else:
            reports.append(judge.report(model, own))
    return {
        "passed": all(report["passed"] for report in reports),
        "samples": count,
        "models": reports,
    }


def _check_run(checkpoint: Checkpoint, evaluation: Evaluation) -> None:
    """Banks and record of one folder must come from one training."""
    for key, expected in (
        ("recipe_hash", checkpoint.model.recipe_hash),
        ("dataset", checkpoint.model.dataset),
        ("weights", "int8" if checkpoint.scales else "float32"),
    ):
        # Records said nothing of weights before training could be in int8.
        got = evaluation.record.get(key, "float32" if key == "weights" else None)
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


def _open(models: Sequence[Path], backends: Sequence[str]) -> list[Trial]:
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
        Trial(model, open_backend(name, model))
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
