"""Reading a run folder: what is right is read as it is, what is wrong is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_runtime.errors import RunError

Copy = Callable[[Any], Any]


def test_banks_are_read_as_they_were_written(event_run: Any) -> None:
    checkpoint = read_checkpoint(event_run.path)
    assert [layer.name for layer in checkpoint.layers] == ["L00", "L01", "L02", "L03"]
    for layer in checkpoint.layers:
        for k, bank in enumerate(layer.banks):
            assert np.array_equal(bank, event_run.tensors[f"{layer.name}.W{k + 1}"])
    assert len(checkpoint.layers[3].banks) == 2
    assert checkpoint.layers[2].coefficients.shape == (3, 20)
    assert checkpoint.layers[1].norm is not None
    assert checkpoint.model.steps == 5


def test_banks_whose_metadata_is_of_version_1_are_read(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    model = run.description["model"]
    model["dt"], model["mpsl"] = model.pop("dt_s"), 1
    run.write(run.path)
    assert read_checkpoint(run.path).model == read_checkpoint(event_run.path).model


def test_the_record_is_read_as_it_was_written(event_run: Any) -> None:
    evaluation = read_evaluation(event_run.path)
    assert evaluation.spikes.shape == (24, 5, 8)
    assert evaluation.record["dataset"] == "nmnist8"
    assert len(evaluation.probes) == 8
    sample, layers = next(iter(evaluation.probes.items()))
    position = evaluation.ids.index(sample)
    assert np.array_equal(layers[-1][:, :8], evaluation.spikes[position].astype(bool))
    assert evaluation.spikes.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bank_that_is_not_finite_is_refused_by_name(
    event_run: Any, copied: Copy, value: float
) -> None:
    run = copied(event_run)
    run.tensors["L01.W2"][3, 2, 1, 0] = value
    run.write(run.path)
    with pytest.raises(RunError, match=r"not finite.*\[3, 2, 1, 0\].*L01\.W2"):
        read_checkpoint(run.path)


def test_two_banks_with_different_shapes_are_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    run.tensors["L00.W2"] = run.tensors["L00.W2"][:4]
    run.write(run.path)
    with pytest.raises(RunError, match=r"wrong shape; got \[4, 2, 3, 3\]; expected \[8, 2, 3, 3\]"):
        read_checkpoint(run.path)


def test_a_missing_bank_is_named(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    del run.tensors["L02.W3"]
    run.write(run.path)
    with pytest.raises(RunError, match=r"no 'L02\.W3'"):
        read_checkpoint(run.path)


def test_a_bank_in_double_precision_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    run.tensors["L00.W1"] = run.tensors["L00.W1"].astype(np.float64)
    run.write(run.path)
    with pytest.raises(RunError, match="float64; expected float32"):
        read_checkpoint(run.path)


def test_a_negative_variance_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    run.tensors["L01.bn.var"][0] = -1
    run.write(run.path)
    with pytest.raises(RunError, match="variance is negative"):
        read_checkpoint(run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"input_shape": [2, 17]},
        {"layers": []},
        {"layers": [{"name": "L00"}]},
        {"model": {"mpsl": 1}},
        {"network": None, "layers": "none"},
    ],
)
def test_a_description_that_is_wrong_is_refused(
    event_run: Any, copied: Copy, change: dict[str, Any]
) -> None:
    run = copied(event_run)
    run.description.update(change)
    run.write(run.path)
    with pytest.raises(RunError):
        read_checkpoint(run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"decay": 1.01},
        {"decay": 1 - 1e-12},  # its tau is not finite in float32
        {"threshold": 0.0},
        {"reset": "soft"},
        {"kind": "rnn"},
        {"pool_before": 0},
    ],
)
def test_a_layer_that_cannot_be_meant_is_refused(
    event_run: Any, copied: Copy, change: dict[str, Any]
) -> None:
    run = copied(event_run)
    run.description["layers"][0].update(change)
    run.write(run.path)
    with pytest.raises(RunError):
        read_checkpoint(run.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\xff" * 64,
        b'\x16\x00\x00\x00\x00\x00\x00\x00{"__metadata__": null}\n\n',
        b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!",
    ],
)
def test_a_file_that_holds_no_banks_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "banks.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="banks cannot be read"):
        read_checkpoint(tmp_path)


def test_truncated_banks_are_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    file = run.path / "banks.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match="banks cannot be read"):
        read_checkpoint(run.path)


def test_banks_of_another_program_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "banks.safetensors")
    with pytest.raises(RunError, match="not written by `mpsl train`"):
        read_checkpoint(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no banks\.safetensors"):
        read_checkpoint(tmp_path)
    with pytest.raises(RunError, match="no such run folder"):
        read_checkpoint(tmp_path / "absent")
    with pytest.raises(RunError, match=r"no evaluation\.npz"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spikes": None}, "incomplete"),
        ({"labels": np.zeros(3, np.int64)}, "do not fit"),
        ({"spikes": np.zeros((24, 5, 8))}, "do not fit"),
        ({"labels": np.array(["a"] * 24)}, "do not fit"),
        ({"record": "not json"}, "cannot be read"),
        ({"record": json.dumps([1])}, "not a table"),
        ({"probe_L00": np.zeros((2, 5, 3), np.uint8)}, "probe_L00"),
    ],
)
def test_a_record_whose_parts_do_not_fit_is_refused(
    event_run: Any, copied: Copy, changes: dict[str, Any], message: str
) -> None:
    run = copied(event_run)
    run.forge(**changes)
    with pytest.raises(RunError, match=message):
        read_evaluation(run.path)


def test_a_record_that_is_no_archive_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    (run.path / "evaluation.npz").write_text("hello")
    with pytest.raises(RunError, match="record cannot be read"):
        read_evaluation(run.path)
