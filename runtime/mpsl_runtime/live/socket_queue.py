"""A UDP socket, and what waits there, taken together.

The receiving thread is the native module's (`DatagramQueue`): it takes waiting datagrams with one
system call, and no lock of the interpreter can make it late. When the caller is too slow the queue
drops its oldest datagrams and counts their events: a decision about now is worth more than a
complete one about the past.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError

__all__ = ["Batch", "EventCount", "SocketQueue"]

EventCount = Literal["mpsl", "bytes8", "bytes13", "spif"]
_RECEIVE_BUFFER_BYTES = 8 << 20
_BYTES_PER_EVENT = 16  # in the queue, with room for headers
_SMALLEST_QUEUE_BYTES = 1 << 18
# Of one batch: what is made of it is some ten times larger.
_LARGEST_BATCH, _LARGEST_BATCH_BYTES = 2048, 1 << 21
_SO_RCVBUFFORCE = 33  # Linux; for root


@dataclass(frozen=True, eq=False)
class Batch:
    """Datagrams that waited together.

    Attributes:
        data: uint8, one behind the other, and some spare bytes.
        offsets: int64 [n+1]; datagram i is `data[offsets[i]:offsets[i+1]]`.
        senders: uint64 [n], equal for equal addresses.
        arrivals_ns: int64 [n], by `time.monotonic_ns`.
        dropped_events, dropped_datagrams: that the queue let go since the batch before.
        unseen: datagrams since then that the system's own buffer had no room for.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    senders: NDArray[np.uint64]
    arrivals_ns: NDArray[np.int64]
    dropped_events: int = 0
    dropped_datagrams: int = 0
    unseen: int = 0

    def __len__(self) -> int:
        return len(self.senders)


class SocketQueue:
    """Listens; `take` gives what has come.

    Attributes:
        port: where it listens, also when the system chose it.

    Args:
        host, port: where to listen.
        rule: how events of a datagram are counted.
        largest_events: that may wait (a datagram counts as one more).
        name: for messages.

    Raises:
        DataError: nobody can listen there.
    """

    def __init__(
        self, host: str, port: int, rule: EventCount, largest_events: int, name: str
    ) -> None:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError("cannot listen", got=why, where=name) from error
        try:
            self._enlarge()
            self._socket.bind(place)
            self._socket.setblocking(False)
            self.port = int(self._socket.getsockname()[1])
            size = max(_SMALLEST_QUEUE_BYTES, largest_events * _BYTES_PER_EVENT)
            self._queue = _native.DatagramQueue(self._socket.fileno(), size, largest_events, rule)
        except (OSError, OverflowError, ValueError) as error:
            self._socket.close()
            why = getattr(error, "strerror", None) or error
            raise DataError("cannot listen", got=why, where=name) from error
        self._dropped = (0, 0, 0)

    def _enlarge(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        try:  # beyond net.core.rmem_max, which a user may not
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except OSError:
            return

    def take(self, timeout_s: float) -> Batch | None:
        """What waits; None where nothing comes within `timeout_s`."""
        waiting, size = self._queue.wait(max(0, round(timeout_s * 1000)))
        if not waiting:
            return None
        number = min(waiting, _LARGEST_BATCH)
        size = min(size, _LARGEST_BATCH_BYTES)
        data = np.empty(size + 64, np.uint8)
        offsets = np.empty(number + 1, np.int64)
        senders = np.empty(number, np.uint64)
        arrivals_ns = np.empty(number, np.int64)
        number = self._queue.take(data[:size], offsets, senders, arrivals_ns)
        _, datagrams, events, unseen = self._queue.counters()
        before, self._dropped = self._dropped, (events, datagrams, unseen)
        return Batch(
            data,
            offsets[: number + 1],
            senders[:number],
            arrivals_ns[:number],
            events - before[0],
            datagrams - before[1],
            unseen - before[2],
        )

    @property
    def waiting_events(self) -> int:
        """Events in the queue."""
        return self._queue.waiting_events()

    def close(self) -> None:
        """Ends the thread and closes the socket."""
        self._queue.stop()
        self._socket.close()
