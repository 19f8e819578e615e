"""Recordings of our own, written by other programs in every format, are read event by event.

`tests/recordings/README.md` says what each file is and what wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import decode_events, read_events

FOLDER = Path(__file__).resolve().parents[2] / "recordings"


@dataclass(frozen=True)
class Case:
    """A file, the events of `truth.npz` in it, the size that it states, and where time begins."""

    file: str
    truth: str
    sensor_size: tuple[int, int] | None
    from_zero: bool = False


GESTURE, DIGIT = (128, 128), (34, 34)
CASES = [
    Case("digit.bin", "digit", None),
    Case("gesture-evt2.raw", "gesture", GESTURE),
    Case("gesture-evt3.raw", "gesture", GESTURE),
    Case("rows-evt3.raw", "rows", DIGIT),
    Case("gesture.dat", "gesture", GESTURE),
    Case("gesture-nosize.dat", "gesture", None),
    Case("gesture.es", "gesture", GESTURE, from_zero=True),
    Case("gesture-aedat2.aedat", "gesture", GESTURE),
    Case("gesture-aedat31.aedat", "gesture", GESTURE),
    Case("gesture-lz4.aedat4", "gesture", GESTURE),
    Case("gesture-zstd.aedat4", "gesture", GESTURE),
    Case("gesture.csv", "gesture", None),
    Case("gesture-evt21-legacy.raw", "gesture", GESTURE),
    Case("rows-evt21.raw", "rows", DIGIT),
    Case("gesture-faery.csv", "gesture", GESTURE),
    Case("gesture.txt", "gesture", None),
    Case("gesture-evt2.raw.gz", "gesture", GESTURE),
    Case("gesture.npy", "gesture", None),
    Case("gesture.npz", "gesture", None),
    Case("gesture-dsec.h5", "gesture", None),
    Case("gesture-v2e.h5", "gesture", None),
    Case("gesture-prophesee.hdf5", "gesture", GESTURE),
]


def _check(events: Events, case: Case) -> None:
    with np.load(FOLDER / "truth.npz") as truth:
        t, x, y, p = (truth[f"{case.truth}_{name}"] for name in "txyp")
    assert len(t) >= 1000
    np.testing.assert_array_equal(events.t, t - t[0] if case.from_zero else t)
    for column, expected in ((events.x, x), (events.y, y), (events.p, p)):
        np.testing.assert_array_equal(column, expected)
    assert events.sensor_size == case.sensor_size


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_a_recording_is_read_event_by_event(case: Case) -> None:
    path = FOLDER / case.file
    _check(read_events(path), case)
    _check(decode_events(path.read_bytes(), path.name), case)


def test_every_recording_is_in_a_test() -> None:
    listed = {case.file for case in CASES}
    there = {path.name for path in FOLDER.iterdir()}
    assert there - listed - {"__pycache__"} == {"README.md", "make.py", "truth.npz"}
    assert listed <= there
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 300_000
