"""`mpsl inspect`: the layers of a NIR file, and what is said where another package is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpsl_runtime import inspection
from mpsl_runtime.errors import DataError, MissingExtraError, ModelError
from mpsl_runtime.model.filling import Filling


def test_a_model_is_described_layer_by_layer(model_file: Path) -> None:
    description = inspection.describe(model_file)
    assert description["kind"] == "nir"
    assert description["bytes"] == model_file.stat().st_size
    assert description["parameters"] == 3 * 240 + 3
    assert (description["steps"], description["step_us"]) == (5, 1000)
    assert (description["input_shape"], description["output_shape"]) == ([2, 10, 12], [3])
    names = [layer["name"] for layer in description["layers"]]
    assert names == ["n01_flatten", "n02_fc", "n03_lif"]
    neuron = description["layers"][-1]
    assert neuron["reset"] == "subtract"
    assert neuron["decay"] == pytest.approx(0.75)
    assert neuron["threshold"] == pytest.approx(0.4)
    assert description["metadata"]["dataset"] == "nmnist"


def test_the_table_shows_what_the_mapping_holds(model_file: Path) -> None:
    text = "\n".join(inspection.lines(inspection.describe(model_file)))
    for word in ("n02_fc", "723", "subtract", "step us", "1,000", "0.75", "2x10x12"):
        assert word in text


def test_a_foreign_model_shows_its_decay_only_when_its_step_is_known(
    write_model: Callable[..., Path],
) -> None:
    path = write_model(foreign=True)
    unknown = inspection.describe(path)
    assert unknown["metadata"] == {}
    assert "decay" not in unknown["layers"][-1]
    assert unknown["layers"][-1]["reset"] is None
    assert unknown["not_said"].startswith("--from nir|snntorch|norse|spikingjelly|sinabs, --dt-s S")
    known = inspection.describe(path, filling=Filling("nir", dt_s=1e-4))
    assert "not_said" not in known
    assert known["layers"][-1]["decay"] == pytest.approx(0.75)
    assert unknown["parameters"] == known["parameters"] == 723


def test_runs_and_onnx_files_need_the_distribution_that_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "entry_points", lambda group: [])
    (tmp_path / "model.onnx").write_bytes(b"")
    for path, what in ((tmp_path, "a run folder"), (tmp_path / "model.onnx", "an ONNX file")):
        with pytest.raises(MissingExtraError, match=f"{what} is not installed here.*'mpsl'"):
            inspection.describe(path)


def test_inspectors_are_asked_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [lambda path: None, lambda path: {"kind": "run", "file": str(path)}]
    entries = [SimpleNamespace(load=lambda answer=a: answer, value="x") for a in answers]
    monkeypatch.setattr(inspection, "entry_points", lambda group: entries)
    assert inspection.describe(tmp_path)["kind"] == "run"
    monkeypatch.setattr(inspection, "entry_points", lambda group: entries[:1])
    with pytest.raises(DataError, match="nothing here that can be inspected"):
        inspection.describe(tmp_path)


def test_an_absent_file_and_a_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        inspection.describe(tmp_path / "a.nir")
    (tmp_path / "a.nir").write_text("hello")
    with pytest.raises(ModelError):
        inspection.describe(tmp_path / "a.nir")
