"""A live source that gives pieces as they come, and recordings out of them; it may be kept.

Pieces are the beginning of a recording, chunks of it, and its end. What was received and not yet
asked for waits here, so that a state that is kept loses none of it.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.pieces import Begin, End
from mpsl_runtime.live.source import LONGEST_GAP_US, LiveSource

__all__ = ["FlowingSource", "Piece"]

Piece = Begin | Chunk | End


class FlowingSource(LiveSource):
    """See the module."""

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        self._ready: deque[Piece] = deque()
        self._open: Begin | None = None
        self._is_over = self._is_last = False

    @abstractmethod
    def begin(self) -> None:
        """Called once, when the first recording is asked for; the source is open."""

    @abstractmethod
    def arrived(self) -> Iterable[Piece] | None:
        """Waits a little for the next pieces; None where no more will come."""

    @abstractmethod
    def rest(self) -> Iterable[Piece]:
        """What is left when no more will come, and is not to go on later."""

    @property
    def goes_on(self) -> bool:
        return self._open is not None

    def recordings(self) -> Iterator[Recording]:
        with self:
            self.begin()
            while self._find_begin():
                chunks = self._chunks()
                begin = self._open or Begin(None, False, (0, 0))
                yield Recording(self.name, chunks, begin.origin_us, begin.trial)
                deque(chunks, maxlen=0)  # whoever goes on has done with this one
                if self._open is not None or (self._is_last and not self.options.serve):
                    return

    def _find_begin(self) -> bool:
        while self._open is None:
            piece = self._next()
            if piece is None:
                return False
            if isinstance(piece, Begin):
                self._open = piece
        return True

    def _chunks(self) -> Iterator[Chunk]:
        """Up to the end of the recording; or to where the source was suspended, within it."""
        while True:
            piece = self._next()
            if isinstance(piece, Chunk):
                yield piece
                continue
            if piece is not None or not self._is_suspended:
                self._open = None
                self._is_last = isinstance(piece, End) and piece.last
            return

    def _next(self) -> Piece | None:
        while not self._ready:
            if self._is_over:
                return None
            self.awake_s = time.monotonic()
            pieces = None if self._stop.is_set() else self.arrived()
            if pieces is None:
                self._is_over = True
                pieces = () if self._is_suspended else self.rest()
            self._ready.extend(pieces)
        return self._ready.popleft()

    def kept(self) -> dict[str, Any]:
        return {
            **super().kept(),
            "open": None if self._open is None else _kept(self._open),
            "ready": [_kept(piece) for piece in self._ready],
        }

    def restore(self, kept: Kept) -> None:
        super().restore(kept)
        opened = _piece(kept.inner("open")) if kept.is_there("open") else None
        if isinstance(opened, Chunk | End):
            raise DataError("state is damaged", got="no begin", where=kept.where)
        self._open = opened
        self._ready = deque(map(_piece, kept.each("ready")))


def _kept(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Chunk):
        events = piece.events.kept()
        return {"events": events, "reached_us": piece.reached_us, "dropped": piece.dropped}
    return dict(piece.__dict__)


def _piece(kept: Kept) -> Piece:
    def time_us(name: str) -> int | None:
        return kept.integer(name, -(1 << 62)) if kept.is_there(name) else None

    if kept.is_there("events"):
        events = Events.from_kept(kept.inner("events"))
        return Chunk(events, time_us("reached_us"), kept.integer("dropped"))
    if kept.is_there("last"):
        return End(kept.boolean("last"))
    return Begin(time_us("origin_us"), kept.boolean("trial"), kept.size("size"))
