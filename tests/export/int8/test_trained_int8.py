"""Runs that `mpsl train` ended on the int8 grid: the export is the network that was evaluated."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.verify.own_record import check_own_record
from mpsl_export.verify.samples import open_samples, open_test_split
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import write_nir
from mpsl_runtime.cli import build
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.plan import Convolution, Dense, Neuron
from mpsl_runtime.model.scale import Scale
from mpsl_train import recipe as recipes
from mpsl_train.training import finish, training

RECIPE = """
name = "tiny"
network = "{network}"
quantize = "int8"
[data]
dataset = "nmnist8"
steps = 4
step_us = 75000
downsample = 2
validation = 0.25
[neuron]
reset = "{reset}"
[rules]
coefficient_scope = "{scope}"
[training]
epochs = 2
batch_size = 6
loss = "{loss}"
"""

CASES = {
    "plain": {},
    "batch normalisation, pools of 3, λ for channels": {
        "network": "6C3-BN-AP3-8C3-BN-AP2-16FC-8", "scope": "channel",
    },
    "reset to zero, read out by the membrane": {"reset": "zero", "loss": "ce-membrane"},
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def trained(
    request: pytest.FixtureRequest, event_run: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Any]:
    """Run folder, data, and the network in training's memory at the end."""
    folder = tmp_path_factory.mktemp("int8")
    settings = {
        "network": "6C3-AP2-8C3-AP2-16FC-8", "scope": "layer", "reset": "subtract", "loss": "mse",
        **CASES[request.param],
    }  # fmt: skip
    (folder / "recipe.toml").write_text(RECIPE.format(**settings))
    shutil.copytree(event_run.data, folder / "data")
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_CACHE", str(folder / "cache"))
        save = finish.save_banks
        patch.setattr(finish, "save_banks", lambda path, network, *rest: (
            kept.append(network), save(path, network, *rest)))  # fmt: skip
        recipe = recipes.load(folder / "recipe.toml")
        training.train(recipe, folder / "run", data=folder / "data", device="cpu")
    return folder / "run", folder / "data", kept[0]


def test_the_exported_weights_are_those_of_training_bit_for_bit(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, network = trained
    result = to_int8(run, read_checkpoint(run), data=data, samples=4, seed=0)
    write_nir(result.graph, tmp_path / "model.int8.nir")
    plan = load_plan(tmp_path / "model.int8.nir")
    weighted = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
    neurons = [node for node in plan.nodes if isinstance(node, Neuron)]
    for layer, node, neuron in zip(network.layer_list, weighted, neurons, strict=True):
        state = layer.begin()
        with torch.no_grad():
            weight, bias = layer.synapses(state)
        assert np.array_equal(weight.numpy(), node.weight), node.name
        assert np.array_equal(bias.numpy(), node.bias), node.name
        assert set(np.unique(neuron.threshold)) == {np.float32(state.scale.stored_threshold)}
        assert node.weight_grid == state.scale.exponent
    peaks = [int(np.abs(grid.weight.astype(int)).max()) for grid in layer_grids(plan)]
    # A score's quantum is a power of two: it may be almost twice as coarse as the finest.
    assert min(peaks) >= 63, peaks
    assert result.to_mapping()["scales"] == "trained"
    # No sample decides anything but the bound on the input.
    other = to_int8(run, read_checkpoint(run), data=data, samples=8, seed=5)
    assert other.calibration.scales == result.calibration.scales


def test_verification_is_against_the_record_of_training_and_nothing_differs(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, _ = trained
    shutil.copytree(run, tmp_path / "run")
    for kind in ("nir", "onnx"):
        arguments = ["export", str(tmp_path / "run"), "--format", kind, "--data", str(data)]
        assert CliRunner().invoke(build(), arguments).exit_code == 0
    report = verify(tmp_path / "run", data=data)
    assert report["passed"], report
    names = {Path(model["file"]).name for model in report["models"]}
    assert names == {"model.int8.nir", "model.int8.onnx", "model.int8.step.onnx"}
    seen = set()
    for model in report["models"]:
        assert model["against"] == "trained"
        assert set(model["spike_mismatch"].values()) == {0.0}
        assert len(set(model["accuracy"].values())) == 1
        seen |= set(model["spike_mismatch"])
    assert seen == {"torch", "onnx", "reference", "engine"}
    with np.load(run / "evaluation.npz") as record:
        assert 0.01 < record["spikes"].mean() < 0.99


def test_the_record_of_such_a_run_is_what_its_banks_do(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, _ = trained
    checkpoint, test = read_checkpoint(run), open_test_split("nmnist8", data)
    check_own_record(checkpoint, open_samples(checkpoint, read_evaluation(run), test))
    shutil.copytree(run, tmp_path / "run")
    readout = checkpoint.model.readout
    _altered(tmp_path / "run", "counts" if readout == "count" else "spikes")
    samples = open_samples(checkpoint, read_evaluation(tmp_path / "run"), test)
    with pytest.raises(RunError, match="record is not what the banks of its run do"):
        check_own_record(checkpoint, samples)


def _altered(run: Path, change: str) -> None:
    with np.load(run / "evaluation.npz") as archive:
        arrays = {key: archive[key].copy() for key in archive.files}
    record = json.loads(str(arrays["record"]))
    if change == "weights":
        arrays["record"] = np.array(json.dumps({**record, "weights": "float32"}))
    else:
        # A record that does not contradict itself: scores and predictions follow the spike.
        ids, probes = arrays["ids"].tolist(), arrays["probe_ids"].tolist()
        place = next(i for i, name in enumerate(ids) if name not in probes)
        arrays["spikes"][place, 1, 2] ^= 1
        if change == "counts":
            arrays["scores"] = arrays["spikes"].sum(axis=1).astype(np.float32)
            arrays["predictions"] = arrays["scores"].argmax(axis=1)
    np.savez(run / "evaluation.npz", **arrays)


def test_one_spike_of_the_record_that_differs_fails(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, _ = trained
    shutil.copytree(run, tmp_path / "run")
    checkpoint = read_checkpoint(run)
    graph = to_int8(run, checkpoint, data=data, samples=4, seed=0).graph
    write_nir(graph, tmp_path / "run" / "model.int8.nir")
    readout = checkpoint.model.readout
    _altered(tmp_path / "run", "counts" if readout == "count" else "spikes")
    report = verify(tmp_path / "run", data=data, backends=["engine", "reference"])
    (model,) = report["models"]
    assert not report["passed"]
    assert all("record of training" in reason for reason in model["reasons"])
    assert model["first_difference"]["sample"] is not None
    _altered(tmp_path / "run", "weights")
    with pytest.raises(RunError, match="differ in their weights"):
        verify(tmp_path / "run", data=data)


def test_another_grid_than_that_of_training_fails(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, _ = trained
    shutil.copytree(run, tmp_path / "run")
    checkpoint = read_checkpoint(run)
    first = checkpoint.layers[0]
    assert first.scale is not None
    coarser = Scale.of(first.threshold, first.scale.threshold // 2, is_score=False)
    layers = (replace(first, scale=coarser), *checkpoint.layers[1:])
    other = to_int8(run, replace(checkpoint, layers=layers), data=data, samples=4, seed=0)
    write_nir(other.graph, tmp_path / "run" / "model.int8.nir")
    (model,) = verify(tmp_path / "run", data=data, backends=["engine"])["models"]
    assert not model["passed"]
    assert any("is not the int8 form of the banks" in reason for reason in model["reasons"])


def test_float_weights_of_such_a_run_are_refused_in_one_line(
    trained: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    run, data, _ = trained
    out = tmp_path / "model.nir"
    arguments = ["export", str(run), "--format", "nir", "--weights", "float32", "--data", str(data)]
    result = CliRunner().invoke(build(), [*arguments, "--out", str(out)])
    assert result.exit_code != 0
    assert "--weights int8" in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    "scale",
    [{"exponent": 0}, {"exponent": -6, "threshold": 0, "step": 0.1},
     {"exponent": -6, "threshold": 20, "step": float("nan")},
     {"exponent": 10**6, "threshold": 20, "step": 0.1}, 7],
)  # fmt: skip
def test_a_damaged_scale_is_refused(event_run: Any, tmp_path: Path, scale: object) -> None:
    layers = [{**entry, "scale": scale} for entry in event_run.description["layers"]]
    run = replace(event_run, description={**event_run.description, "layers": layers})
    run.write(tmp_path)
    with pytest.raises(RunError, match="no readable description"):
        read_checkpoint(tmp_path)


def test_layers_are_all_on_grids_or_none(event_run: Any, tmp_path: Path) -> None:
    layers = [dict(entry) for entry in event_run.description["layers"]]
    layers[0]["scale"] = {"exponent": -6, "threshold": 20, "step": 0.015}
    replace(event_run, description={**event_run.description, "layers": layers}).write(tmp_path)
    with pytest.raises(RunError, match="others in float"):
        read_checkpoint(tmp_path)
