"""`mpsl verify` passes what is right, and fails what is wrong by naming where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint, read_evaluation
from mpsl_export.verify.backends import Recording, open_backend
from mpsl_export.verify.compare import TIE_TOLERANCE, first_difference
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, RunError, UsageError
from mpsl_runtime.model.graph import plan_of

Copy = Callable[[Any], Any]


def _export(run: Any, change: Callable[[nir.NIRGraph], None] | None = None) -> None:
    """Both exports of a run, of a changed graph if wanted."""
    graph = graph_of(read_checkpoint(run.path))
    if change is not None:
        change(graph)
    write_nir(graph, run.path / "model.nir")
    write_onnx(plan_of(graph, source="test"), run.path / "model.onnx")


def _one_weight(graph: nir.NIRGraph) -> None:
    weight = graph.nodes["n04_conv"].weight.copy()
    weight[0, 0, 1, 1] *= np.float32(1.1)
    graph.nodes["n04_conv"].weight = weight


def _one_small_weight(graph: nir.NIRGraph) -> None:
    weight = graph.nodes["n10_affine"].weight.copy()
    weight[3, 12] = np.float32(weight[3, 12] + 1e-3)
    graph.nodes["n10_affine"].weight = weight


def _all_weights(graph: nir.NIRGraph) -> None:
    graph.nodes["n08_affine"].weight = graph.nodes["n08_affine"].weight * np.float32(1.1)


def _threshold(graph: nir.NIRGraph) -> None:
    threshold = graph.nodes["n05_lif"].v_threshold.copy()
    threshold.reshape(-1)[:] *= np.float32(1.05)
    graph.nodes["n05_lif"].v_threshold = threshold


def _one_threshold(graph: nir.NIRGraph) -> None:
    threshold = graph.nodes["n09_lif"].v_threshold.copy()
    threshold[6] *= np.float32(1.05)
    graph.nodes["n09_lif"].v_threshold = threshold


def _reset(graph: nir.NIRGraph) -> None:
    metadata = {**graph.nodes["n09_lif"].metadata, "reset": "zero"}
    graph.nodes["n09_lif"].metadata = metadata


WRONG = {
    "one weight × 1.1": (_one_weight, "n05_lif"),
    "one weight + 0.001": (_one_small_weight, "n11_lif"),
    "weights × 1.1": (_all_weights, "n09_lif"),
    "threshold × 1.05": (_threshold, "n05_lif"),
    "one threshold × 1.05": (_one_threshold, "n09_lif"),
    "reset to zero": (_reset, "n09_lif"),
}


@pytest.mark.parametrize("name", ["event_run", "image_run"])
def test_an_honest_export_passes_in_every_back_end(
    name: str, request: pytest.FixtureRequest, copied: Copy
) -> None:
    run = copied(request.getfixturevalue(name))
    _export(run)
    backends = ["torch", "onnx", "reference", "engine", "norse"]
    report = verify(run.path, data=run.data, backends=backends)
    assert report["passed"]
    assert report["samples"] == 24
    files = [Path(model["file"]).name for model in report["models"]]
    assert files == ["model.nir", "model.onnx", "model.step.onnx"]
    seen = set()
    for model in report["models"]:
        assert model["against"] == "trained"
        assert model["first_difference"] is None
        assert model["explained_ties"] == 0
        assert set(model["accuracy"]) == {"trained", *model["spike_mismatch"]}
        assert set(model["spike_mismatch"].values()) == {0.0}
        assert set(model["argmax_agreement"].values()) == {1.0}
        seen |= set(model["spike_mismatch"])
    assert seen == set(backends)
    json.dumps(report)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_artifact_fails_by_name(event_run: Any, copied: Copy, what: str) -> None:
    change, layer = WRONG[what]
    run = copied(event_run)
    _export(run, change)
    report = verify(run.path, data=run.data, backends=["torch", "reference", "onnx"])
    assert not report["passed"]
    assert len(report["models"]) == 3
    for model in report["models"]:
        assert not model["passed"]
        first = model["first_difference"]
        assert first["layer"] == layer
        assert first["sample"] in read_evaluation(run.path).ids
        assert 0 <= first["step"] < 5
        assert not first["tie"]
        json.dumps(first)
        assert any(
            f"sample {first['sample']}, layer {layer}, step {first['step']}" in reason
            for reason in model["reasons"]
        )


@pytest.mark.parametrize("what", ["weights × 1.1", "threshold × 1.05", "reset to zero"])
def test_behaviour_alone_shows_a_wrong_artifact(
    event_run: Any, copied: Copy, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpsl_export.verify.judge.artifact_differences", lambda model, plan: [])
    run = copied(event_run)
    _export(run, WRONG[what][0])
    report = verify(run.path, data=run.data, backends=["reference", "onnx"])
    assert [model["passed"] for model in report["models"]] == [False, False, False]
    assert all(model["first_difference"]["layer"] == WRONG[what][1] for model in report["models"])


def test_a_wrong_bit_that_no_sample_shows_fails(event_run: Any, copied: Copy) -> None:
    def nudge(graph: nir.NIRGraph) -> None:
        bias = graph.nodes["n01_conv"].bias.copy()
        bias[2] = np.nextafter(bias[2], np.float32(9))
        graph.nodes["n01_conv"].bias = bias

    run = copied(event_run)
    _export(run, nudge)
    report = verify(run.path, data=run.data, backends=["reference", "onnx"])
    assert not report["passed"]
    for model in report["models"]:
        assert "n01_conv" in model["reasons"][0]
        assert model["first_difference"]["layer"].startswith("n01_conv")


def test_metadata_that_was_changed_fails(event_run: Any, copied: Copy) -> None:
    def slower(graph: nir.NIRGraph) -> None:
        graph.metadata = {**graph.metadata, "step_us": 70_000}

    run = copied(event_run)
    _export(run, slower)
    report = verify(run.path, data=run.data, backends=["reference", "onnx"])
    assert not report["passed"]
    assert all("step_us is 70000" in model["reasons"][0] for model in report["models"])


def _with_tie(run: Any, rerecord: Callable[[Any], None]) -> tuple[int, int]:
    """Moves the threshold of the last layer onto a membrane potential of the first step, which
    does not depend on it, and writes the record anew; returns (sample, neuron) of the tie."""
    checkpoint = read_checkpoint(run.path)
    _export(run)
    split = datasets.open_split("nmnist8", datasets.find("nmnist8", run.data), "test")
    from mpsl_runtime.model.graph import load_plan
    from mpsl_runtime.run.reference import Reference

    reference = Reference(load_plan(run.path / "model.nir"))
    for sample in range(1, len(split)):
        membranes = reference.record_membrane(split.input(sample, checkpoint.model))[-1][0]
        usable = np.flatnonzero(membranes > 0.2)
        if usable.size:
            neuron = int(usable[0])
            run.description["layers"][-1]["threshold"] = float(membranes[neuron]) * (1 + 1e-6)
            run.write(run.path)
            rerecord(run)
            return sample, neuron
    raise AssertionError("no membrane potential is high enough")


def _flip(run: Any, sample: int, step: int, neuron: int) -> None:
    """Flips one output spike of the record, in its probes too."""
    path = run.path / "evaluation.npz"
    with np.load(path) as archive:
        arrays = dict(archive.items())
    arrays["spikes"] = arrays["spikes"].copy()
    arrays["spikes"][sample, step, neuron] ^= 1
    name = str(arrays["ids"][sample])
    probes = [str(probe) for probe in arrays["probe_ids"]]
    if name in probes:
        arrays["probe_L03"] = arrays["probe_L03"].copy()
        arrays["probe_L03"][probes.index(name), step, 0] ^= np.uint8(128 >> neuron)
    np.savez(path, **arrays)


def _not_probed(run: Any) -> int:
    evaluation = read_evaluation(run.path)
    return next(i for i, name in enumerate(evaluation.ids) if name not in evaluation.probes)


def test_a_tie_is_explained_and_passes(
    event_run: Any, copied: Copy, rerecord: Callable[[Any], None]
) -> None:
    run = copied(event_run)
    sample, neuron = _with_tie(run, rerecord)
    _flip(run, sample, 0, neuron)
    _export(run)
    report = verify(run.path, data=run.data, backends=["reference", "torch", "onnx"])
    assert report["passed"], report
    assert [model["explained_ties"] for model in report["models"]] == [2, 1, 1]
    for model in report["models"]:
        first = model["first_difference"]
        assert first["tie"]
        assert first["sample"] == read_evaluation(run.path).ids[sample]
        assert abs(first["membrane"] - first["threshold"]) <= TIE_TOLERANCE
        assert set(model["spike_mismatch"].values()) == {1 / (24 * 5 * 8)}


def test_a_spike_that_is_no_tie_fails(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    _export(run)
    sample = _not_probed(run)
    _flip(run, sample, 0, 3)
    report = verify(run.path, data=run.data, backends=["reference"])
    (model,) = report["models"]
    assert not model["passed"]
    first = model["first_difference"]
    assert (first["layer"], first["step"], first["neuron"]) == ("n11_lif", 0, 3)
    assert first["sample"] == read_evaluation(run.path).ids[sample]


def test_a_probe_that_is_no_tie_fails(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    _export(run)
    evaluation = read_evaluation(run.path)
    sample = evaluation.ids.index(next(iter(evaluation.probes)))
    _flip(run, sample, 1, 2)
    (model,) = verify(run.path, data=run.data, backends=["torch"])["models"]
    assert not model["passed"]
    assert model["first_difference"]["step"] == 1
    assert model["first_difference"]["neuron"] == 2


def test_ties_in_many_samples_are_too_many(
    event_run: Any, copied: Copy, rerecord: Callable[[Any], None]
) -> None:
    run = copied(event_run)
    sample, neuron = _with_tie(run, rerecord)
    _flip(run, sample, 0, neuron)
    _flip(run, _not_probed(run) + 1, 2, neuron)
    _export(run)
    (model,) = verify(run.path, data=run.data, backends=["reference"])["models"]
    assert not model["passed"]
    assert any("of the output spikes differ" in reason for reason in model["reasons"])


def test_the_first_difference_goes_by_step_and_then_by_layer() -> None:
    quiet = [Recording(name, np.zeros((4, 3), bool)) for name in ("a", "b")]
    assert first_difference(quiet, quiet) is None
    late = [Recording(r.layer, r.spikes.copy()) for r in quiet]
    late[0].spikes[3, 1] = True
    late[1].spikes[2, [0, 2]] = True
    step, layer, neurons = first_difference(quiet, late) or (0, 0, np.zeros(0))
    assert (step, layer, list(neurons)) == (2, 1, [0, 2])
    late[0].spikes[2, 0] = True
    step, layer, neurons = first_difference(quiet, late) or (0, 0, np.zeros(0))
    assert (step, layer, list(neurons)) == (2, 0, [0])


def test_a_limit_takes_the_first_samples_and_a_dump_writes_them(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    _export(run)
    dump = run.path / "dump.npz"
    report = verify(run.path, data=run.data, limit=5, backends=["reference"], dump=dump)
    assert report["samples"] == 5
    with np.load(dump) as archive:
        assert archive["input"].shape == (5, 5, 2, 17, 17)
        assert archive["spikes"].shape == (5, 5, 8)
        assert archive["input"].dtype == archive["spikes"].dtype == np.float32
        outcome = open_backend("reference", run.path / "model.nir").run(archive["input"])
        assert np.array_equal(outcome.spikes, archive["spikes"])
        assert archive["input"].any()


def test_a_run_without_an_export_says_what_to_do(event_run: Any) -> None:
    with pytest.raises(UsageError, match="run `mpsl export` first"):
        verify(event_run.path, data=event_run.data)


def test_another_test_set_is_refused(event_run: Any, copied: Copy, tmp_path: Path) -> None:
    run = copied(event_run)
    _export(run)
    import shutil

    data = tmp_path / "other"
    shutil.copytree(run.data, data)
    recording = data / "Test" / "3" / "00001.bin"
    recording.write_bytes(recording.read_bytes()[:-5])
    with pytest.raises(RunError, match="another test set"):
        verify(run.path, data=data, backends=["reference"])
    with pytest.raises(DataError):
        verify(run.path, data=tmp_path / "absent", backends=["reference"])


def test_a_record_of_another_recipe_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    _export(run)
    run.description["model"]["recipe_hash"] = "cd" * 32
    run.write(run.path)
    with pytest.raises(RunError, match="recipe_hash"):
        verify(run.path, data=run.data, backends=["reference"])


def test_a_model_of_another_shape_is_refused(event_run: Any, image_run: Any, copied: Copy) -> None:
    run = copied(image_run)
    _export(run)
    for file, backend in (("model.nir", "reference"), ("model.step.onnx", "onnx")):
        with pytest.raises(RunError, match="does not fit the run"):
            verify(
                event_run.path, models=[run.path / file], data=event_run.data, backends=[backend]
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"backends": ["lava"]}, "unknown back end"),
        ({"models": [Path("absent.nir")]}, "no such model"),
        ({"models": [Path(__file__)]}, "no back end reads this model"),
        ({"models": [Path("RUN/model.nir")], "backends": ["onnx"]}, "no model for back end onnx"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    event_run: Any, copied: Copy, options: dict[str, Any], message: str
) -> None:
    run = copied(event_run)
    _export(run)
    models = [Path(str(path).replace("RUN", str(run.path))) for path in options.get("models", [])]
    options = {**options, "models": models}
    with pytest.raises(UsageError, match=message):
        verify(run.path, data=run.data, **options)


def test_a_back_end_without_its_file_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    write_nir(graph_of(read_checkpoint(run.path)), run.path / "model.nir")
    with pytest.raises(UsageError, match="no model for back end onnx"):
        verify(run.path, data=run.data, backends=["onnx"])
