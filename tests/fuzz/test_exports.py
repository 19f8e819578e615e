"""Damaged exports: refused in one line by what reads them, and never passed by `verify`.

48 files a run, the same every time; `make fuzz` (MPSL_FUZZ=N) damages N / 10 new ones, since each
is verified in every back end.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from . import hdf5_mutation, onnx_mutation
from .child import read
from .mutation import BYTES
from .small_runs import make_data, make_run

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int(os.environ.get("MPSL_SEED") or 0) or (
    int.from_bytes(os.urandom(4), "little") if FUZZ else 3
)
FILES = FUZZ // 10 or 48
PARTS = ["model.onnx", "model.step.onnx", "model.nir"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("nmnist"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "done", data)


def test_damaged_exports_are_refused_or_what_they_were(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSL_FUZZ_DATA", str(data))
    monkeypatch.setenv("MPSL_FUZZ_RUN", str(run))
    random = np.random.default_rng(SEED)
    folder = tmp_path / "damaged"
    folder.mkdir()
    for index in range(FILES):
        part = PARTS[index % 3]
        place = folder / "new"
        place.mkdir()
        content = (run / part).read_bytes()
        (place / part).write_bytes(content)
        if random.random() < 0.25:
            function = BYTES[int(random.integers(len(BYTES)))]
            (place / part).write_bytes(function(bytearray(content), random))
            done = str(function.__name__)
        elif part == "model.nir":
            done = hdf5_mutation.change(place / part, random)
        else:
            changed, done = onnx_mutation.change(content, random)
            (place / part).write_bytes(changed)
        place.rename(folder / f"{index:06}-{part}-{done}")
    found = read("exports", folder)
    words = Counter(verdict.word for verdict in found)
    print(dict(words))
    faults = [verdict for verdict in found if verdict.word == "FAULT"]
    assert faults == [], f"seed {SEED}: {faults[:3]} of {len(faults)} in {folder}"
    assert sum(words.values()) == FILES
    assert words["refused"] > FILES / 2, words
    shutil.rmtree(folder)
