"""Events in time order: sorted within a window, or held to it.

Time that falls is an error that says how many events come late and by how much. No time is ever
changed: an event keeps the one that its file gives it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError

__all__ = ["Columns", "Order", "concatenated"]

Columns = tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]
"""t, x, y, p of events as a file has them, in whatever order."""

# An event that comes later than that is not late: the clock was set back.
_LONGEST_DELAY_MS = 1000
_FIRST_US = int(np.iinfo(np.int64).min)


def concatenated(pieces: list[Columns]) -> Columns:
    """One after another; no pieces give no events."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return (
            np.empty(0, np.int64),
            np.empty(0, np.uint16),
            np.empty(0, np.uint16),
            np.empty(0, np.uint8),
        )
    t, x, y, p = zip(*pieces, strict=True)
    return np.concatenate(t), np.concatenate(x), np.concatenate(y), np.concatenate(p)


class Order:
    """Takes columns piece by piece and gives back those whose place is certain.

    Attributes:
        late: events that come after a later one, beyond the window.
        sorted: events that were put in their place.
        seen: events so far.

    Args:
        window_us: how late an event may come; None sorts nothing.
    """

    def __init__(self, window_us: int | None) -> None:
        self._window_us = window_us
        self._waiting: Columns = concatenated([])
        self._largest: int | None = None  # time of any event so far
        self._given: int | None = None  # time of the last event that was given
        self._first_late: tuple[int, int, int] | None = None  # index, time, the time before
        self._latest_us = 0
        self.late = self.sorted = self.seen = 0

    def take(self, columns: Columns) -> Columns:
        """The events that can be given now; as they came once one is too late."""
        t = columns[0]
        if not len(t):
            return columns
        before = self._largest
        falls = (before is not None and int(t[0]) < before) or bool((t[1:] < t[:-1]).any())
        if falls:
            self._count(t)
        if self._largest is None or int(t[-1]) > self._largest or falls:
            largest = int(t.max())
            self._largest = largest if before is None else max(before, largest)
        self.seen += len(t)
        if self._window_us is None or self._largest is None or self.late:
            return columns
        return self._sort(columns, self._largest - self._window_us, falls=falls)

    def flush(self) -> Columns:
        """What still waits."""
        waiting, self._waiting = self._waiting, concatenated([])
        return waiting

    def _count(self, t: NDArray[np.int64]) -> None:
        largest = np.maximum.accumulate(t)
        if self._largest is not None:
            largest = np.maximum(largest, self._largest)
        falls = t < largest
        if self._window_us is None:
            late = falls
        else:
            late = t < self._given if self._given is not None else np.zeros(len(t), np.bool_)
            self.sorted += int((falls & ~late).sum())
        number = int(late.sum())
        if not number:
            return
        if self._first_late is None:
            index = int(np.argmax(late))
            self._first_late = (self.seen + index, int(t[index]), int(largest[index]))
        self.late += number
        # Times of strangers may be further apart than an int64 holds.
        behind = largest[late].astype(np.uint64) - t[late].astype(np.uint64)
        self._latest_us = max(self._latest_us, int(behind.max()))

    def _sort(self, columns: Columns, until_us: int, *, falls: bool) -> Columns:
        merged = concatenated([self._waiting, columns]) if len(self._waiting[0]) else columns
        t, x, y, p = merged
        if falls:
            place = np.argsort(t, kind="stable")
            t, x, y, p = t[place], x[place], y[place], p[place]
        cut = int(np.searchsorted(t, max(until_us, _FIRST_US), side="right"))
        self._waiting = (t[cut:], x[cut:], y[cut:], p[cut:])
        if cut:
            self._given = int(t[cut - 1])
        return t[:cut], x[:cut], y[:cut], p[:cut]

    def error(self, where: object) -> DataError:
        """What is wrong with the times, as one line."""
        index, time, before = self._first_late or (0, 0, 0)
        window_ms = -(-self._latest_us // 1000)
        late = f"late by up to {self._latest_us / 1000:,g} ms"
        hint = f" (--sort-window {window_ms} sorts them)" if window_ms <= _LONGEST_DELAY_MS else ""
        return DataError(
            "time falls",
            got=f"{self.late:,} of {self.seen:,} events {late}, the first is event {index}: "
            f"{time} µs after {before} µs",
            expected=f"times that never decrease{hint}",
            where=where,
        )
