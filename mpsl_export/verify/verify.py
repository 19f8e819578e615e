"""Runs exported files on the samples of training's record and compares (DESIGN §3, §8).

What must hold is said in `samples`, `judge`, `judge_int8` and `ties`; here files, back ends and
samples are brought together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint, read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.int8.drift import DriftMeter
from mpsl_export.provenance import verified_text
from mpsl_export.verify.backend_run import BackendRun
from mpsl_export.verify.dump import write_dump
from mpsl_export.verify.exported_file import ExportedFile, backend_names
from mpsl_export.verify.int8_anchor import Anchor, Anchors
from mpsl_export.verify.judge import Judge
from mpsl_export.verify.judge_int8 import Int8Judge
from mpsl_export.verify.samples import HashedSplit, Samples, open_samples, open_test_split, silence
from mpsl_export.verify.verdict import Verdict
from mpsl_export.write.alteration import Alteration
from mpsl_export.write.format import Network, format_of, formats
from mpsl_export.write.to_nir import run_network
from mpsl_runtime.errors import MpslError, OutputError, UsageError
from mpsl_runtime.run_folder import RunFolder

__all__ = ["verify"]

BATCH = 32
_DRIFT_SAMPLES = 64


@dataclass(eq=False)
class _Examined:
    """A file, what is wrong with its content, what an int8 file is held against, and its runs."""

    file: ExportedFile
    altered: list[Alteration]
    anchor: Anchor | None = None
    runs: list[BackendRun] = field(default_factory=list)


def verify(
    run: Path,
    *,
    models: Sequence[Path] = (),
    data: Path | None = None,
    limit: int | None = None,
    backends: Sequence[str] = (),
    dump: Path | None = None,
    stamp: bool = False,
    test: HashedSplit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compares files with the record of a run.

    Args:
        run: the run folder; models: files, default every `RUN/model*`.
        data: where the data set lies; limit: only so many samples of the record, of all classes.
        backends: default those of each file's format that need not be asked for.
        dump: an .npz to write, see `dump.write_dump`.
        stamp: write the result into each file that passed, if all samples were run.
        test: the test set, if it is open already. progress: called with the number of samples that
            have run, and of all.

    Returns:
        The document of `verify --json` (DESIGN §3). Each model has three more keys: `reasons` for a
        failure, `ties` by name, and `devices`, what each back end ran on; an int8 model has
        `drift` too, of each population. `warnings` says what is no failure, and must be known.

    Raises:
        RunError: no record, one that the data set contradicts, another test set, or a model that
            does not fit the run.
        UsageError: nothing to verify. DataError: the data set is absent.
        OutputError: the dump cannot be written.
    """
    if limit is not None and limit < 1:
        raise UsageError("limit must be positive", got=limit, expected="≥ 1", where="--limit")
    if dump is not None and not dump.parent.is_dir():
        raise OutputError("cannot write output", got="no such folder", where=dump)
    checkpoint, evaluation = read_checkpoint(run), read_evaluation(run)
    files = _files(run, models, backends)
    merged = run_network(run, checkpoint)
    anchors = Anchors(merged, checkpoint.scales)
    examined = [_examine(file, merged, anchors) for file in files]
    test = test or open_test_split(checkpoint.model.dataset, data)
    samples = open_samples(checkpoint, evaluation, test, limit)
    for each in examined:
        _open(each, tuple(backends))
    _run(examined, samples, dump, progress)
    verdicts = _verdicts(examined, checkpoint, merged, samples)
    drifts = _drifts(examined, merged, samples)
    for each, verdict in zip(examined, verdicts, strict=True):
        verdict.drift = drifts.get(id(each.anchor), [])
    if stamp and limit is None:
        _stamp(examined, verdicts, len(samples), test.content_hash)
    return {
        "passed": all(verdict.passed for verdict in verdicts),
        "samples": len(samples),
        "warnings": silence(samples),
        "models": [verdict.to_mapping() for verdict in verdicts],
    }


def _files(run: Path, models: Sequence[Path], backends: Sequence[str]) -> list[ExportedFile]:
    """The files to verify, each with a back end that runs it."""
    known = backend_names()
    for name in backends:
        if name not in known:
            raise UsageError(
                "unknown back end", got=name, expected=", ".join(known), where="--backend"
            )
    paths = list(models) or [path for path in RunFolder(run).exports() if format_of(path)]
    if not paths:
        raise UsageError("run has no exported model; run `mpsl export` first", where=run)
    files = [ExportedFile.at(path) for path in paths]
    for name in backends:
        suffixes = [
            f.suffix for f in formats().values() if name in [kind.name for kind in f.backends]
        ]
        if not any(file.kinds((name,)) for file in files):
            raise UsageError(
                f"no model for back end {name}",
                got=[str(file.path) for file in files],
                expected=f"a {' or '.join(suffixes)} file",
                where="--backend",
            )
    usable = [file for file in files if file.kinds(tuple(backends))]
    idle = next((file for file in files if file not in usable), None)
    if idle is not None and models:
        raise UsageError(
            "none of the back ends reads this model", got=idle.path, expected=list(backends)
        )
    return usable


def _examine(file: ExportedFile, merged: Network, anchors: Anchors) -> _Examined:
    """Holds the content of a file against what its exporter writes."""
    file.check_shapes(merged.plan)
    if not file.says_int8:
        return _Examined(file, file.alterations(merged))
    anchor = anchors.of(file)
    altered = file.alterations(anchor.expected) if anchor.expected is not None else []
    return _Examined(file, altered, anchor)


def _open(each: _Examined, names: tuple[str, ...]) -> None:
    """Opens the back ends of a file. One whose form is not the exporter's is not run: it may be
    any program."""
    reference = each.anchor.reference if each.anchor is not None else None
    if not all(alteration.runs for alteration in each.altered):
        return
    if each.anchor is not None and reference is None:
        return
    for kind in each.file.kinds(names):
        if reference is not None and kind.name == reference.name and not each.altered:
            # What it would read from the file is what the anchor's reference runs.
            each.runs.append(reference)
        else:
            backend = each.file.open(kind.name)
            each.runs.append(BackendRun(backend, own_units=kind.own_units))


def _run(
    examined: Sequence[_Examined],
    samples: Samples,
    dump: Path | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Every file in every back end, batch by batch; and the dump."""
    anchors = [each.anchor for each in examined if each.anchor is not None]
    runs = [run for each in examined for run in each.runs]
    runs += [anchor.reference for anchor in anchors if anchor.reference is not None]
    runs = list(dict.fromkeys(runs))  # an anchor may be of several files
    count, dumped = len(samples), []
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        frames = samples.batch(range(start, stop))
        for run in runs:
            run.take(frames)
        if dump is not None:
            dumped.append(frames)
        if progress is not None:
            progress(stop, count)
    if dump is not None:
        right = {each.file.path.name: _right(each, samples) for each in examined}
        write_dump(dump, dumped, samples.evaluation.ids, right)


def _right(each: _Examined, samples: Samples) -> NDArray[np.uint8]:
    """What a file is judged against, [N, T, K]: the record, or, of an int8 model that training did
    not make, the reference on its grids, where these can be read."""
    anchor = each.anchor
    if anchor is None or anchor.trained or anchor.reference is None or anchor.reference.fault:
        return samples.evaluation.spikes
    return anchor.reference.spikes.astype(np.uint8)


def _drifts(
    examined: Sequence[_Examined], merged: Network, samples: Samples
) -> dict[int, list[dict[str, Any]]]:
    """How far each int8 network leaves its float one, by the id of its anchor; on samples that lie
    evenly in the test set."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, _DRIFT_SAMPLES).astype(int))
    found: dict[int, list[dict[str, Any]]] = {}
    for anchor in (each.anchor for each in examined):
        if anchor is None or anchor.expected is None or id(anchor) in found:
            continue
        meter = DriftMeter(merged.plan, anchor.expected.plan)
        for part in np.array_split(chosen, -(-len(chosen) // BATCH)):
            frames = np.stack([samples.one(int(position)) for position in part], axis=1)
            try:
                meter.take(frames, [samples.evaluation.ids[int(p)] for p in part])
            except MpslError:
                break  # the reference says what is wrong
        found[id(anchor)] = [drift.to_mapping() for drift in meter.result()]
    return found


def _stamp(
    examined: Sequence[_Examined], verdicts: Sequence[Verdict], count: int, data: str
) -> None:
    """Writes what was found into the files that passed."""
    for each, verdict in zip(examined, verdicts, strict=True):
        if verdict.passed and verdict.spike_mismatch:
            before = str(each.file.metadata().get("verified", ""))
            text = verified_text(verdict.to_mapping(), count, data, before)
            if text != before:
                each.file.format.stamp(each.file.path, text)


def _verdicts(
    examined: Sequence[_Examined], checkpoint: Checkpoint, merged: Network, samples: Samples
) -> list[Verdict]:
    judge = Judge(checkpoint, merged.plan, samples)
    int8_judge = Int8Judge(samples, trained_int8=checkpoint.scales is not None)
    return [
        judge.verdict(each.file.path, each.altered, each.runs)
        if each.anchor is None
        else int8_judge.verdict(each.file.path, each.anchor, each.altered, each.runs)
        for each in examined
    ]
