"""The test samples of a run: what its record claims of them is held against the data set.

A record names its samples and their labels itself, so that a wrong one could tell of another test
than was made. It must have the whole test set, each sample once, with the labels of the data set,
and its predictions must follow from its own spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint
from mpsl_export.evaluation import Evaluation
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.model import readout
from mpsl_runtime.model.metadata import ModelMetadata

__all__ = ["HashedSplit", "Samples", "check_record", "open_samples", "open_test_split", "silence"]


@dataclass(frozen=True, eq=False)
class HashedSplit:
    """The test set as it lies on disk, and its sha256."""

    split: datasets.Split
    content_hash: str


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a record, and the network's input for each.

    Attributes:
        evaluation: the record of these samples alone, with the data set's own labels.
        places: of the samples in the split, [N].
    """

    evaluation: Evaluation
    split: datasets.Split
    places: NDArray[np.int64]
    model: ModelMetadata

    def __len__(self) -> int:
        return len(self.places)

    def one(self, position: int) -> NDArray[np.float32]:
        """[T, C, H, W] of the sample at `position`."""
        return self.split.input(int(self.places[position]), self.model)

    def batch(self, positions: range) -> NDArray[np.float32]:
        """[T, B, C, H, W]."""
        return np.stack([self.one(position) for position in positions], axis=1)


def open_test_split(name: str, data: Path | None) -> HashedSplit:
    """Opens the test set of a data set and hashes it.

    Raises:
        DataError: it is absent or damaged.
    """
    split = datasets.open_split(name, datasets.find(name, data), "test")
    return HashedSplit(split, datasets.content_hash(split))


def open_samples(
    checkpoint: Checkpoint, evaluation: Evaluation, test: HashedSplit, limit: int | None = None
) -> Samples:
    """The samples of a record that passed `check_record`.

    Args:
        limit: only so many, of all classes alike; they keep the order of the record.

    Raises:
        RunError: see `check_record`. UsageError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError("limit must be positive", got=limit, expected="≥ 1", where="--limit")
    places = check_record(checkpoint, evaluation, test)
    chosen = _spread(evaluation.labels, len(places) if limit is None else limit)
    return Samples(evaluation.at(chosen), test.split, places[chosen], checkpoint.model)


def check_record(
    checkpoint: Checkpoint, evaluation: Evaluation, test: HashedSplit
) -> NDArray[np.int64]:
    """Holds a record against its banks, the test set, and itself.

    Returns:
        For each sample of the record its place in the split, [N].

    Raises:
        RunError: banks and record are of two trainings; another test set; samples that are missing,
            unknown or there twice; a label that is not the data set's; predictions or probes that
            do not follow from the spikes.
    """
    _check_origin(checkpoint, evaluation)
    if test.content_hash != evaluation.record.get("test_hash"):
        raise RunError(
            "this is another test set than training evaluated",
            got=f"sha256 {test.content_hash[:12]}…",
            expected=f"{str(evaluation.record.get('test_hash'))[:12]}…",
            where=evaluation.path,
        )
    places = _check_ids(evaluation, test.split)
    labels = test.split.labels[places]
    wrong = np.flatnonzero(evaluation.labels != labels)
    if wrong.size:
        first = int(wrong[0])
        raise RunError(
            f"record has other labels than the data set in {wrong.size} samples",
            got=f"{int(evaluation.labels[first])} for {evaluation.ids[first]}",
            expected=int(labels[first]),
            where=evaluation.path,
        )
    _check_consistency(checkpoint, evaluation)
    return places


def silence(samples: Samples) -> list[str]:
    """What must be said of a network that is silent, a line each; empty of one that is not.

    A silent network has an accuracy as well: that of the class which ties go to.
    """
    evaluation, n = samples.evaluation, len(samples)
    lines = []
    quiet = int((~evaluation.spikes.any(axis=(1, 2))).sum())
    if samples.model.readout == "count" and 2 * quiet >= n:
        which = "every sample" if quiet == n else f"{quiet} of {n} samples"
        lines.append(
            f"the trained network is silent: {which} gives no output spike, and counts as class "
            f"{samples.split.class_names[0]}"
        )
    elif n > 1 and (evaluation.scores == evaluation.scores[0]).all():
        lines.append("the trained network answers every sample alike: its scores never differ")
    return lines


def _check_origin(checkpoint: Checkpoint, evaluation: Evaluation) -> None:
    """Banks and record of one folder must come from one training."""
    expected: dict[str, Any] = {
        "recipe_hash": checkpoint.model.recipe_hash,
        "dataset": checkpoint.model.dataset,
        "weights": "int8" if checkpoint.scales else "float32",
    }
    for key, value in expected.items():
        # Records said nothing of weights before training could be in int8.
        got = evaluation.record.get(key, "float32" if key == "weights" else None)
        if got != value:
            raise RunError(
                f"banks and record differ in their {key}",
                got=got,
                expected=value,
                where=evaluation.path,
            )
    shape = list(evaluation.spikes.shape[1:])
    right = [checkpoint.model.steps, checkpoint.layers[-1].neurons[0]]
    if shape != right:
        raise RunError(
            "record does not fit the banks",
            got=f"[T, K] = {shape}",
            expected=right,
            where=evaluation.path,
        )


def _check_ids(evaluation: Evaluation, split: datasets.Split) -> NDArray[np.int64]:
    """Places in the split; the record must have every sample of it once."""
    found = {sample: place for place, sample in enumerate(split.ids)}
    unknown = next((sample for sample in evaluation.ids if sample not in found), None)
    if unknown is not None:
        raise RunError(
            "record names a sample that is not there",
            got=unknown,
            expected=f"an id of {split.name}",
            where=evaluation.path,
        )
    places = np.array([found[sample] for sample in evaluation.ids], np.int64)
    distinct, counts = np.unique(places, return_counts=True)
    if counts.max() > 1:
        raise RunError(
            "record has a sample twice",
            got=split.ids[int(distinct[counts > 1][0])],
            expected="every sample once",
            where=evaluation.path,
        )
    if len(places) != len(split):
        missing = set(range(len(split))) - set(places.tolist())
        raise RunError(
            "record is not of the whole test set",
            got=f"{len(places)} samples, without {split.ids[min(missing)]}",
            expected=len(split),
            where=evaluation.path,
        )
    return places


def _check_consistency(checkpoint: Checkpoint, evaluation: Evaluation) -> None:
    """What a record says twice must be the same."""
    rule = checkpoint.model.readout
    if rule == "count":
        counted = readout.scores(rule, evaluation.spikes.swapaxes(0, 1))
        _same("scores", (counted == evaluation.scores).all(axis=1), evaluation)
    predicted = readout.label(evaluation.scores)
    _same("predictions", predicted == evaluation.predictions, evaluation)
    sizes = [int(np.prod(layer.neurons)) for layer in checkpoint.layers]
    places = {sample: place for place, sample in enumerate(evaluation.ids)}
    for sample, layers in evaluation.probes.items():
        if [-(-size // 8) for size in sizes] != [layer.shape[1] // 8 for layer in layers]:
            raise RunError("probes do not fit the banks", got=sample, where=evaluation.path)
        spikes = evaluation.spikes[places[sample]] if sample in places else None
        if spikes is None or not np.array_equal(layers[-1][:, : sizes[-1]], spikes.astype(bool)):
            raise RunError(
                "record contradicts itself: a probe has other output spikes than its sample",
                got=sample,
                where=evaluation.path,
            )


def _same(what: str, same: NDArray[np.bool_], evaluation: Evaluation) -> None:
    if not same.all():
        first = int(np.flatnonzero(~same)[0])
        raise RunError(
            f"record contradicts itself: its {what} do not follow from its spikes",
            got=f"{int((~same).sum())} samples, first {evaluation.ids[first]}",
            where=evaluation.path,
        )


def _spread(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The first `count` positions when the classes take turns, in order."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    turns = np.lexsort((np.arange(len(labels)), rank))
    return np.sort(turns[:count])
