"""The datagrams of a batch that are what they say, as columns and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.live.datagram import END, HEADER
from mpsl_runtime.live.socket_queue import Batch

__all__ = ["Arrivals", "Item", "Run"]


@dataclass(frozen=True, eq=False)
class Run:
    """Datagrams in a row: the body of each begins at `starts` in `data`; all are int64 [n]."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    times_us: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Item:
    """One datagram, with a copy of its body."""

    flags: int
    recording: int
    sequence: int
    first_event: int
    time_us: int
    last_us: int
    origin_us: int
    size: tuple[int, int]
    sender: int
    arrival_s: float
    count: int
    body: NDArray[np.uint8]

    @property
    def run(self) -> Run:
        """It alone."""
        one = np.array([self.time_us, self.count])
        return Run(self.body, np.zeros(1, np.int64), one[:1], one[1:])


class Arrivals:
    """The good datagrams of a batch, and where they follow on each other.

    Args:
        batch: what has come.
        headers: `HEADER` [n] of the good ones; index: int64 [n], their places in the batch.
        gap_us: longest time without events.
    """

    def __init__(
        self,
        batch: Batch,
        headers: NDArray[np.void],
        index: NDArray[np.int64],
        gap_us: int,
    ) -> None:
        self._data, self._headers = batch.data, headers
        self._starts = batch.offsets[:-1][index] + HEADER.itemsize
        self._senders = batch.senders[index]
        self._arrivals_s = batch.arrivals_ns[index] / 1e9
        self._counts = headers["count"].astype(np.int64)
        self._times_us = headers["time_us"].astype(np.int64)
        last = self._starts + 8 * np.maximum(self._counts - 1, 0)
        offset = self._data[last[:, None] + np.arange(4)].view("<u4")[:, 0]
        self._last_us = self._times_us + np.where(self._counts > 0, offset, 0)
        self._breaks = np.flatnonzero(~self._follows(gap_us)) + 1

    def _follows(self, gap_us: int) -> NDArray[np.bool_]:
        """bool [n-1]: whether a datagram simply goes on from the one before."""
        h, before = self._headers[1:], self._headers[:-1]
        same: NDArray[np.bool_] = self._senders[1:] == self._senders[:-1]
        for name in ("recording", "width", "height"):
            same &= h[name] == before[name]
        same &= h["sequence"] - before["sequence"] == np.uint32(1)
        same &= (h["flags"] & END == 0) & (before["flags"] & END == 0)
        same &= self._times_us[1:] >= self._last_us[:-1]
        same &= self._last_us[1:] - self._last_us[:-1] <= gap_us
        return same

    def rows(self) -> Iterator[tuple[int, int]]:
        """(first, stop) of datagrams that follow on each other."""
        edges = [0, *self._breaks.tolist(), len(self._headers)]
        yield from pairwise(edges)

    def run(self, first: int, stop: int) -> Run:
        """Datagrams first … stop−1."""
        part = slice(first, stop)
        return Run(self._data, self._starts[part], self._times_us[part], self._counts[part])

    def item(self, k: int) -> Item:
        """Datagram k, which may outlive the batch."""
        h = self._headers[k]
        start, count = int(self._starts[k]), int(self._counts[k])
        return Item(
            flags=int(h["flags"]),
            recording=int(h["recording"]),
            sequence=int(h["sequence"]),
            first_event=int(h["first_event"]),
            time_us=int(self._times_us[k]),
            last_us=int(self._last_us[k]),
            origin_us=int(h["origin_us"]),
            size=(int(h["width"]), int(h["height"])),
            sender=int(self._senders[k]),
            arrival_s=float(self._arrivals_s[k]),
            count=count,
            body=self._data[start : start + 8 * count].copy(),
        )
