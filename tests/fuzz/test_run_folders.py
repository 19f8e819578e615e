"""Damaged run folders: every verb that reads them ends with one line, or does its work.

60 folders a run, the same every time; `make fuzz` (MPSL_FUZZ=N) damages N / 10 new ones, since each
is read by whole verbs.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from . import run_mutation
from .child import read
from .small_runs import make_data, make_run, train

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int(os.environ.get("MPSL_SEED") or 0) or (
    int.from_bytes(os.urandom(4), "little") if FUZZ else 5
)
FOLDERS = FUZZ // 10 or 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("nmnist"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    """A run that is done, with its exports, and one that was killed after an epoch."""
    base = tmp_path_factory.mktemp("runs")
    train(base / "killed", data, until="epoch 2/3")
    assert (base / "killed" / "last.ckpt").is_file()
    return {"done": make_run(base / "done", data), "killed": base / "killed"}


def test_damaged_run_folders_are_refused_in_one_line(
    runs: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSL_FUZZ_DATA", str(data))
    monkeypatch.setenv("MPSL_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(SEED)
    folder = tmp_path / "damaged"
    folder.mkdir()
    parts = list(run_mutation.PARTS)
    for index in range(FOLDERS):
        part = parts[index % len(parts)]
        source = runs["killed" if part in ("last.ckpt", "metrics.csv") else "done"]
        copy = folder / "new"
        shutil.copytree(source, copy)
        done = run_mutation.damage(copy / part, random)
        copy.rename(folder / f"{index:06}-{part}-{done}")
    found = read("runs", folder)
    words = Counter(verdict.word for verdict in found)
    print(dict(words))
    faults = [verdict for verdict in found if verdict.word == "FAULT"]
    assert faults == [], f"seed {SEED}: {faults[:3]} of {len(faults)} in {folder}"
    assert sum(words.values()) == FOLDERS
    assert words["refused"] > FOLDERS / 3, words
    shutil.rmtree(folder)
