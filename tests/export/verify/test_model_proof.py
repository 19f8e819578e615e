"""`mpsl verify MODEL.nir`: a copied file proves itself; one changed bit of it is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import onnx
import pytest

from mpsl_export.export import export
from mpsl_export.verify.model_proof import prove_model
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_graph
from mpsl_runtime.model.seal import sealed_bytes

from ...runtime.run.branching import grown  # noqa: TID252 - tests are no package

Command = Callable[..., tuple[int, str, str]]
RUNS = ("event_run", "image_run", "if_run")


@pytest.fixture(params=RUNS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """The .nir and both .onnx files of a run."""
    run = request.getfixturevalue(request.param)
    written = [*export(run.path, "nir", out=tmp_path / "m.nir").written]
    return [*written, *export(run.path, "onnx", out=tmp_path / "m.onnx").written]


def test_a_copy_proves_itself_in_every_program(files: list[Path], mpsl: Command) -> None:
    code, out, err = mpsl("verify", *files, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["passed"]
    first, *others = report["models"]
    assert first["programs"] == dict.fromkeys(("engine", "reference", "onnx", "torch"), "equal")
    assert all(other["programs"] == {"onnx": "equal"} for other in others)
    assert all(model["silent"] == [] and model["steps"] >= 1 for model in report["models"])
    code, out, err = mpsl("verify", files[0], "--backend", "engine")
    assert (code, out) == (0, "")
    assert "passed, against its probe" in err


def test_a_copy_proves_itself_as_c_where_that_is_asked_for(
    exported: Path, mpsl: Command, tmp_path: Path
) -> None:
    code, out, err = mpsl("verify", exported, "--backend", "c", "--json")
    assert code == 0, err
    assert json.loads(out)["models"][0]["programs"] == {"c": "equal"}
    altered = Path(shutil.copy(exported, tmp_path / "copy.nir"))
    with h5py.File(altered, "a") as file:
        file["node/nodes/n01_conv/weight"][...] *= -1
    assert prove_model(altered, ("c",)).programs["c"].startswith("sha256")


def test_a_program_that_is_not_here_is_bad_input_and_no_failed_proof(
    exported: Path, mpsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    code, out, err = mpsl("verify", exported, "--backend", "c")
    assert (code, out) == (2, "")
    assert err.startswith("mpsl: no C compiler is installed here; got no-such-compiler")


@pytest.fixture(scope="module")
def exported(event_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .nir file of a run."""
    return export(event_run.path, "nir", out=tmp_path_factory.mktemp("e") / "m.nir").written[0]


def _names(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def _flip(path: Path, name: str) -> None:
    """The lowest bit of the last value of a data set; another letter of a text."""
    with h5py.File(path, "a") as file:
        value = file[name][()]
        if isinstance(value, bytes):
            del file[name]
            file.create_dataset(name, data=bytes([value[0] ^ 1]) + value[1:] if value else b"1")
            return
        array = np.array(value)
        if array.dtype == object:
            array.flat[-1] = array.flat[0]
        else:
            array.reshape(-1).view(np.uint8)[-array.itemsize] ^= 1
        file[name][...] = array


def test_one_changed_bit_of_anything_in_the_file_is_found(exported: Path, tmp_path: Path) -> None:
    names = _names(exported)
    assert len(names) > 80  # of nodes, edges and metadata
    for name in names:
        path = Path(shutil.copy(exported, tmp_path / "copy.nir"))
        _flip(path, name)
        try:
            proof = prove_model(path, ("engine",))
        except ModelError:
            continue  # no network any more, or no probe that can be
        assert not proof.passed, name
        part = name.split("/")[2] if name.startswith("node/nodes") else name.split("/")[-1]
        if not name.endswith(("seal", "seal_parts")):
            assert proof.broken == ["metadata" if "node/metadata" in name else part], name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("node/nodes/n01_conv/weight", "not as it was sealed: n01_conv"),
        ("node/nodes/n05_lif/v_threshold", "not as it was sealed: n05_lif"),
        ("node/nodes/n05_lif/metadata/threshold", "not as it was sealed: n05_lif"),
        ("node/metadata/classes", "not as it was sealed: metadata"),
    ],
)
def test_what_changed_is_named(
    exported: Path, tmp_path: Path, mpsl: Command, name: str, words: str
) -> None:
    path = Path(shutil.copy(exported, tmp_path / "copy.nir"))
    _flip(path, name)
    code, out, err = mpsl("verify", path)
    assert code == 1
    assert out == ""
    assert words in err


def test_damage_is_not_sealed_again(exported: Path, tmp_path: Path, mpsl: Command) -> None:
    path = Path(shutil.copy(exported, tmp_path / "copy.nir"))
    _flip(path, "node/nodes/n01_conv/weight")
    code, _, err = mpsl("export", path, "--format", "nir", "--out", tmp_path / "again.nir")
    assert code == 2
    assert "not as it was sealed; got changed: n01_conv" in err
    assert not (tmp_path / "again.nir").exists()


def test_a_network_that_was_changed_and_sealed_again_gives_other_spikes(
    exported: Path, tmp_path: Path, mpsl: Command
) -> None:
    graph = load_graph(exported)
    graph.nodes["n01_conv"].weight = graph.nodes["n01_conv"].weight * np.float32(1.5)
    (tmp_path / "again.nir").write_bytes(sealed_bytes(graph))
    code, out, _ = mpsl("verify", tmp_path / "again.nir", "--json")
    assert code == 1
    (model,) = json.loads(out)["models"]
    assert model["broken"] == []
    assert all("sha256" in text for text in model["programs"].values())


def test_onnx_bits_are_sealed_too(files: list[Path], mpsl: Command) -> None:
    for path in files[1:]:
        content = path.read_bytes()
        model = onnx.load(path)
        weight = next(c for c in model.graph.initializer if c.raw_data and len(c.raw_data) > 64) \
            if "step" in path.name else model.graph.initializer[0]  # fmt: skip
        weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
        onnx.save(model, path)
        code, _, err = mpsl("verify", path)
        assert code in (1, 2)
        assert "sealed" in err or "ONNX" in err
        path.write_bytes(content)
        model = onnx.load(path)
        model.metadata_props[0].value += " "
        onnx.save(model, path)
        assert mpsl("verify", path)[0] in (1, 2)


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_what_is_proven_stays_so_in_another_format(
    event_run: Any, mpsl: Command, tmp_path: Path, kind: str
) -> None:
    options = {"data": event_run.data, "samples": 4, "weights": kind}
    model = export(event_run.path, "nir", out=tmp_path / "m.nir", **options).written[0]
    export(model, "onnx")
    assert mpsl("verify", model, tmp_path / "m.onnx", tmp_path / "m.step.onnx")[0] == 0


def test_a_file_without_a_probe_is_one_line(event_run: Any, mpsl: Command, tmp_path: Path) -> None:
    from mpsl_export.checkpoint import read_checkpoint

    nir.write(tmp_path / "older.nir", graph_of(read_checkpoint(event_run.path)))
    nir.write(tmp_path / "foreign.nir", grown(4)[0])
    for name, words in (("older.nir", "no probe"), ("foreign.nir", "--dt-s"), ("absent.nir", "no")):
        code, out, err = mpsl("verify", tmp_path / name)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("probe_steps", 10**9, "out of range"),
        ("probe_window", -1, "out of range"),
        ("probe_seed", "seven", "wrong type"),
        ("probe_sha256", "zz", "cannot be read"),
    ],
)
def test_a_probe_of_a_stranger_is_bounded(
    exported: Path, tmp_path: Path, mpsl: Command, key: str, value: Any, words: str
) -> None:
    graph = load_graph(exported)
    graph.metadata = {**graph.metadata, key: value}
    (tmp_path / "odd.nir").write_bytes(sealed_bytes(graph))
    code, _, err = mpsl("verify", tmp_path / "odd.nir")
    assert code == 2
    assert words in err
