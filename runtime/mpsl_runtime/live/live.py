"""Events from a UDP socket: our own blocking socket, a thread, a bounded queue.

The thread only receives, checks and queues; the network runs in the caller. When the caller is
too slow the queue drops its oldest events and counts them: a decision about now is worth more than
a complete one about the past. The format is that of `mpsl_runtime.live.datagram`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from urllib.parse import urlsplit

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.datagram import END, LAST, ORIGIN, TRIAL, Datagram, decode

__all__ = ["UdpSource", "parse_address"]

LONGEST_GAP_US = 60_000_000
# A sender that has been silent for so long may be replaced in the middle of a recording.
_SENDER_SILENT_S = 2.0
_RECEIVE_BUFFER_BYTES = 8 << 20


def parse_address(address: str) -> tuple[str, int]:
    """(host, port) of `udp://host:port`; UsageError for anything else."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme != "udp" or not host or port is None or parts.path not in ("", "/"):
        raise UsageError("not a live address", got=repr(address), expected="udp://host:port")
    return host, port


@dataclass(frozen=True, eq=False)
class _Item:
    datagram: Datagram
    dropped: int


class UdpSource:
    """Listens at an address. Use it in a `with`, or let `recordings` open and close it.

    Attributes:
        received: datagrams taken in; lost: datagrams that the sequence numbers miss.
        ignored: datagrams that were no use, counted by reason.
        dropped: events lost, in the network or by the queue.

    Args:
        address: `udp://host:port`; port 0 lets the system choose, see `address`.
        sensor_size: (width, height) of the model's sensor; events outside it are ignored.
        largest_queue: events that may wait.
        timeout_s: end after so long without a datagram; None waits for ever.
        on_ignored: called with the reason when the first datagram is ignored for it.

    Raises:
        UsageError: the address cannot be meant. On opening, DataError: nobody can listen there.
    """

    def __init__(
        self,
        address: str,
        *,
        sensor_size: tuple[int, int],
        largest_queue: int = 1_000_000,
        timeout_s: float | None = None,
        on_ignored: Callable[[str], None] | None = None,
    ) -> None:
        self.host, self.port = parse_address(address)
        self._name = address
        self._sensor_size = sensor_size
        self._largest_queue = max(1, largest_queue)
        self._timeout_s = timeout_s
        self._on_ignored = on_ignored
        self.received = self.lost = self.dropped = 0
        self.ignored: Counter[str] = Counter()
        self._queue: deque[_Item] = deque()
        self._waiting_events = 0
        self._carried = 0
        self._condition = threading.Condition()
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._sender: tuple[object, ...] | None = None
        self._heard_s = 0.0
        self._current: Datagram | None = None
        self._finished: int | None = None
        self._reached_us = 0
        self._ahead: _Item | None = None

    def __enter__(self) -> UdpSource:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"udp://{host}:{self.port}"

    def open(self) -> None:
        """Begins to listen; does nothing when it does already."""
        if self._socket is not None:
            return
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
        except OSError as error:
            raise DataError(
                "cannot listen", got=error.strerror or error, where=self._name
            ) from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            listening.bind(place)
        except (OSError, OverflowError) as error:
            listening.close()
            why = getattr(error, "strerror", None) or error
            raise DataError("cannot listen", got=why, where=self._name) from error
        self.port = int(listening.getsockname()[1])
        listening.settimeout(0.2)  # only to see `close`; a datagram wakes it at once
        self._socket = listening
        self._thread = threading.Thread(target=self._receive, name="mpsl-udp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; what waits in the queue is let go."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._socket is not None:
            self._socket.close()

    # The receiving thread

    def _receive(self) -> None:
        listening = self._socket
        while listening is not None and not self._stop.is_set():
            try:
                data, sender = listening.recvfrom(65536)
            except TimeoutError:
                continue
            except OSError:
                if self._stop.is_set():
                    return
                continue  # an ICMP error of another socket is none of ours
            self._take(data, sender)

    def _take(self, data: bytes, sender: tuple[object, ...]) -> None:
        try:
            datagram = decode(data)
            missing = self._check(datagram, sender)
        except DataError as error:
            reason = str(error)
            self.ignored[reason] += 1
            if self.ignored[reason] == 1 and self._on_ignored is not None:
                self._on_ignored(reason)
            return
        if missing is None:
            return
        self.received += 1
        with self._condition:
            self._put(_Item(datagram, missing))
            self._condition.notify()

    def _check(self, datagram: Datagram, sender: tuple[object, ...]) -> int | None:
        """Holds a datagram against those before; returns the events that were lost in between,
        or None for a repeated END."""
        current = self._current
        now_s = time.monotonic()
        heard = now_s - self._heard_s < _SENDER_SILENT_S
        if current is not None and sender != self._sender and heard:
            raise DataError("another sender during a recording")
        if datagram.recording == self._finished:
            if datagram.flags & END:
                return None
            raise DataError("late or repeated datagram")
        size = (datagram.width, datagram.height)
        if size not in ((0, 0), self._sensor_size):
            raise DataError(
                "datagram from another sensor",
                got=f"{size[0]}x{size[1]}",
                expected=f"{self._sensor_size[0]}x{self._sensor_size[1]}",
            )
        events = datagram.events
        if len(events) and (
            int(events.x.max()) >= self._sensor_size[0]
            or int(events.y.max()) >= self._sensor_size[1]
        ):
            raise DataError("event of a datagram outside the sensor")
        last_us = int(events.t[-1]) if len(events) else datagram.time_us
        missing = 0
        if current is None or datagram.recording != current.recording:
            origin_us = datagram.origin_us if datagram.flags & ORIGIN else datagram.time_us
            if not 0 <= last_us - origin_us <= LONGEST_GAP_US or datagram.time_us < origin_us:
                raise DataError("datagram out of time")
            # Whoever begins to listen in the middle has not lost what came before.
            if self._finished is not None or current is not None:
                self.lost += datagram.sequence
                missing = datagram.first_event
        else:
            if datagram.sequence <= current.sequence:
                raise DataError("late or repeated datagram")
            if datagram.time_us < self._reached_us:
                raise DataError("datagram runs backwards in time")
            if last_us - self._reached_us > LONGEST_GAP_US:
                raise DataError("datagram out of time")
            self.lost += datagram.sequence - current.sequence - 1
            missing = datagram.first_event - current.first_event - len(current.events)
        self._reached_us = last_us
        self._sender, self._heard_s = sender, now_s
        self._current = datagram
        if datagram.flags & END:
            self._finished, self._current = datagram.recording, None
        return max(0, missing)

    def _put(self, item: _Item) -> None:
        """Queues an item; the oldest make room for it, their events are counted as dropped."""
        self.dropped += item.dropped
        self._queue.append(item)
        self._waiting_events += len(item.datagram.events) + 1
        while self._waiting_events > self._largest_queue and len(self._queue) > 1:
            oldest = self._queue.popleft()
            number = len(oldest.datagram.events)
            self._waiting_events -= number + 1
            self._carried += number + oldest.dropped
            self.dropped += number

    # The caller's thread

    def _get(self) -> _Item | None:
        """The next item; None when nothing more comes."""
        if self._ahead is not None:
            item, self._ahead = self._ahead, None
            return item
        end = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        with self._condition:
            while not self._queue:
                left = 0.5 if end is None else end - time.monotonic()
                if left <= 0 or self._stop.is_set():
                    return None
                self._condition.wait(min(left, 0.5))  # Ctrl-C must come through
            item = self._queue.popleft()
            self._waiting_events -= len(item.datagram.events) + 1
            item = replace(item, dropped=item.dropped + self._carried)
            self._carried = 0
        return item

    def recordings(self) -> Iterator[Recording]:
        """The recordings as they arrive, until LAST, the timeout or `close`."""
        with self:
            while True:
                first = self._get()
                if first is None:
                    return
                origin_us = first.datagram.origin_us if first.datagram.flags & ORIGIN else None
                trial = bool(first.datagram.flags & TRIAL)
                rest = _Rest()
                chunks = self._chunks(first, rest)
                yield Recording(self._name, chunks, origin_us, trial)
                deque(chunks, maxlen=0)  # whoever goes on has done with this one
                if rest.last:
                    return

    def _chunks(self, item: _Item, rest: _Rest) -> Iterator[Chunk]:
        """The events of one recording, the first item of which has been taken already."""
        recording = item.datagram.recording
        while True:
            datagram = item.datagram
            yield Chunk(datagram.events, datagram.time_us, item.dropped)
            if datagram.flags & END:
                rest.last = bool(datagram.flags & LAST)
                return
            following = self._get()
            if following is None:
                rest.last = True
                return
            if following.datagram.recording != recording:
                self._ahead = following
                return
            item = following


class _Rest:
    """Whether anything follows a recording; known when its chunks have ended."""

    last = False
