"""Every artefact says where it comes from, and what verify found; verify holds that to the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import pytest

from mpsl_export.export import export
from mpsl_export.verify.verify import verify
from mpsl_export.write.onnx_file import read_model
from mpsl_runtime import __version__
from mpsl_runtime.model.graph import load_graph
from mpsl_runtime.model.seal import sealed, sealed_bytes
from mpsl_runtime.run_folder import RunFolder

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(event_run: Any, copied: Copy) -> Any:
    """A run with both float32 exports."""
    own = copied(event_run)
    for kind in ("nir", "onnx"):
        export(own.path, kind)
    return own


def _shown(mpsl: Command, path: Path) -> dict[str, Any]:
    code, out, err = mpsl("inspect", path, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_file_says_recipe_data_version_and_merge(run: Any, mpsl: Command) -> None:
    for name in ("model.nir", "model.onnx", "model.step.onnx"):
        described = _shown(mpsl, run.path / name)
        said = described["provenance"]
        assert said["written_by"] == f"mpsl {__version__}"
        assert said["recipe_sha256"] == run.description["model"]["recipe_hash"]
        assert len(said["data_sha256"]) == 64
        report = said["merge_report"]
        assert report["parameters"] == {"banks": 14_912, "merged": 5_056}
        assert [layer["batchnorm"] for layer in report["layers"].values()] == [
            False, True, False, False,
        ]  # fmt: skip
        assert report["layers"]["L03"]["mechanisms"] == ["stbp", "hebbian"]
        assert described["seal"] == "whole"
        assert "verified" not in said
    code, out, _ = mpsl("inspect", run.path / "model.nir")
    assert code == 0
    for word in ("provenance", "written_by", "merge_report", "probe", "seal"):
        assert word in out


def test_verify_writes_its_result_and_the_file_stays_proven(run: Any, mpsl: Command) -> None:
    files = [run.path / name for name in ("model.nir", "model.onnx", "model.step.onnx")]
    assert mpsl("verify", run.path, "--data", run.data, "--backend", "engine")[0] == 0
    found = _shown(mpsl, files[0])["provenance"]["verified"]
    assert list(found["programs"]) == ["engine"]
    assert "verified" not in _shown(mpsl, files[1])["provenance"]
    assert mpsl("verify", run.path, "--data", run.data)[0] == 0
    for file, programs in zip(
        files, (["engine", "reference", "torch"], ["onnx"], ["onnx"]), strict=True
    ):
        found = _shown(mpsl, file)["provenance"]["verified"]
        assert sorted(found["programs"]) == programs
        assert (found["passed"], found["samples"], found["against"]) == (True, 24, "trained")
        assert found["data_sha256"] == _shown(mpsl, file)["provenance"]["data_sha256"]
    assert mpsl("verify", *files)[0] == 0
    before = [file.read_bytes() for file in files]
    assert mpsl("verify", run.path, "--data", run.data)[0] == 0
    assert [file.read_bytes() for file in files] == before


def test_a_file_whose_arrays_are_compressed_otherwise_gets_its_result_too(
    run: Any, mpsl: Command
) -> None:
    """As an older version of ours would have written it."""
    path = run.path / "model.nir"
    graph = load_graph(path)
    graph.metadata = {key: v for key, v in graph.metadata.items() if key != "verified"}
    nir.write(path, sealed(graph))
    assert path.read_bytes() != sealed_bytes(graph)
    done = mpsl("verify", run.path, "--data", run.data, "--backend", "engine")
    assert done[0] == 0, done
    assert _shown(mpsl, path)["provenance"]["verified"]["passed"]


@pytest.mark.parametrize("option", [("--limit", "4"), ("--no-stamp",)])
def test_files_stay_as_they_are_where_it_is_asked_or_samples_are_few(
    run: Any, mpsl: Command, option: tuple[str, ...]
) -> None:
    before = (run.path / "model.nir").read_bytes()
    assert mpsl("verify", run.path, "--data", run.data, *option)[0] == 0
    assert (run.path / "model.nir").read_bytes() == before


def test_provenance_that_is_not_that_of_the_run_fails(run: Any) -> None:
    path = run.path / "model.nir"
    for key, value in (("data_sha256", "0" * 64), ("merge_report", "{}")):
        graph = load_graph(path)
        graph.metadata = {**graph.metadata, key: value}
        changed = run.path / "changed.nir"
        changed.write_bytes(sealed_bytes(graph))
        report = verify(run.path, models=[changed], data=run.data, backends=["engine"])
        assert not report["passed"]
        assert f"metadata {key} is" in report["models"][0]["reasons"][0]


def test_a_model_made_of_a_model_says_so(run: Any, mpsl: Command, tmp_path: Path) -> None:
    from hashlib import sha256

    verify(run.path, data=run.data, backends=["engine"], stamp=True)
    source = run.path / "model.nir"
    line = ("export", source, "--weights", "int8", "--calibrate", run.data / "Train")
    for kind in ("nir", "onnx"):
        out = tmp_path / f"small.{kind}"
        assert mpsl(*line, "--format", kind, "--samples", 3, "--out", out)[0] == 0
        said = _shown(mpsl, out)["provenance"]
        assert said["exported_from"] == sha256(source.read_bytes()).hexdigest()
        assert said["calibrated_on"] == "3 samples of Train, seed 0"
        assert said["data_sha256"] == _shown(mpsl, source)["provenance"]["data_sha256"]
        assert "verified" not in said


def test_int8_files_of_a_run_are_stamped_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpsl_export.verify import judge_int8

    monkeypatch.setattr(judge_int8, "ACCURACY_LOSS", 1.0)
    for kind in ("nir", "onnx"):
        export(run.path, kind, weights="int8", data=run.data, samples=8)
    report = verify(run.path, data=run.data, stamp=True)
    assert report["passed"], report
    for path in (RunFolder(run.path).export(".nir", int8=True),):
        said = load_graph(path).metadata
        assert json.loads(said["verified"])["against"] == "reference"
        assert said["calibrated_on"] == "8 samples of training part of nmnist8, seed 0"
    props = {e.key: e.value for e in read_model(run.path / "model.int8.onnx").metadata_props}
    assert json.loads(props["verified"])["passed"]
    assert verify(run.path, data=run.data, stamp=True)["passed"]


def test_a_report_of_a_stranger_is_text(run: Any, mpsl: Command) -> None:
    graph = load_graph(run.path / "model.nir")
    for text in ("[" * 2000, '{"a":' * 50 + "1" + "}" * 50, "no json"):
        graph.metadata = {**graph.metadata, "verified": text}
        (run.path / "odd.nir").write_bytes(sealed_bytes(graph))
        assert _shown(mpsl, run.path / "odd.nir")["provenance"]["verified"] == text
