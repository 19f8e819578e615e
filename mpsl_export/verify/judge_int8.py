"""Holds an int8 artifact against the record of training, if training was on its grid, else against
the numpy reference on that same artifact: nothing may differ.

Where training did not use the grid, its record does not say which spikes are right; but the sums of
such a model never round (`mpsl_runtime.model.grid`), so every program must give the same ones.
Required:

- the artifact holds, bit for bit, what the run's banks become on the grids that it names, which are
  those of training where training had some;
- those grids keep every sum below 2^24 quanta;
- torch, ONNX Runtime, the engine and the reference agree on every output spike and score, and
  with the record where training was on the grid;
- each reaches the trained accuracy − 0.5 points.

A program that reads the file in units of its own (norse) is held to the tolerance of float models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Evaluation
from mpsl_export.int8.quantize import quantised_plan, stages, stored_scales
from mpsl_export.verify.artifact import artifact_differences
from mpsl_export.verify.backends import Backend, Recording
from mpsl_export.verify.backends.native import Native
from mpsl_export.verify.compare import Difference
from mpsl_export.verify.judge import SPIKE_TOLERANCE, Inputs, Trial
from mpsl_export.write.onnx_file import read_model
from mpsl_runtime.errors import ModelError, MpslError
from mpsl_runtime.model import readout
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.scale import Scale

__all__ = ["ACCURACY_LOSS", "Anchor", "Int8Judge", "anchors_of", "says_int8"]

ACCURACY_LOSS = 0.005
_OWN_UNITS = ("norse",)


@dataclass(frozen=True, eq=False)
class Anchor:
    """What an int8 artifact is held against.

    Attributes:
        model: the file. fault: why its grids cannot be read; empty when they can.
        expected: what the run's banks become on its grids; None with a fault.
        reference: the reference on this artifact; None where there is nothing to run.
    """

    model: Path
    fault: str
    expected: Plan | None
    reference: Trial | None


def says_int8(model: Path) -> bool:
    """Whether a file's metadata says that it is an int8 model."""
    return _properties(model).get("weights") == "int8"


def anchors_of(
    models: Sequence[Path],
    trials: Sequence[Trial],
    plan: Plan,
    trained: Sequence[Scale] | None = None,
) -> dict[Path, Anchor]:
    """An anchor for each int8 file among `models`.

    Args:
        trials: those that run anyway; a reference among them is used.
        plan: the merged network in float32.
        trained: the scales that training used, if any.
    """
    anchors: dict[Path, Anchor] = {}
    for model in models:
        if not says_int8(model):
            continue
        expected, fault = None, ""
        try:
            expected = _expected(model, plan, trained)
        except MpslError as error:
            fault = str(error)
        anchors[model] = Anchor(
            model, fault, expected, _reference(model, expected, trials, anchors)
        )
    return anchors


def _expected(model: Path, plan: Plan, trained: Sequence[Scale] | None) -> Plan:
    """What the banks become on the grids of training, or else on those that a file names."""
    properties = _properties(model)
    found = stages(plan)
    try:
        grids = {s.weighted.name: int(properties[f"weight_grid.{s.weighted.name}"]) for s in found}
        limits = {s.neuron.name: float(properties[f"threshold.{s.neuron.name}"]) for s in found}
        input_max = int(properties["input_max"])
    except (KeyError, ValueError) as error:
        raise ModelError("int8 model does not say its grid", got=error, where=model) from error
    scales = trained or stored_scales(found, grids, limits, str(model))
    return replace(quantised_plan(plan, scales, input_max), source=str(model))


def _reference(
    model: Path,
    expected: Plan | None,
    trials: Sequence[Trial],
    anchors: dict[Path, Anchor],
) -> Trial | None:
    """The reference on this artifact. It reads no ONNX, so there it runs what must be in the file
    (and is, which `artifact_differences` sees to)."""
    for trial in trials:
        if trial.model == model and trial.backend.name == "reference":
            return trial
    if model.suffix == ".nir":
        from mpsl_runtime.model.graph import load_plan

        return Trial(model, Native(load_plan(model), "reference"))
    if expected is None:
        return None
    for other in anchors.values():
        if other.reference is not None and not artifact_differences(other.model, expected):
            return other.reference
    return Trial(model, Native(expected, "reference"))


def _properties(model: Path) -> dict[str, Any]:
    """A file's metadata by name, that of its nodes as `weight_grid.<node>`, `threshold.<node>`."""
    if model.suffix != ".nir":
        return {entry.key: entry.value for entry in read_model(model).metadata_props}
    from mpsl_runtime.model.graph import load_graph

    graph = load_graph(model)
    found = dict(graph.metadata)
    for name, node in graph.nodes.items():
        for key in ("weight_grid", "threshold"):
            if isinstance(node.metadata, dict) and key in node.metadata:
                found[f"{key}.{name}"] = node.metadata[key]
    return {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for key, value in found.items()
    }


class Int8Judge:
    """Words the verdict on int8 artifacts."""

    def __init__(
        self, evaluation: Evaluation, inputs: Inputs, count: int, rule: str, trained_int8: bool
    ) -> None:
        """
        Args:
            rule: the read-out. trained_int8: the record was made on the grid.
        """
        self._trained_int8 = trained_int8
        self._evaluation = evaluation
        self._inputs = inputs
        self._count = count
        self._rule: Any = rule

    def report(self, anchor: Anchor, trials: Sequence[Trial]) -> dict[str, Any]:
        """The entry of one artifact."""
        n = self._count
        labels = self._evaluation.labels[:n]
        trained = float((self._evaluation.predictions[:n] == labels).mean())
        result: dict[str, Any] = {
            "file": str(anchor.model),
            "against": "trained" if self._trained_int8 else "reference",
            "accuracy": {"trained": trained},
            "argmax_agreement": {},
            "spike_mismatch": {},
            "explained_ties": 0,
            "first_difference": None,
            "reasons": [],
            "devices": {trial.backend.name: trial.backend.device for trial in trials},
        }
        altered = self._check_content(anchor, result)
        if anchor.reference is not None:
            self._compare(anchor.reference, trials, anchor.expected, result)
        if altered and result["first_difference"] is None:
            result["first_difference"] = self._effect(anchor) or {
                "sample": None,
                "layer": altered[0].split()[0],
                "step": None,
                "detail": altered[0],
            }
        result["passed"] = not result["reasons"]
        return result

    def _check_content(self, anchor: Anchor, result: dict[str, Any]) -> list[str]:
        """Adds what is wrong with the file itself; returns what differs from the banks."""
        if anchor.expected is None:
            result["reasons"].append(anchor.fault)
            return []
        altered = artifact_differences(anchor.model, anchor.expected)
        result["reasons"] += [f"is not the int8 form of the banks: {line}" for line in altered]
        try:
            layer_grids(anchor.expected)
        except ModelError as error:
            result["reasons"].append(str(error))
        return altered

    def _compare(
        self, anchor: Trial, trials: Sequence[Trial], plan: Plan | None, result: dict[str, Any]
    ) -> None:
        n = self._count
        labels = self._evaluation.labels[:n]
        right, scores = self._outputs(anchor)
        against = "the reference"
        if self._trained_int8:
            right, scores = self._evaluation.spikes[:n], self._evaluation.scores[:n]
            against = "the record of training"
        predictions = readout.label(scores)
        least = result["accuracy"]["trained"] - ACCURACY_LOSS
        entries = trials if anchor in trials else [anchor, *trials]
        for trial in entries:
            name = trial.backend.name
            spikes, own_scores = self._outputs(trial)
            own = readout.label(own_scores)
            differing = (spikes != right).any(axis=(1, 2)) | (own_scores != scores).any(axis=1)
            mismatch, changed = float((spikes != right).mean()), int((own != predictions).sum())
            accuracy = float((own == labels).mean())
            result["devices"].setdefault(name, trial.backend.device)
            result["accuracy"][name] = accuracy
            result["argmax_agreement"][name] = float((own == predictions).mean())
            result["spike_mismatch"][name] = mismatch
            if accuracy < least - 1e-9:
                result["reasons"].append(
                    f"{name}: accuracy {accuracy:.2%} is more than 0.5 points below the trained "
                    f"{result['accuracy']['trained']:.2%}"
                )
            tolerated = name in _OWN_UNITS and (
                mismatch <= SPIKE_TOLERANCE and changed <= max(1, n / 1000)
            )
            if not differing.any() or tolerated:
                continue
            result["reasons"].append(
                f"{name}: {mismatch:.2e} of the output spikes, and the scores of {differing.sum()} "
                f"of {n} samples, differ from {against}; none may"
            )
            if result["first_difference"] is None:
                place = int(np.flatnonzero(differing)[0])
                sample = self._evaluation.ids[place]
                found = self._first(place, anchor.backend, trial.backend, plan)
                # A difference that only a batch shows has no place in a single run.
                result["first_difference"] = found or {"sample": sample, "backend": name}

    def _outputs(self, trial: Trial) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Spikes [N, T, K] and scores [N, K]."""
        spikes = np.concatenate(trial.spikes, axis=1)
        membrane = np.concatenate(trial.membranes) if trial.membranes else None
        return spikes.swapaxes(0, 1), readout.scores(self._rule, spikes, membrane)

    def _first(self, place: int, right: Backend, other: Backend, plan: Plan | None) -> Any:
        """Where a program, or an altered file, parts from the reference; None where it does not.

        Bit for bit, in spikes or membrane potentials, by step and then by layer.
        """
        frames, sample = self._inputs.one(place), self._evaluation.ids[place]
        pairs = list(zip(right.record(frames), other.record(frames), strict=True))
        for step in range(len(frames)):
            for index, (one, two) in enumerate(pairs):
                apart = one.spikes[step] != two.spikes[step]
                if not apart.any() and one.membrane is not None and two.membrane is not None:
                    apart = one.membrane[step] != two.membrane[step]
                if not apart.any():
                    continue
                neuron = int(np.flatnonzero(apart)[0])
                threshold = plan.spiking[index].threshold.reshape(-1)[neuron] if plan else math.nan
                difference = Difference(
                    sample=sample,
                    backend=other.name,
                    layer=one.layer,
                    step=step,
                    neuron=neuron,
                    membrane=_potential(one, step, neuron),
                    threshold=float(threshold),
                    tie=False,
                    seen=_potential(two, step, neuron),
                )
                # JSON knows no NaN.
                known = difference.to_mapping().items()
                return {key: None if value != value else value for key, value in known}
        return None

    def _effect(self, anchor: Anchor) -> Any:
        """What an altered file does, in the first sample that shows it; None where none does."""
        if anchor.expected is None or anchor.reference is None or anchor.model.suffix != ".nir":
            return None
        right = Native(anchor.expected, "reference")
        for place in range(self._count):
            found = self._first(place, right, anchor.reference.backend, anchor.expected)
            if found is not None:
                return found
        return None


def _potential(recording: Recording, step: int, neuron: int) -> float:
    """U, where the program shows it."""
    return math.nan if recording.membrane is None else float(recording.membrane[step, neuron])
