"""`udp://host:port`: our own datagrams (`mpsl_runtime.live.datagram`), received here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from mpsl_runtime import _native
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.arrivals import Run
from mpsl_runtime.live.assembly import Assembler
from mpsl_runtime.live.flow import FlowingSource, Piece
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.pieces import Begin, Data, Output
from mpsl_runtime.live.socket_queue import SocketQueue
from mpsl_runtime.live.source import LONGEST_GAP_US

__all__ = ["Source"]

_LOOK_AGAIN_S = 0.1  # only to see `stop`; a datagram wakes it at once


class Source(FlowingSource):
    """Listens at an address. A run ends with its own sender's LAST, a service (`serve`) does not.

    Attributes:
        lost: datagrams that never came, by their numbers.
        received: datagrams taken from the socket.
    """

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        address.check_options()
        self.port = address.port
        self.received = 0
        self._queue: SocketQueue | None = None
        self._assembler = Assembler(
            self, reorder_s=options.reorder_ms / 1000, gap_us=longest_gap_us
        )
        self._began_s = 0.0
        self._reached_us = 0
        self._size = (0, 0)

    @property
    def doing(self) -> str:
        return f"listening at {self.address}"

    @property
    def address(self) -> str:
        host = self._address.host
        return f"udp://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def lost(self) -> int:
        """Datagrams that never came."""
        return self._assembler.lost

    @property
    def waiting(self) -> int | None:
        return 0 if self._queue is None else self._queue.waiting_events

    def open(self) -> None:
        if self._queue is None:
            self._queue = SocketQueue(
                self._address.host,
                self._address.port,
                "mpsl",
                self.options.largest_queue,
                self.name,
            )
            self.port = self._queue.port

    def close(self) -> None:
        super().close()
        if self._queue is not None:
            self._queue.close()

    def kept(self) -> dict[str, Any]:
        return {
            **super().kept(),
            "assembler": self._assembler.kept(),
            "size": list(self._size),
            "reached_us": self._reached_us,
        }

    def restore(self, kept: Kept) -> None:
        super().restore(kept)
        self._assembler.restore(kept.inner("assembler"))
        self._size, self._reached_us = kept.size("size"), kept.integer("reached_us")

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def rest(self) -> list[Piece]:
        return self._pieces(self._assembler.finish())

    def arrived(self) -> list[Piece] | None:
        wait_s = _LOOK_AGAIN_S
        if self._assembler.is_waiting:
            wait_s = min(wait_s, max(self.options.reorder_ms / 1000, 0.001))
        batch = None if self._queue is None else self._queue.take(wait_s)
        found: list[Piece] = []
        if batch is not None:
            self.received += len(batch)
            found += self._pieces(self._assembler.take(batch))
        now_s = time.monotonic()
        found += self._pieces(self._assembler.idle(now_s))
        silent_s = now_s - max(self._began_s, self._assembler.heard_s)
        timeout_s = self.options.timeout_s
        over = timeout_s is not None and silent_s > timeout_s
        return None if over and not found else found

    def _pieces(self, outputs: Iterable[Output]) -> list[Piece]:
        found: list[Piece] = []
        for output in _merged([*outputs]):
            if isinstance(output, Data):
                found.append(self._chunk(output))
                continue
            if isinstance(output, Begin):
                self._size = output.size
                self._reached_us = output.origin_us or 0
            found.append(output)
        return found

    def _chunk(self, data: Data) -> Chunk:
        run: Run = data.run
        number = int(run.counts.sum())
        width, height = self._size if self._size != (0, 0) else (1 << 16, 1 << 15)
        t, x, y = (
            np.empty(number, np.int64),
            np.empty(number, np.uint16),
            np.empty(number, np.uint16),
        )
        p = np.empty(number, np.uint8)
        kept, outside, backwards, self._reached_us = _native.unpack_datagrams(
            run.data,
            run.starts,
            run.times_us,
            run.counts,
            width,
            height,
            self._reached_us,
            t,
            x,
            y,
            p,
        )
        missing = data.missing
        missing += self.lose("outside the sensor", outside)
        missing += self.lose("later than those after them", backwards)
        size = self._size if self._size != (0, 0) else None
        events = Events(t[:kept], x[:kept], y[:kept], p[:kept], size)
        return Chunk(events, int(run.times_us[-1]), missing)


def _merged(outputs: list[Output]) -> Iterator[Output]:
    """The same; events that follow on each other come together: a chunk has a fixed cost."""
    together: list[Data] = []
    for output in outputs:
        if isinstance(output, Data) and (not together or _belong(together[-1], output)):
            together.append(output)
            continue
        yield from _as_one(together)
        together = []
        if isinstance(output, Data):
            together = [output]
        else:
            yield output
    yield from _as_one(together)


def _belong(one: Data, other: Data) -> bool:
    return one.run.data is other.run.data or len(one.run.starts) == len(other.run.starts) == 1


def _as_one(together: list[Data]) -> Iterator[Data]:
    if len(together) < 2:
        yield from together
        return
    runs = [data.run for data in together]
    data, starts = runs[0].data, [run.starts for run in runs]
    if any(run.data is not data for run in runs):
        sizes = np.cumsum([0, *(len(run.data) for run in runs[:-1])])
        data = np.concatenate([run.data for run in runs])
        starts = [run.starts + size for run, size in zip(runs, sizes, strict=True)]
    run = Run(
        data,
        np.concatenate(starts),
        np.concatenate([run.times_us for run in runs]),
        np.concatenate([run.counts for run in runs]),
    )
    yield Data(run, sum(data.missing for data in together))
