"""A file as a recording: events in their order, or one line. For `child.py`."""

from __future__ import annotations

from pathlib import Path

import h5py  # noqa: F401  Imported before memory is bounded.
import numpy as np

from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import read_events


def verdict(path: Path) -> str:
    """`read`, where what is whole of a damaged recording is checked events."""
    options = ReadOptions(sort_window_ms=1000)
    events = read_events(path, options, on_trouble=lambda line: None)
    events.check()
    assert (np.diff(events.t) >= 0).all()
    return "read"
