"""A run that `mpsl train` made itself, through the disk into every format and back end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.merge import parameter_counts
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.model.graph import load_plan

RECIPE = """
name = "tiny"
network = "{network}"
mechanisms = ["stbp", "hebbian", "sbp"]
[data]
dataset = "nmnist8"
steps = 4
step_us = 75000
downsample = 2
validation = 0.0
[neuron]
reset = "{reset}"
[rules]
coefficient_scope = "{scope}"
plastic_layers = "{plastic}"
[training]
epochs = 2
batch_size = 6
loss = "{loss}"
"""

CASES = {
    "three banks everywhere": {},
    "batch normalisation and λ for channels": {
        "network": "6C3-BN-AP2-8C3S2-BN-16FC-8", "scope": "channel",
    },
    "banks in fc layers only, reset to zero, membrane": {
        "plastic": "fc", "reset": "zero", "loss": "ce-membrane",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_trained_network_is_exported_without_loss(
    event_run: Any, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpsl_train import recipe as recipes
    from mpsl_train.training.training import train

    monkeypatch.setenv("MPSL_CACHE", str(tmp_path / "cache"))
    settings = {
        "network": "6C3-AP2-8C3-AP2-16FC-8", "scope": "layer", "plastic": "all",
        "reset": "subtract", "loss": "mse", **CASES[case],
    }  # fmt: skip
    (tmp_path / "recipe.toml").write_text(RECIPE.format(**settings))
    data = tmp_path / "data"
    shutil.copytree(event_run.data, data)
    run = tmp_path / "run"
    train(recipes.load(tmp_path / "recipe.toml"), run, data=data, device="cpu")

    checkpoint, evaluation = read_checkpoint(run), read_evaluation(run)
    write_nir(graph_of(checkpoint), run / "model.nir")
    write_onnx(load_plan(run / "model.nir"), run / "model.onnx")
    backends = ["torch", "onnx", "reference", "engine", "norse"]
    report = verify(run, data=data, backends=backends)
    assert report["passed"], report
    assert report["samples"] == len(evaluation.ids) == 24
    assert {name for model in report["models"] for name in model["spike_mismatch"]} == set(backends)
    assert any(np.any(layer.banks[1]) for layer in checkpoint.layers if len(layer.banks) > 1)
    # Hidden layers and output are neither silent nor saturated.
    for index in range(len(checkpoint.layers)):
        rate = np.mean([layers[index].mean() for layers in evaluation.probes.values()])
        assert 0 < rate < 1
    assert 0 < evaluation.spikes.mean() < 1
    counts = parameter_counts(checkpoint)
    assert counts.merged < counts.banks
    trained = json.loads((run / "report.json").read_text())["parameters"]
    assert (trained["banks"], trained["merged"]) == (counts.banks, counts.merged)
