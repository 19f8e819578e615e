"""What waits for one model: recordings, piece by piece, from the thread that reads to its own.

A belt is bounded. Files wait where it is full, since nobody loses anything by it; of a live source
the events that do not fit are dropped, and counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.source import LiveSource

__all__ = ["AbandonedError", "Belt", "Tap"]

_FULL = "queue of the model was full"
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
        events: that wait. lost: events that were dropped. taken: events that did come through.
        put_s: when what was taken last was put. turn: counts `clear` and `interrupt`.

    Args:
        largest: events that may wait. waits: a full belt stops the reader.
    """

    def __init__(self, largest: int, *, waits: bool) -> None:
        self.events = self.lost = self.taken = 0
        self.put_s = time.monotonic()
        self._largest, self._waits = largest, waits
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._current: Recording | None = None
        self._unsaid = 0  # lost events that no piece has told of yet
        self._is_closed = False
        self.turn = 0

    def begin(self, recording: Recording) -> None:
        """What is put next belongs to this one; its own chunks are not looked at."""
        self._put(_Item(begins=replace(recording, chunks=())))

    def put(self, chunk: Chunk) -> None:
        """A piece of the recording that has begun."""
        number = len(chunk.events)
        with self._changed:
            if self._waits:
                turn = self.turn
                self._changed.wait_for(
                    lambda: len(self._items) < _MOST_PIECES or self._is_closed or self.turn != turn
                )
                if self.turn != turn:
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
            self.turn += 1
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Whoever runs what is on the belt begins anew with what comes next; nothing is lost."""
        with self._changed:
            self.turn += 1
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
        self, turn: int, stopped: threading.Event, began: Callable[[], None]
    ) -> Iterator[Recording]:
        """The recordings from now on; one that is in the middle goes on as a stream.

        Args:
            turn: of the belt, when who asks was made; another one by now is as if it came then.
            stopped: ends them soon. began: called when one begins.

        Raises:
            AbandonedError: after `clear` or `interrupt`.
        """
        if self._current is not None and turn == self.turn:
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
            return bool(self._items) or self.turn != turn or self._is_closed or stopped.is_set()

        with self._changed:
            self._changed.wait_for(ready)
            if self.turn != turn:
                raise AbandonedError
            if stopped.is_set() or not self._items:
                return None
            item = self._items.popleft()
            if item.chunk is not None:
                self.events -= len(item.chunk.events)
                self.taken += len(item.chunk.events)
                self.put_s = item.put_s
            self._changed.notify_all()
            return item


class Tap(LiveSource):
    """A belt as a source, for the feed of a model: filters, view and counts are those of `live`.

    Args:
        belt: with its turn, when the settings were read.
        behind: the live source that fills the belt; what it has lost or ignored is counted here.
        began: called when a recording begins.
    """

    def __init__(
        self,
        name: str,
        options: SourceOptions,
        belt: tuple[Belt, int],
        behind: LiveSource | None,
        began: Callable[[], None],
    ) -> None:
        self._own: Counter[str] = Counter()
        (self._belt, self._turn), self._behind, self._began = belt, behind, began
        super().__init__(Address(name, "belt", "", 0, "", {}), options)
        if behind is not None:
            self.ignored = behind.ignored

    @property
    def losses(self) -> Counter[str]:
        """Those before the belt, at it, and behind it."""
        found = Counter(dict(self._own))
        if self._behind is not None:
            found.update(dict(self._behind.losses))
        if self._belt.lost:
            found[_FULL] += self._belt.lost
        return found

    @losses.setter
    def losses(self, counts: Counter[str]) -> None:
        self._own = counts

    @property
    def waiting(self) -> int | None:
        behind = None if self._behind is None else self._behind.waiting
        return self._belt.events + (behind or 0)

    def lose(self, cause: str, number: int) -> int:
        if number > 0:
            self._own[cause] += number
        return number

    def lost_behind(self) -> int:
        """Events that had come through the belt, and were lost then."""
        return sum(self._own.values())

    def count_on(self, before: Tap) -> None:
        """Counts on where another tap of this belt has ended."""
        self._own = before._own

    def open(self) -> None:
        """There is nothing to open."""

    def stop(self) -> None:
        super().stop()
        self._belt.wake()

    def recordings(self) -> Iterator[Recording]:
        return self._belt.recordings(self._turn, self._stop, self._began)
