"""Events of the camera → a picture that fades: brighter and darker apart, one byte a pixel.

    v ← v·exp(−Δt/fade) + 1 for each event          of each polarity and pixel

A byte holds two levels from 0 to 15: brighter (ON) in the high half, darker (OFF) in the low one.
They go with the square root of v, and 15 is what the busiest pixels of late have reached, so that a
single event is seen beside a bright edge. Sensors larger than `_LARGEST` are summed k x k.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.events import Events

__all__ = ["EventPicture", "Picture", "levels"]

Size = tuple[int, int]
_LARGEST = (960, 720)
# Of a camera whose size nobody says.
_LARGEST_SIDE = 4096
_MOST_WAITING = 2_000_000
_SEEN = 0.08
_RATE_US = 500_000
_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        levels: uint8 [H, W], see the module. scale: k. size: (width, height) of the camera.
        events_per_s: of the stream's own time, over the last half second.
    """

    levels: NDArray[np.uint8]
    scale: int
    size: Size
    events_per_s: float


class EventPicture:
    """See the module. `add` never waits: one thread adds, another one composes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Events] = deque()
        self._number = 0
        self._size: Size = (0, 0)
        self._scale = 1
        self._values: NDArray[np.float32] = np.zeros((2, 0, 0), np.float32)
        self._top = 1.0
        self._now_us: int | None = None
        self._counts: deque[tuple[int, int]] = deque()

    def add(self, events: Events) -> None:
        """Events for the next picture. Far too many: the oldest are left out of the picture."""
        if not len(events):
            return
        with self._lock:
            self._waiting.append(events)
            self._number += len(events)
            while self._number > _MOST_WAITING and len(self._waiting) > 1:
                self._number -= len(self._waiting.popleft())

    def begin(self, size: Size) -> None:
        """A camera of (width, height); its picture begins black."""
        with self._lock:
            self._waiting.clear()
            self._number = 0
            self._set(min(size[0], _LARGEST_SIDE), min(size[1], _LARGEST_SIDE))
            self._now_us = None
            self._counts.clear()

    def _set(self, width: int, height: int) -> None:
        self._size = width, height
        self._scale = max(1, *(math.ceil(a / b) for a, b in zip(self._size, _LARGEST, strict=True)))
        rows, columns = -(-height // self._scale), -(-width // self._scale)
        self._values = np.zeros((2, rows, columns), np.float32)

    def taken(self) -> list[Events]:
        """What waits for the next picture."""
        with self._lock:
            waiting, self._number = [*self._waiting], 0
            self._waiting.clear()
        return waiting

    def compose(self, waiting: list[Events], now_us: int, fade_us: int) -> Picture:
        """The picture of now. Only one thread may compose.

        Args:
            waiting: new events. now_us: in the time by which it fades, never falling but for a new
                beginning. fade_us: after which an event has faded to a third.
        """
        with self._lock:
            passed_us = 0 if self._now_us is None else max(0, now_us - self._now_us)
            self._now_us = now_us
            if passed_us:
                self._values *= np.float32(math.exp(-passed_us / fade_us))
            number = self._take_in(waiting)
            self._counts.append((now_us, number))
            while len(self._counts) > 2 and self._counts[1][0] <= now_us - _RATE_US:
                self._counts.popleft()
            shown, self._top = levels(self._values, self._top)
            return Picture(shown[0] << 4 | shown[1], self._scale, self._size, self._rate())

    def _take_in(self, waiting: list[Events]) -> int:
        """Adds the events; returns their number."""
        if not waiting:
            return 0
        x, y, p = (np.concatenate([getattr(events, n) for events in waiting]) for n in "xyp")
        _, rows, columns = self._values.shape
        x, y = x.astype(np.int64) // self._scale, y.astype(np.int64) // self._scale
        inside = (x < columns) & (y < rows)
        # ON first, as in the byte.
        cell = ((1 - p[inside].astype(np.int64)) * rows + y[inside]) * columns + x[inside]
        counts = np.bincount(cell, minlength=self._values.size)
        self._values += counts.reshape(self._values.shape).astype(np.float32)
        return len(x)

    def _rate(self) -> float:
        passed_us = self._counts[-1][0] - self._counts[0][0]
        number = sum(count for _, count in list(self._counts)[1:])
        return number * 1e6 / passed_us if passed_us > 0 else 0.0


def levels(values: NDArray[np.float32], top: float) -> tuple[NDArray[np.uint8], float]:
    """Levels 0 … 15 of values, and what 15 stands for; `top` is that of the picture before."""
    seen = values[values > _SEEN]
    busiest = 1.0
    if seen.size:
        busiest = max(1.0, float(np.percentile(seen[:: max(1, seen.size // _SAMPLE)], 98)))
    top += 0.2 * (busiest - top)
    scaled = np.sqrt(values * np.float32(1 / top)) * np.float32(15)
    shown = np.minimum(np.ceil(scaled), 15).astype(np.uint8)
    shown[values <= _SEEN] = 0
    return shown, top
