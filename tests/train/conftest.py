"""A small data set in N-MNIST's format, and a recipe that trains on it within seconds."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

RECIPE = """
name = "small"
network = "4C3S2-6C3-AP2-DP0.2-12FC-10"
[data]
dataset = "nmnist"
steps = 3
step_us = 100000
[training]
epochs = 3
batch_size = 16
learning_rate = 5e-3
[augmentation]
shift = 1
"""


def write_recording(path: Path, label: int, generator: np.random.Generator) -> None:
    """60 events around a place that belongs to the label, 5 bytes each."""
    count = 60
    t = np.sort(generator.integers(0, 300_000, count))
    x = np.clip(3 * label + generator.integers(0, 6, count), 0, 33)
    y = np.clip(30 - 3 * label + generator.integers(0, 6, count), 0, 33)
    word = (generator.integers(0, 2, count) << 23) | t
    columns = [x, y, word >> 16, (word >> 8) & 255, word & 255]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 classes, 8 training and 2 test recordings each."""
    root = tmp_path_factory.mktemp("nmnist")
    generator = np.random.default_rng(0)
    for split, count in (("Train", 8), ("Test", 2)):
        for label in range(10):
            for index in range(count):
                write_recording(root / split / str(label) / f"{index:05d}.bin", label, generator)
    return root


def write_images(root: Path, part: str, labels: NDArray[np.int64], seed: int) -> None:
    """A bright block in a place that belongs to the label, on a little noise."""
    images = np.random.default_rng(seed).integers(0, 20, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[row * 9 : row * 9 + 9, column * 7 : column * 7 + 7] = 250
    header = struct.pack(">4i", 2051, len(labels), 28, 28)
    (root / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">2i", 2049, len(labels))
    (root / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 classes in MNIST's format, 400 training and 50 test images."""
    root = tmp_path_factory.mktemp("mnist")
    write_images(root, "train", np.arange(400) % 10, 1)
    write_images(root, "t10k", np.arange(50) % 10, 2)
    return root


@pytest.fixture(scope="session")
def recipe_text() -> str:
    """The recipe as TOML."""
    return RECIPE


@pytest.fixture
def small_recipe(tmp_path: Path, recipe_text: str) -> Path:
    """The recipe's file."""
    path = tmp_path / "small.toml"
    path.write_text(recipe_text, encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Before the runs that a session shares, too: two threads sum in another order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's cache."""
    monkeypatch.setenv("MPSL_CACHE", str(tmp_path / "cache"))
