"""What waits for one model: recordings, piece by piece, from the thread that reads to its own.

A belt is bounded. Files wait where it is full, since nobody loses anything by it; of a live source
the events that do not fit are dropped, and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.source import LiveSource

__all__ = ["AbandonedError", "Belt", "Tap"]

# Of a file: enough to go on with while the reader is busy, and no more to throw away at a jump.
_MOST_PIECES = 16


class AbandonedError(Exception):
    """What was being run is not to be finished: other settings, or another place of the file."""


@dataclass(frozen=True, eq=False)
class _Item:
    """A recording that begins, a piece of it, or its end (neither)."""

    begins: Recording | None = None
    chunk: Chunk | None = None
    put_s: float = 0.0


class Belt:
    """See the module.

    Attributes:
        events: that wait. lost: events that were dropped. put_s: when what was taken last was put.

    Args:
        largest: events that may wait. waits: a full belt stops the reader.
    """

    def __init__(self, largest: int, *, waits: bool) -> None:
        self.events = self.lost = 0
        self.put_s = time.monotonic()
        self._largest, self._waits = largest, waits
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._current: Recording | None = None
        self._unsaid = 0  # lost events that no piece has told of yet
        self._is_closed = False
        self._turn = 0

    def begin(self, recording: Recording) -> None:
        """What is put next belongs to this one; its own chunks are not looked at."""
        self._put(_Item(begins=replace(recording, chunks=())))

    def put(self, chunk: Chunk) -> None:
        """A piece of the recording that has begun."""
        number = len(chunk.events)
        with self._changed:
            if self._waits:
                turn = self._turn
                self._changed.wait_for(
                    lambda: len(self._items) < _MOST_PIECES or self._is_closed or self._turn != turn
                )
                if self._turn != turn:
                    return
            elif self.events and self.events + number > self._largest:
                self.lost += number
                self._unsaid += number
                return
            if self._unsaid:
                chunk = replace(chunk, dropped=chunk.dropped + self._unsaid)
                self._unsaid = 0
            self.events += number
        self._put(_Item(chunk=chunk, put_s=time.monotonic()))

    def end(self) -> None:
        """The recording has ended."""
        self._put(_Item())

    def clear(self) -> None:
        """Forgets what waits: another place of the file, or another one, comes next."""
        with self._changed:
            self._items.clear()
            self.events = 0
            self._current = None
            self._turn += 1
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Whoever runs what is on the belt begins anew with what comes next; nothing is lost."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def wake(self) -> None:
        """Whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _put(self, item: _Item) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def recordings(
        self, stopped: threading.Event, began: Callable[[], None]
    ) -> Iterator[Recording]:
        """The recordings from now on; one that is in the middle goes on as a stream.

        Args:
            stopped: ends them soon. began: called when one begins.

        Raises:
            AbandonedError: after `clear` or `interrupt`.
        """
        turn = self._turn
        if self._current is not None:
            rest = replace(self._current, origin_us=None, trial=False)
            yield replace(rest, chunks=self._chunks(turn, stopped))
        while (item := self._take(turn, stopped)) is not None:
            if item.begins is not None:
                self._current = item.begins
                began()
                yield replace(item.begins, chunks=self._chunks(turn, stopped))

    def _chunks(self, turn: int, stopped: threading.Event) -> Iterator[Chunk]:
        while (item := self._take(turn, stopped)) is not None:
            if item.chunk is None:
                self._current = None
                return
            yield item.chunk

    def _take(self, turn: int, stopped: threading.Event) -> _Item | None:
        """The next item; None where nothing more comes."""

        def ready() -> bool:
            return bool(self._items) or self._turn != turn or self._is_closed or stopped.is_set()

        with self._changed:
            self._changed.wait_for(ready)
            if self._turn != turn:
                raise AbandonedError
            if stopped.is_set() or not self._items:
                return None
            item = self._items.popleft()
            if item.chunk is not None:
                self.events -= len(item.chunk.events)
                self.put_s = item.put_s
            self._changed.notify_all()
            return item


class Tap(LiveSource):
    """A belt as a source, for the feed of a model: filters, view and counts are those of `live`."""

    def __init__(
        self, name: str, options: SourceOptions, belt: Belt, began: Callable[[], None]
    ) -> None:
        super().__init__(Address(name, "belt", "", 0, "", {}), options)
        self._belt, self._began = belt, began

    def open(self) -> None:
        """There is nothing to open."""

    def stop(self) -> None:
        super().stop()
        self._belt.wake()

    def recordings(self) -> Iterator[Recording]:
        return self._belt.recordings(self._stop, self._began)
