"""Colour images, normalised per channel, the whole way: training, every format, int8, proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan

RECIPE = """
name = "colour"
network = "6C3S2-8C3-AP2-16FC-10"
[data]
dataset = "cifar10"
steps = 3
validation = 0.2
image_mean = [0.4914, 0.4822, 0.4465]
image_std = [0.2470, 0.2435, 0.2616]
[rules]
tau_w_steps = 200.0
[training]
epochs = 2
batch_size = 10
[augmentation]
crop = 4
flip = true
"""


def write_batches(root: Path) -> None:
    """A hundred training and twenty test images; a class has its own colour, under noise."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (10, 3, 1, 1))
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    root.mkdir()
    for name in names:
        labels = np.arange(20) % 10
        pixels = np.clip(colours[labels] + random.normal(0, 40, (20, 3, 32, 32)), 0, 255)
        records = np.concatenate([labels[:, None], pixels.reshape(20, -1)], axis=1)
        (root / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())


def test_colour_images_are_trained_exported_and_verified_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpsl_train import recipe as recipes
    from mpsl_train.training.training import train

    monkeypatch.setenv("MPSL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    data, run = tmp_path / "cifar10", tmp_path / "run"
    write_batches(data)
    train(recipes.load(tmp_path / "recipe.toml"), run, data=data, device="cpu")

    graph = graph_of(read_checkpoint(run))
    write_nir(graph, run / "model.nir")
    plan = load_plan(run / "model.nir")
    write_onnx(plan, run / "model.onnx")
    metadata = plan.metadata
    assert metadata is not None
    assert plan.input_shape == (3, 32, 32)
    assert metadata.image_mean == "0.4914,0.4822,0.4465"
    assert metadata.image_std == "0.247,0.2435,0.2616"
    assert metadata.input_grid == 1 / 64
    # The model meets what the recipe says, from the file's own metadata.
    split = datasets.open_split("cifar10", data, "test")
    current = split.input(4, metadata)
    assert current.shape == (3, 3, 32, 32)
    for channel, (mean, std) in enumerate(((0.4914, 0.247), (0.4822, 0.2435), (0.4465, 0.2616))):
        pixel = int(split.image(4)[channel, 5, 6])
        expected = round((pixel / 255 - mean) / std * 64) / 64
        assert current[1, channel, 5, 6] == np.float32(expected)
    assert current.min() < 0 < current.max()
    backends = ["torch", "onnx", "reference", "engine", "norse"]
    report = verify(run, data=data, backends=backends)
    assert report["passed"], report
    assert report["samples"] == 20
    assert {name for model in report["models"] for name in model["spike_mismatch"]} == set(backends)

    # On the 1/64 grid sums are exact, so an int8 model gives the same bits in every program.
    int8 = to_int8(run, read_checkpoint(run), data=data, samples=20, seed=0)
    assert int8.plan.metadata is not None
    assert int8.plan.metadata.input_max == 136  # white in green: (1 − .4822)/.2435·64
    write_nir(int8.graph, run / "model.int8.nir")
    write_onnx(int8.plan, run / "model.int8.onnx")
    report = verify(run, data=data, backends=backends)
    models = {Path(model["file"]).name: model for model in report["models"]}
    for name in ("model.int8.nir", "model.int8.onnx"):
        assert models[name]["against"] == "reference"
        assert len(models[name]["spike_mismatch"]) >= 2
        assert set(models[name]["spike_mismatch"].values()) == {0.0}
