"""What a record claims is held against the data set: labels, samples, and itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.export import export
from mpsl_export.verify.samples import open_samples, open_test_split, silence
from mpsl_export.verify.verify import verify
from mpsl_runtime.errors import RunError
from mpsl_runtime.model import readout

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]
Arrays = dict[str, np.ndarray]


def _arrays(run: Any) -> Arrays:
    with np.load(run.path / "evaluation.npz") as archive:
        return {key: archive[key].copy() for key in archive.files}


def _rows(arrays: Arrays, chosen: Any) -> Arrays:
    """Some samples of a record, in another order or more than once."""
    keys = ("ids", "labels", "spikes", "scores", "predictions")
    return {**arrays, **{key: arrays[key][chosen] for key in keys}}


def _labels(arrays: Arrays) -> Arrays:
    """The network is right everywhere: labels that are its predictions."""
    return {**arrays, "labels": arrays["predictions"]}


def _one_label(arrays: Arrays) -> Arrays:
    labels = arrays["labels"].copy()
    labels[7] = (labels[7] + 1) % 8
    return {**arrays, "labels": labels}


def _only_the_right_ones(arrays: Arrays) -> Arrays:
    return _rows(arrays, np.flatnonzero(arrays["predictions"] == arrays["labels"]))


def _one_missing(arrays: Arrays) -> Arrays:
    return _rows(arrays, np.arange(1, 24))


def _one_twice(arrays: Arrays) -> Arrays:
    return _rows(arrays, np.array([0, *range(1, 23), 0]))


def _one_besides(arrays: Arrays) -> Arrays:
    return _rows(arrays, np.array([*range(24), 3]))


def _unknown(arrays: Arrays) -> Arrays:
    ids = arrays["ids"].astype("U40")
    ids[5] = "7/99999.bin"
    return {**arrays, "ids": ids}


def _predictions(arrays: Arrays) -> Arrays:
    return {**arrays, "predictions": arrays["labels"]}


def _scores(arrays: Arrays) -> Arrays:
    scores = np.eye(8, dtype=np.float32)[arrays["labels"]] * 5
    return {**arrays, "scores": scores, "predictions": arrays["labels"]}


def _probe(arrays: Arrays) -> Arrays:
    probe = arrays["probe_L03"].copy()
    probe[2, 1, 0] ^= 128
    return {**arrays, "probe_L03": probe}


def _probe_of_another_size(arrays: Arrays) -> Arrays:
    return {**arrays, "probe_L01": arrays["probe_L01"][:, :, :5]}


def _too_few_probes(arrays: Arrays) -> Arrays:
    return {key: value for key, value in arrays.items() if key != "probe_L00"}


FORGED: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "labels that are the predictions": (_labels, "other labels than the data set in"),
    "one label": (_one_label, "other labels than the data set in 1 samples; got 3 for 2/00001"),
    "only samples that it has right": (_only_the_right_ones, "not of the whole test set"),
    "without one sample": (_one_missing, "23 samples, without 0/00000.bin; expected 24"),
    "a sample twice": (_one_twice, "a sample twice; got 0/00000.bin"),
    "a sample besides": (_one_besides, "a sample twice; got 1/00000.bin"),
    "an unknown sample": (_unknown, "that is not there; got 7/99999.bin"),
    "predictions": (_predictions, "its predictions do not follow from its spikes"),
    "scores": (_scores, "its scores do not follow from its spikes"),
    "a probe": (_probe, "a probe has other output spikes than its sample"),
    "a probe of another size": (_probe_of_another_size, "probes do not fit the banks"),
    "too few probes": (_too_few_probes, "probes do not fit the banks"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_record_is_refused_in_one_line(
    event_run: Any, copied: Copy, mpsl: Command, what: str
) -> None:
    run = copied(event_run)
    export(run.path, "nir")
    forge, words = FORGED[what]
    arrays = forge(_arrays(run))
    np.savez(run.path / "evaluation.npz", **arrays)  # type: ignore[arg-type]
    for more in ([], ["--limit", "3"]):
        line = ["verify", run.path, "--data", run.data, "--backend", "reference", *more]
        code, out, err = mpsl(*line)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


def test_samples_in_another_order_are_the_same_record(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    export(run.path, "nir")
    turned = _rows(_arrays(run), np.arange(24)[::-1])
    np.savez(run.path / "evaluation.npz", **turned)  # type: ignore[arg-type]
    assert verify(run.path, data=run.data, backends=["reference"])["passed"]


@pytest.mark.parametrize("name", ["event_run", "image_run"])
def test_a_limit_takes_samples_of_all_classes(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    checkpoint, evaluation = read_checkpoint(run.path), read_evaluation(run.path)
    test = open_test_split(checkpoint.model.dataset, run.data)
    classes = len(checkpoint.model.class_names)
    for limit in (classes, classes + 3, 2 * classes, 24, 100):
        samples = open_samples(checkpoint, evaluation, test, limit)
        assert len(samples) == min(limit, 24)
        counts = np.bincount(samples.evaluation.labels, minlength=classes)
        assert counts.min() >= min(limit, 24) // classes
        assert counts.max() - counts.min() <= 1 or limit >= 24
        # In the order of the record, each with its own input.
        assert list(samples.places) == sorted(samples.places)
        assert samples.evaluation.ids == tuple(test.split.ids[p] for p in samples.places)
        last = len(samples) - 1
        expected = test.split.input(int(samples.places[last]), checkpoint.model)
        assert np.array_equal(samples.one(last), expected)
    assert len(open_samples(checkpoint, evaluation, test)) == 24


def _silenced(run: Any) -> None:
    """The last layer never reaches its threshold."""
    run.tensors["L03.bias"][:] = -50
    run.write(run.path)
    run.record()


def test_a_silent_network_is_said(event_run: Any, copied: Copy, mpsl: Command) -> None:
    run = copied(event_run)
    _silenced(run)
    export(run.path, "nir")
    report = verify(run.path, data=run.data, backends=["engine"])
    assert report["passed"]
    (warning,) = report["warnings"]
    assert "silent: every sample gives no output spike, and counts as class 0" in warning
    code, _, err = mpsl("verify", run.path, "--data", run.data, "--backend", "engine")
    assert code == 0
    assert f"warning: {warning}" in err
    assert verify(event_run.path, models=[run.path / "model.nir"], data=run.data)["warnings"] == []


def test_a_network_that_answers_every_sample_alike_is_said(image_run: Any, copied: Copy) -> None:
    run = copied(image_run)
    run.tensors["L01.W1"][:] = 0
    run.write(run.path)
    run.record()
    checkpoint, evaluation = read_checkpoint(run.path), read_evaluation(run.path)
    samples = open_samples(checkpoint, evaluation, open_test_split("mnist", run.data))
    assert silence(samples) == [
        "the trained network answers every sample alike: its scores never differ"
    ]


def test_a_record_of_other_banks_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    export(run.path, "nir")
    arrays = _arrays(run)
    spikes = np.concatenate([arrays["spikes"], arrays["spikes"][:, :1]], axis=1)
    scores = readout.scores("count", spikes.swapaxes(0, 1))
    run.forge(
        spikes=spikes,
        scores=scores,
        predictions=readout.label(scores),
        probe_ids=np.array([], "U9"),
        **{
            key: arrays[key][:0, :1].repeat(6, axis=1)
            for key in arrays
            if key.startswith("probe_L")
        },
    )
    with pytest.raises(RunError, match="record does not fit the banks"):
        verify(run.path, data=run.data, backends=["reference"])


def test_the_shared_forgery_is_refused(
    shared_data: Path, event_run: Any, copied: Copy, mpsl: Command
) -> None:
    """A record of another run, whose labels are its predictions: here its origin is told first."""
    forged = shared_data.parent / "cases" / "hostile" / "forged_labels_evaluation.npz"
    if not forged.is_file():
        pytest.skip("no shared cases")
    run = copied(event_run)
    export(run.path, "nir")
    (run.path / "evaluation.npz").write_bytes(forged.read_bytes())
    evaluation = read_evaluation(run.path)
    assert (evaluation.labels == evaluation.predictions).all()
    code, _, err = mpsl("verify", run.path, "--data", run.data)
    assert code == 2
    assert err.count("\n") == 1
