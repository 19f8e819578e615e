"""A run of a network that trains within seconds, on recordings that are made here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

RECIPE = """
name = "small"
network = "4C3S2-BN-12FC-10"
[data]
dataset = "nmnist"
steps = 3
step_us = 100000
[training]
epochs = 3
batch_size = 16
"""
MPSL = [sys.executable, "-c", "from mpsl_runtime.cli import main; main()"]


def record(path: Path, label: int, random: np.random.Generator) -> None:
    """60 events around a place that belongs to the label, in N-MNIST's format."""
    t = np.sort(random.integers(0, 300_000, 60))
    x = np.clip(3 * label + random.integers(0, 6, 60), 0, 33)
    y = np.clip(30 - 3 * label + random.integers(0, 6, 60), 0, 33)
    word = (random.integers(0, 2, 60) << 23) | t
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [x, y, word >> 16, (word >> 8) & 255, word & 255]
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def make_data(root: Path) -> Path:
    """10 classes, 8 training and 2 test recordings each."""
    random = np.random.default_rng(0)
    for split, count in (("Train", 8), ("Test", 2)):
        for label in range(10):
            for index in range(count):
                record(root / split / str(label) / f"{index:05d}.bin", label, random)
    return root


def train(run: Path, data: Path, *, until: str | None = None) -> None:
    """Trains into `run`; killed at the first line that has `until` in it."""
    (run.parent / "small.toml").write_text(RECIPE)
    words = ["train", str(run.parent / "small.toml"), "--out", str(run), "--data", str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*MPSL, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.decode())
            if until is not None and until in lines[-1]:
                process.kill()
        code = process.wait()
    assert code == (0 if until is None else -signal.SIGKILL), lines


def make_run(run: Path, data: Path) -> Path:
    """A run that is done, with its exports."""
    train(run, data)
    for kind in ("nir", "onnx"):
        words = ["export", str(run), "--format", kind]
        subprocess.run([*MPSL, *words], check=True, capture_output=True)
    return run
