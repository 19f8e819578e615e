"""`mpsl verify` passes what is right, and fails what is wrong by naming where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
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
    backends = ["torch", "onnx", "reference", "engine"]
    backends += ["norse", "sinabs", "snntorch", "spikingjelly"]
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
        if model["file"].endswith(".onnx") and what in ("reset to zero", "one threshold × 1.05"):
            # The file has other operations, or constants of another shape: it is not run.
            assert model["spike_mismatch"] == {}
            assert first["sample"] is None
            continue
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
    monkeypatch.setattr(
        "mpsl_export.verify.exported_file.ExportedFile.alterations", lambda file, network: []
    )
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


def test_a_dump_writes_the_samples_that_a_limit_takes(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    _export(run)
    dump = run.path / "dump.npz"
    report = verify(run.path, data=run.data, limit=5, backends=["reference"], dump=dump)
    assert report["samples"] == 5
    with np.load(dump) as archive:
        assert archive["input"].shape == (5, 5, 2, 17, 17)
        assert archive["spikes"].shape == (5, 5, 8)
        assert archive["input"].dtype == archive["spikes"].dtype == np.float32
        outcome = ExportedFile.at(run.path / "model.nir").open("reference").run(archive["input"])
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
