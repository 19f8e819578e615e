"""Damaged recordings in HDF5 and numpy's files: one line, or what is whole of them.

The formats of cameras are damaged in `tests/runtime/events`. 150 files a run, the same every time;
`make fuzz` (MPSL_FUZZ=N) reads N new ones.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from .child import read
from .mutation import BYTES, near
from .test_models import MARKS

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int(os.environ.get("MPSL_SEED") or 0) or (
    int.from_bytes(os.urandom(4), "little") if FUZZ else 13
)
FILES = FUZZ or 150
AT_A_TIME = 500
NAMES = [
    "gesture-dsec.h5",
    "gesture-v2e.h5",
    "gesture-prophesee.hdf5",
    "gesture.npy",
    "gesture.npz",
]
HEADS = [b"\x93NUMPY", b"{'descr'", b"PK\1\2", b"PK\3\4", b"PK\5\6"]


def test_damaged_tables_are_refused_in_one_line_or_read(
    recordings_folder: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(SEED)
    words: Counter[str] = Counter()
    faults = []
    for first in range(0, FILES, AT_A_TIME):
        folder = tmp_path / str(first)
        folder.mkdir()
        for index in range(first, min(first + AT_A_TIME, FILES)):
            name = NAMES[index % len(NAMES)]
            content = (recordings_folder / name).read_bytes()
            marks = HEADS if ".np" in name else MARKS
            choice = [near(marks), near(marks, 200), *BYTES]
            damage = choice[int(random.integers(len(choice)))]
            target = folder / f"{index:06}-{damage.__name__}-{name}"
            target.write_bytes(damage(bytearray(content), random))
        found = read("tables", folder)
        words.update(verdict.word for verdict in found)
        faults += [verdict for verdict in found if verdict.word == "FAULT"]
        if not faults:
            shutil.rmtree(folder)
    print(dict(words))
    assert faults == [], f"seed {SEED}: {faults[:3]} of {len(faults)} in {tmp_path}"
    assert sum(words.values()) == FILES
    assert min(words["refused"], words["read"]) > FILES / 10, words
