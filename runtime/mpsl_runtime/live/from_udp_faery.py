"""`udp+faery://host:port`: faery's events (`faery … output udp`), in its two formats.

| `?format=` | bytes of an event, little-endian |
|---|---|
| `t64` (default) | 13: uint64 time in µs, uint16 x, uint16 y, one byte ON (`t64_x16_y16_on8`) |
| `t32` | 8: uint32 time in µs, uint16 x, uint16 y·2 + ON (`t32_x16_y15_on1`) |

`?size=640x480` says the sensor, which the format does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.socket_queue import Batch, EventCount
from mpsl_runtime.live.source import LONGEST_GAP_US
from mpsl_runtime.live.timed_source import TimedSource, unwrapped

__all__ = ["Source"]

_T64 = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
_T32 = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2")])
_FORMATS = {"t64": _T64, "t64_x16_y16_on8": _T64, "t32": _T32, "t32_x16_y15_on1": _T32}
_LARGEST_T = np.uint64(1 << 62)


class Source(TimedSource):
    """See the module."""

    address_options = ("format",)

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        name = address.options.get("format", "t64")
        if name not in _FORMATS:
            raise UsageError(
                "unknown format", got=repr(name[:40]), expected="t64 or t32", where=self.name
            )
        self._format = _FORMATS[name]

    @property
    def rule(self) -> EventCount:
        return "bytes13" if self._format is _T64 else "bytes8"

    def decode(self, batch: Batch) -> tuple[Events, NDArray[np.int64]]:
        step = self._format.itemsize
        sizes = np.diff(batch.offsets)
        counts = sizes // step
        cut = int(np.count_nonzero(sizes % step))
        data = batch.data[: batch.offsets[-1]]
        if cut:
            self.ignore("truncated datagram", cut)
            whole = zip(batch.offsets[:-1].tolist(), (counts * step).tolist(), strict=True)
            data = np.concatenate([data[begin : begin + size] for begin, size in whole])
        raw = np.frombuffer(data, self._format)
        edges = np.concatenate([[0], np.cumsum(counts)])
        if self._format is _T32:
            t, self._clock_us = unwrapped(raw["t"].astype(np.int64), self._clock_us)
            x = np.ascontiguousarray(raw["x"])
            y, p = (raw["y"] >> 1).astype(np.uint16), (raw["y"] & 1).astype(np.uint8)
            return Events(t, x, y, p, self.sensor_size), edges
        wrong = raw["t"] >= _LARGEST_T
        if wrong.any():  # no clock counts so far: damage, or another format
            self.ignore("datagram with impossible times")
            edges = np.concatenate([[0], np.cumsum(~wrong)])[edges]
            raw = raw[~wrong]
        return (
            Events(
                raw["t"].astype(np.int64),
                np.ascontiguousarray(raw["x"]),
                np.ascontiguousarray(raw["y"]),
                (raw["p"] != 0).astype(np.uint8),
                self.sensor_size,
            ),
            edges,
        )
