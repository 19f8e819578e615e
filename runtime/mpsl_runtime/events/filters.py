"""Filters of events, on the pixels of the camera. All are off unless asked for.

- hot pixels: every event of a pixel that is listed in a file, or that `auto` has found (below)
- refractory: an event of a pixel whose last event that passed is less than `refractory_us` ago
- background: an event near which nothing has happened: none of the eight neighbours has fired in
  the last `background_us` (Delbruck 2008, "Frame-free dynamic digital vision")

In this order; each counts what it takes. `auto` looks at half a second of the recording at a time:
a pixel that fired at least 25 times in it, and more than 8 times as often as the median of its
neighbours, is hot in the next half second. So a pixel is taken from 0.5 s on, and is let go again
when it calms down. What is taken depends on the events alone, not on the pieces in which they come.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.kept import Kept

__all__ = ["FilterOptions", "Filters", "read_hot_pixels"]

Size = tuple[int, int]
_LEARN_US = 500_000
_HOT_EVENTS = 25
_HOT_RATIO = 8
_LONG_AGO_US = -(1 << 62)
_LARGEST_US = 1 << 40
_LARGEST_LIST_BYTES = 1 << 24
_LARGEST_PIXELS = 1 << 26


@dataclass(frozen=True)
class FilterOptions:
    """Which filters are on.

    Attributes:
        hot_pixels: `auto`, or a file with a line `x,y` for each hot pixel.
        background_us, refractory_us: see the module; None is off.

    Raises:
        UsageError: a time that is not positive.
    """

    hot_pixels: str | Path | None = None
    background_us: int | None = None
    refractory_us: int | None = None

    def __post_init__(self) -> None:
        for name in ("background_us", "refractory_us"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _LARGEST_US:
                raise UsageError("no time for a filter", got=value, expected="> 0 µs", where=name)

    @property
    def is_off(self) -> bool:
        """Whether nothing is filtered."""
        return self == FilterOptions()


def read_hot_pixels(path: str | Path, size: Size) -> NDArray[np.bool_]:
    """Reads a list of hot pixels; lines that start with # are comments.

    Returns:
        bool [H, W], true where a pixel is hot.

    Raises:
        DataError: the file is absent, a line is not `x,y`, or a pixel lies outside the sensor.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_LIST_BYTES + 1)
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror, where=path) from error
    if len(data) > _LARGEST_LIST_BYTES:
        raise DataError("list of hot pixels is too long", expected="≤ 16 MiB", where=path)
    mask = np.zeros((size[1], size[0]), np.bool_)
    for number, line in enumerate(data.decode("latin-1").splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        good = len(words) == 2 and all(w.isascii() and w.isdigit() and len(w) < 6 for w in words)
        if not good or int(words[0]) >= size[0] or int(words[1]) >= size[1]:
            raise DataError(
                f"line {number} is no pixel of the sensor",
                got=repr(line[:40]),
                expected=f"x,y inside {size[0]}x{size[1]}",
                where=path,
            )
        mask[int(words[1]), int(words[0])] = True
    return mask


class Filters:
    """The filters of one recording; state is carried from piece to piece.

    Attributes:
        taken: events that each filter has taken, by its name.

    Args:
        options: which are on.
        size: (width, height) of the sensor.

    Raises:
        DataError: see `read_hot_pixels`; or a sensor too large for the filters' memory.
    """

    def __init__(self, options: FilterOptions, size: Size) -> None:
        if size[0] * size[1] > _LARGEST_PIXELS:
            raise DataError(
                "sensor is too large for filters",
                got=f"{size[0]}x{size[1]}",
                expected=f"≤ {_LARGEST_PIXELS} pixels",
            )
        self.taken: Counter[str] = Counter()
        self._options = options
        self._hot: _HotPixels | None = None
        self._listed: NDArray[np.bool_] | None = None
        if options.hot_pixels == "auto":
            self._hot = _HotPixels(size)
        elif options.hot_pixels is not None:
            self._listed = read_hot_pixels(options.hot_pixels, size)
        shape = (size[1], size[0])
        if options.refractory_us is not None:
            self._fired_us = np.full(shape, _LONG_AGO_US)
        if options.background_us is not None:
            # With a border of pixels that never fire.
            self._seen_us = np.full((shape[0] + 2, shape[1] + 2), _LONG_AGO_US)

    def kept(self) -> dict[str, Any]:
        """What the next events are judged by, for `mpsl_runtime.kept`."""
        found: dict[str, Any] = {"taken": dict(self.taken)}
        if self._hot is not None:
            found["hot"] = self._hot.kept()
        for name in ("fired_us", "seen_us"):
            if hasattr(self, f"_{name}"):
                found[name] = getattr(self, f"_{name}")
        return found

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken; DataError where that cannot be."""
        self.taken = kept.counter("taken")
        if self._hot is not None:
            self._hot.restore(kept.inner("hot"))
        for name in ("fired_us", "seen_us"):
            if hasattr(self, f"_{name}"):
                shape = getattr(self, f"_{name}").shape
                setattr(self, f"_{name}", kept.array(name, np.int64, shape))

    def apply(self, events: Events) -> Events:
        """The events that pass, in time order; all must lie inside the sensor."""
        if self._listed is not None:
            events = self._keep(events, ~self._listed[events.y, events.x], "hot pixels")
        if self._hot is not None:
            events = self._keep(events, self._hot.look(events), "hot pixels")
        if self._options.refractory_us is not None:
            keep = np.empty(len(events), np.uint8)
            _native.refractory_events(
                events.t, events.x, events.y, self._options.refractory_us, self._fired_us, keep
            )
            events = self._keep(events, keep.view(np.bool_), "refractory")
        if self._options.background_us is not None:
            keep = np.empty(len(events), np.uint8)
            _native.background_events(
                events.t, events.x, events.y, self._options.background_us, self._seen_us, keep
            )
            events = self._keep(events, keep.view(np.bool_), "background")
        return events

    def _keep(self, events: Events, keep: NDArray[np.bool_], name: str) -> Events:
        taken = len(events) - int(np.count_nonzero(keep))
        if not taken:
            return events
        self.taken[name] += taken
        return Events(
            events.t[keep], events.x[keep], events.y[keep], events.p[keep], events.sensor_size
        )


class _HotPixels:
    """`auto`: counts the events of a half second, and says which pixels were hot in the last."""

    def __init__(self, size: Size) -> None:
        self._width, self._height = size
        self._count = np.zeros((size[1], size[0]), np.int64)
        self._hot: NDArray[np.bool_] = np.zeros((size[1], size[0]), np.bool_)
        self._end_us: int | None = None

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        return {"count": self._count, "hot": self._hot.view(np.uint8), "end_us": self._end_us}

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken."""
        self._count = kept.array("count", np.int64, self._count.shape)
        self._hot = kept.array("hot", np.uint8, self._hot.shape) > 0
        end_us = kept.integer("end_us", -(1 << 62)) if kept.is_there("end_us") else None
        self._end_us = end_us

    def look(self, events: Events) -> NDArray[np.bool_]:
        """True for each event that passes."""
        keep = np.empty(len(events), np.bool_)
        position = 0
        while position < len(events):
            first = int(events.t[position])
            if self._end_us is None:
                self._end_us = first + _LEARN_US
            if first >= self._end_us:
                self._learn()
                if first >= self._end_us + _LEARN_US:  # one whole half second was empty
                    self._learn()
                self._end_us += (first - self._end_us) // _LEARN_US * _LEARN_US + _LEARN_US
            stop = int(np.searchsorted(events.t, self._end_us))
            x, y = events.x[position:stop], events.y[position:stop]
            keep[position:stop] = ~self._hot[y, x]
            cell = y.astype(np.int64) * self._width + x
            np.add.at(self._count.reshape(-1), cell, 1)
            position = stop
        return keep

    def _learn(self) -> None:
        row, column = np.nonzero(self._count >= _HOT_EVENTS)
        padded = np.pad(self._count, 1)
        around = [
            padded[row + down, column + right]
            for down in range(3)
            for right in range(3)
            if (down, right) != (1, 1)
        ]
        self._hot = np.zeros_like(self._hot)
        if row.size:
            hot = self._count[row, column] > _HOT_RATIO * np.median(around, axis=0)
            self._hot[row[hot], column[hot]] = True
        self._count = np.zeros_like(self._count)
