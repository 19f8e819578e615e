"""A run folder: each file has one name, and a new training leaves nothing of the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpsl_runtime.errors import RunError
from mpsl_runtime.run_folder import PARTS, RunFolder


def test_every_part_is_a_path_in_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.banks == tmp_path / "banks.safetensors"
    assert RunFolder.banks.written_by == "train"
    assert len({part.name for part in PARTS}) == len(PARTS) == 11


def test_a_new_training_clears_every_part_and_every_export(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    folders = {run.tensorboard, run.plugins}
    for folder in folders:
        folder.mkdir()
    exported = [
        run.export(".nir"),
        run.export(".onnx"),
        run.export(".step.onnx"),
        run.export(".nir", int8=True),
        run.export(".json", int8=True),
        tmp_path / "model-old.nir",
    ]
    parts = [tmp_path / part.name for part in PARTS if tmp_path / part.name not in folders]
    parts += [run.tensorboard / "events.out.1", run.plugins / "plain.py"]
    for path in [*parts, *exported, tmp_path / "notes.txt"]:
        path.write_bytes(b"")
    assert run.exports() == sorted(exported)
    run.clear()
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["notes.txt", "plugins", "tensorboard"]


def test_an_int8_export_is_named_so(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).export(".json", int8=True).name == "model.int8.json"


def test_an_absent_part_and_an_absent_folder_are_told_apart(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"run has no banks\.safetensors"):
        run.require(run.banks)
    with pytest.raises(RunError, match="no such run folder"):
        RunFolder(tmp_path / "none").require(run.banks)
