"""`udp+spif://host:port`: words of SPIF, as AEStream sends them (`output udp`).

A little-endian word of 32 bits an event: bit 31 "no time follows", bits 30…16 x, bit 15 polarity,
bits 14…0 y. Where bit 31 is 0, a word with the time in µs follows; without it, an event has the
time at which its datagram arrived, since the first. A datagram is of one kind, by its first word.

`?size=640x480` says the sensor, which the format does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.events import Events
from mpsl_runtime.live.socket_queue import Batch, EventCount
from mpsl_runtime.live.timed_source import TimedSource, unwrapped

__all__ = ["Source"]

_NO_TIME = np.uint32(1 << 31)


class Source(TimedSource):
    """See the module."""

    rule: EventCount = "spif"
    _began_ns: int | None = None

    def decode(self, batch: Batch) -> tuple[Events, NDArray[np.int64]]:
        if self._began_ns is None:
            self._began_ns = int(batch.arrivals_ns[0])
        sizes = np.diff(batch.offsets)
        begins = batch.offsets[:-1]
        first = _words(batch.data, begins)
        is_timed = (sizes >= 4) & (first & _NO_TIME == 0)
        step = np.where(is_timed, 8, 4)
        counts = sizes // step
        cut = int(np.count_nonzero(sizes % step))
        if cut:
            self.ignore("truncated datagram", cut)
        edges = np.concatenate([[0], np.cumsum(counts)])
        of = np.repeat(np.arange(len(batch)), counts)
        places = begins[of] + (np.arange(edges[-1]) - edges[:-1][of]) * step[of]
        word = _words(batch.data, places)
        timed = is_timed[of]
        t = (batch.arrivals_ns - self._began_ns)[of] // 1000
        if timed.any():
            t = np.where(timed, self._time(batch, places, timed), t)
        events = Events(
            t,
            (word >> 16 & 0x7FFF).astype(np.uint16),
            (word & 0x7FFF).astype(np.uint16),
            (word >> 15 & 1).astype(np.uint8),
            self.sensor_size,
        )
        return events, edges

    def _time(
        self,
        batch: Batch,
        places: NDArray[np.int64],
        timed: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Times of the events that have one, on one clock; of no meaning for the others."""
        t = np.zeros(len(places), np.int64)
        raw = _words(batch.data, places[timed] + 4).astype(np.int64)
        t[timed], self._clock_us = unwrapped(raw, self._clock_us)
        return t


def _words(data: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The little-endian words that begin at these places."""
    words: NDArray[np.uint32] = data[places[:, None] + np.arange(4)].view("<u4")[:, 0]
    return words
