"""UDP formats without numbers: SPIF's words and faery's events."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.geometry import parse_size
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.flow import FlowingSource, Piece
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.socket_queue import Batch, EventCount, SocketQueue
from mpsl_runtime.live.source import LONGEST_GAP_US
from mpsl_runtime.live.timeline import Arrival, Timeline

__all__ = ["TimedSource", "unwrapped"]

_LOOK_AGAIN_S = 0.1
_SENDER_SILENT_S = 2.0


class TimedSource(FlowingSource):
    """Listens. Ends by `stop` or the timeout alone: these formats have no end.

    The first sender is followed; another one takes over when it has been silent for two seconds.

    Attributes:
        address_options: that the format has beside `size`.
    """

    address_options: tuple[str, ...] = ()

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        address.check_options("size", *self.address_options)
        if "size" in address.options and self.sensor_size is None:
            self.sensor_size = parse_size(address.options["size"])
        self.port = address.port
        self._queue: SocketQueue | None = None
        self._sender: int | None = None
        self._heard_s = 0.0
        self._clock_us: int | None = None
        self._timeline = Timeline(self, reorder_s=options.reorder_ms / 1000, gap_us=longest_gap_us)
        self._began_s, self._wait_s = 0.0, _LOOK_AGAIN_S

    @property
    def doing(self) -> str:
        return f"listening at {self.address}"

    @property
    def address(self) -> str:
        host = self._address.host
        host = f"[{host}]" if ":" in host else host
        _, mark, options = self.name.partition("?")
        return f"{self._address.scheme}://{host}:{self.port}{mark}{options}"

    @property
    @abstractmethod
    def rule(self) -> EventCount:
        """How the queue counts the events of a datagram."""

    @abstractmethod
    def decode(self, batch: Batch) -> tuple[Events, NDArray[np.int64]]:
        """The events of a batch as they came, and where those of each datagram begin [n+1]."""

    @property
    def waiting(self) -> int | None:
        return 0 if self._queue is None else self._queue.waiting_events

    def open(self) -> None:
        if self._queue is None:
            self._queue = SocketQueue(
                self._address.host,
                self._address.port,
                self.rule,
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
            "timeline": self._timeline.kept(),
            "sender": self._sender,
            "clock_us": self._clock_us,
        }

    def restore(self, kept: Kept) -> None:
        super().restore(kept)
        self._timeline.restore(kept.inner("timeline"))
        self._sender = kept.integer("sender", 0, 1 << 64) if kept.is_there("sender") else None
        self._clock_us = kept.integer("clock_us") if kept.is_there("clock_us") else None

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def rest(self) -> Iterator[Piece]:
        return self._timeline.finish()

    def arrived(self) -> Iterable[Piece] | None:
        batch = None if self._queue is None else self._queue.take(self._wait_s)
        now_s = time.monotonic()
        if batch is None:
            silent_s = now_s - max(self._began_s, self._heard_s)
            if self.options.timeout_s is not None and silent_s > self.options.timeout_s:
                return None
            # What waits for its place comes out when nothing else does.
            self._wait_s = _LOOK_AGAIN_S
            return self._timeline.take(Arrival(Events.empty(), now_s))
        self._wait_s = min(_LOOK_AGAIN_S, max(self.options.reorder_ms / 1000, 0.001))
        if batch.dropped_events:
            self.lose("queue was full", batch.dropped_events)
        if batch.unseen:
            self.ignore("datagrams that the system had no room for", batch.unseen)
        batch = self._followed(batch)
        if not len(batch):
            return ()
        events, edges = self.decode(batch)
        return self._timeline.take(Arrival(events, now_s, edges))

    def _followed(self, batch: Batch) -> Batch:
        """The datagrams of the sender that is followed."""
        arrival_s = float(batch.arrivals_ns[-1]) / 1e9
        ours = batch.senders == np.uint64(self._sender or 0)
        if self._sender is None or (
            not ours.any() and arrival_s - self._heard_s > _SENDER_SILENT_S
        ):
            self._sender = int(batch.senders[0])
            ours = batch.senders == batch.senders[0]
        if ours.any():
            self._heard_s = arrival_s
        if ours.all():
            return batch
        self.ignore("another sender", int(np.sum(~ours)))
        return _selected(batch, ours)


def _selected(batch: Batch, which: NDArray[np.bool_]) -> Batch:
    parts = [
        batch.data[batch.offsets[k] : batch.offsets[k + 1]] for k in np.flatnonzero(which).tolist()
    ]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    data = np.concatenate([*parts, np.empty(64, np.uint8)])
    return Batch(data, offsets, batch.senders[which], batch.arrivals_ns[which])


def unwrapped(t: NDArray[np.int64], last_us: int | None) -> tuple[NDArray[np.int64], int | None]:
    """Times of a 32-bit clock as times that go on beyond 2^32.

    Of two ways from one time to the next, the shorter one is taken: a datagram that overtook
    another across the wrap finds its place too.

    Args:
        t: int64 [N], 0 … 2^32−1.
        last_us: what the call before has returned.

    Returns:
        the times, and the last of them.
    """
    if not len(t):
        return t, last_us
    before = int(t[0]) if last_us is None else last_us
    step = np.diff(t, prepend=before % (1 << 32))
    step = (step + (1 << 31)) % (1 << 32) - (1 << 31)
    t = before + np.cumsum(step)
    return t, int(t[-1])
