"""An export format is one file: the example of CONTRIBUTING is built, exported and verified."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.export import export
from mpsl_export.verify.exported_file import backend_names
from mpsl_export.write import format as registry
from mpsl_export.write.format import ExportFormat, find_format, format_names, format_of, formats
from mpsl_runtime.errors import UsageError

from .fake_runs import FakeRun, draw_tensors, layer, model_metadata

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
Copy = Callable[[Any], Any]


@pytest.fixture
def section() -> str:
    """What CONTRIBUTING says of an export format."""
    if not GUIDE.is_file():
        pytest.skip("not in a checkout")
    return GUIDE.read_text("utf-8").split("\n## An export format\n")[1].split("\n## ")[0]


@pytest.fixture
def plugin(section: str, tmp_path: Path) -> Path:
    """A folder that holds the example as `pip install` would leave it."""
    folder = tmp_path / "site"
    (folder / "dense_format-1.0.dist-info").mkdir(parents=True)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (folder / "dense_format.py").write_text(code)
    (entry,) = re.findall(r'^dense = "(.*)"$', section, re.MULTILINE)
    about = folder / "dense_format-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dense-format\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[mpsl.formats]\ndense = {entry}\n")
    return folder


@pytest.fixture
def dense_run(event_run: Any, tmp_path: Path) -> FakeRun:
    """A run of fully connected layers alone."""
    layers = [
        layer("L00", "fc", [20, 578], [20], flatten_before=True),
        layer("L01", "fc", [8, 20], [8]),
    ]
    description = {
        "format": 1,
        "network": "20FC-8",
        "input_shape": [2, 17, 17],
        "model": model_metadata(network="20FC-8"),
        "layers": layers,
    }
    run = FakeRun(tmp_path / "run", event_run.data, draw_tensors(layers, seed=4), description)
    run.write(run.path)
    run.record()
    return run


def _mpsl(plugin: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(plugin)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_worked_example_is_exported_and_verified(plugin: Path, dense_run: FakeRun) -> None:
    run = dense_run.path
    done = _mpsl(plugin, "export", run, "--format", "dense")
    assert done.returncode == 0, done.stderr
    assert "model.dense" in done.stdout
    done = _mpsl(plugin, "verify", run, "--data", dense_run.data, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert model["spike_mismatch"] == {"dense-numpy": 0.0}
    assert model["passed"]
    # A wrong byte fails, and the file is not run.
    path = run / "model.dense"
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    done = _mpsl(plugin, "verify", run, "--data", dense_run.data, "--json")
    assert done.returncode == 1
    (model,) = json.loads(done.stdout)["models"]
    assert "differs from byte" in model["reasons"][0]
    assert model["spike_mismatch"] == {}


def test_the_worked_example_refuses_what_it_cannot_hold(
    plugin: Path, event_run: Any, copied: Copy, dense_run: FakeRun
) -> None:
    run = copied(event_run)
    done = _mpsl(plugin, "export", run.path, "--format", "dense")
    assert done.returncode == 2
    assert "node has no .dense form; got Convolution" in done.stderr
    done = _mpsl(plugin, "export", run.path, "--format", "dense", "--weights", "int8")
    assert done.returncode == 2
    assert "does not hold these weights; got int8; expected float32" in done.stderr
    assert not list(run.path.glob("model*"))


def test_the_formats_of_mpsl_are_found_by_name_and_by_suffix() -> None:
    assert format_names()[:3] == ["c", "nir", "onnx"]
    for name, found in formats().items():
        assert found.name == name
        assert format_of(Path(f"a.b{found.suffix}")) is found
        assert {"float32", "int8"} >= set(found.weights)
        assert found.backends
    assert format_of(Path("model.int8.json")) is None
    assert set(backend_names()) >= {"c", "torch", "onnx", "reference", "engine", "norse"}
    with pytest.raises(UsageError, match="no such export format; got pdf; expected c or nir"):
        find_format("pdf")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("absent_module:FORMAT", "cannot be loaded"),
        ("json:dumps", "no export format of its name"),
        ("mpsl_export.write.to_nir:FORMAT", "no export format of its name"),
    ],
)
def test_an_installed_format_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    entries = [EntryPoint("mine", value, "mpsl.formats")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert format_names()[-1] == "mine"
    with pytest.raises(UsageError, match=words):
        find_format("mine")


def test_an_installed_format_takes_no_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("nir", "json:dumps", "mpsl.formats")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert find_format("nir").suffix == ".nir"
    assert format_names().count("nir") == 1


def test_all_files_of_an_export_appear_in_one_step(
    event_run: Any, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)
    written = export(run.path, "onnx", weights="int8", data=run.data, samples=4).written
    names = ["model.int8.onnx", "model.int8.step.onnx", "model.int8.json"]
    assert [path.name for path in written] == names
    before = {path: path.read_bytes() for path in written}
    run.tensors["L00.W1"] *= np.float32(1.25)
    run.write(run.path)
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target).name == "model.int8.json":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(Exception, match="No space left"):
            export(run.path, "onnx", weights="int8", data=run.data, samples=4)
    assert {path: path.read_bytes() for path in written} == before
    export(run.path, "onnx", weights="int8", data=run.data, samples=4)
    assert all(path.read_bytes() != before[path] for path in written)


def test_a_format_that_names_a_file_elsewhere_is_refused(
    event_run: Any, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)

    def files(self: ExportFormat, network: Any, name: str) -> dict[str, bytes]:
        return {name: b"", "../elsewhere": b""}

    monkeypatch.setattr(type(find_format("nir")), "files", files)
    with pytest.raises(Exception, match="names a file elsewhere"):
        export(run.path, "nir")
    assert not (run.path.parent / "elsewhere").exists()
