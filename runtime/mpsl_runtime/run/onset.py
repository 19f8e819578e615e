"""Where something begins in a stream: more than N events within some milliseconds.

A network that was trained on recordings answers best when its window begins with what it sees.
`Windows` cuts a stream into such windows, each a recording of its own that begins with the first
event of the burst. What lies between them is counted as idle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.kept import Kept

__all__ = ["Background", "Onset", "OnsetCounts", "Windows"]

_LARGEST_MS = 60_000.0
# Of the background: a count so many standard deviations above its mean is no accident.
_DEVIATIONS = 6.0
_KEPT = 64


@dataclass(frozen=True)
class Onset:
    """More than `events` events within `span_us` microseconds begin a window.

    Attributes:
        events: N. span_us: the length they are counted over.
        automatic: N rises with the background, see `Background`.
    """

    events: int = 30
    span_us: int = 10_000
    automatic: bool = True

    @classmethod
    def parse(cls, text: str) -> Onset:
        """`auto`, or `N/MS` such as `30/10`.

        Raises:
            UsageError: neither.
        """
        if text == "auto":
            return cls()
        number, slash, span = text.partition("/")
        try:
            events, milliseconds = int(number), float(span)
        except ValueError:
            events, milliseconds = 0, math.nan
        if not (slash and 1 <= events < 1 << 31 and 0.001 <= milliseconds <= _LARGEST_MS):
            raise UsageError(
                "not an onset",
                got=repr(text),
                expected="auto, or N/MS: more than N events within MS milliseconds, such as 30/10",
                where="--onset",
            )
        return cls(events, round(milliseconds * 1000), automatic=False)

    def __str__(self) -> str:
        if self.automatic:
            return "auto"
        return f"{self.events}/{self.span_us / 1000:g}"


class Background:
    """How many events a span holds when nothing happens, learned from what began nothing.

    The threshold is `onset.events`, or the mean background and six standard deviations of a
    Poisson count above it, whichever is more.
    """

    def __init__(self, onset: Onset) -> None:
        self._onset = onset
        self._counts: deque[int] = deque(maxlen=_KEPT)

    @property
    def threshold(self) -> int:
        """More events than this within a span begin a window."""
        if not self._onset.automatic or not self._counts:
            return self._onset.events
        mean = sum(self._counts) / len(self._counts)
        return max(self._onset.events, math.ceil(mean + _DEVIATIONS * math.sqrt(mean)))

    @property
    def counts(self) -> list[int]:
        """What was learned, the latest last."""
        return list(self._counts)

    def learn(self, counts: NDArray[np.int64]) -> None:
        """Takes in the counts of spans that began nothing."""
        self._counts.extend(counts[-_KEPT:].tolist())


@dataclass
class OnsetCounts:
    """Totals of one stream. idle: events between windows; windows: that began."""

    idle: int = 0
    windows: int = 0


class Windows:
    """Cuts a stream into windows that begin where something begins; iterate over it once.

    Take what is in a window before the next one is asked for; what was not taken is skipped and
    counted as idle. Whenever a chunk is asked for, all of this may be kept.

    Yields trials that begin at the first event of the burst, under the stream's name.

    Args:
        recording: a stream; it is consumed as the windows are.
        onset: what begins a window. length_us: of every window.
        counts: is kept up to date.
        background: of this stream; given where the caller teaches it too.
    """

    def __init__(
        self,
        recording: Recording,
        onset: Onset,
        length_us: int,
        counts: OnsetCounts,
        background: Background | None = None,
    ) -> None:
        self._recording, self._onset, self._length_us = recording, onset, length_us
        self._counts = counts
        self._background = background or Background(onset)
        self._chunks = iter(recording.chunks)
        self._reached_us: int | None = None
        self._dropped = 0
        self._waiting = Events.empty()
        # Of the window that is being taken: where it ends; what follows is in `_waiting`.
        self._begin_us: int | None = None
        self._first: Events | None = None  # what it begins with, until it has been given
        self._items = self._run()

    def __iter__(self) -> Iterator[Recording]:
        return self._items

    @property
    def is_inside(self) -> bool:
        """A window has begun, and not ended."""
        return self._begin_us is not None

    def kept(self) -> dict[str, Any]:
        """All that the next windows depend on, for `mpsl_runtime.kept`."""
        return {
            "reached_us": self._reached_us,
            "dropped": self._dropped,
            "background": self._background.counts,
            "waiting": self._waiting.kept(),
            "begin_us": self._begin_us,
            "first": None if self._first is None else self._first.kept(),
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken, before it is iterated over; DataError where that cannot
        be. Where a window was being taken, the rest of it comes first."""
        for name in ("reached_us", "begin_us"):
            value = kept.integer(name, -(1 << 62)) if kept.is_there(name) else None
            setattr(self, f"_{name}", value)
        self._dropped = kept.integer("dropped")
        self._background.learn(np.array(kept.integers("background"), np.int64))
        self._waiting = Events.from_kept(kept.inner("waiting"))
        self._first = Events.from_kept(kept.inner("first")) if kept.is_there("first") else None

    def _run(self) -> Iterator[Recording]:
        if self._begin_us is not None:
            yield from self._window()
        while True:
            waiting = self._waiting
            start = _first_onset(waiting.t, self._onset.span_us, self._background.threshold)
            if start is None:
                self._forget()
                arrived = self._next()
                if arrived is None:
                    self._counts.idle += len(self._waiting)
                    self._waiting = Events.empty()
                    return
                self._waiting = _joined(self._waiting, arrived)
                continue
            self._counts.idle += start
            self._counts.windows += 1
            self._begin_us = int(waiting.t[start])
            cut_at = int(np.searchsorted(waiting.t, self._begin_us + self._length_us))
            self._first = waiting.slice(start, cut_at)
            self._waiting = waiting.slice(cut_at, len(waiting))
            yield from self._window()

    def _window(self) -> Iterator[Recording]:
        """The window that is being taken, or what is left of it."""
        chunks = self._draw()
        recording = self._recording
        yield Recording(
            recording.file, chunks, self._begin_us, trial=True, ceiling=recording.ceiling
        )
        for chunk in chunks:  # nobody took it
            self._counts.idle += len(chunk.events)
        self._begin_us = None

    def _draw(self) -> Iterator[Chunk]:
        """What belongs to the window; the last chunk says that time has reached its end."""
        end_us = (self._begin_us or 0) + self._length_us
        if self._first is not None:
            first, self._first = self._first, None
            yield self._chunk(first, end_us)
        while self._reached_us is None or self._reached_us < end_us:
            arrived = self._next()
            if arrived is None:
                return
            cut_at = int(np.searchsorted(arrived.t, end_us))
            self._waiting = arrived.slice(cut_at, len(arrived))
            yield self._chunk(arrived.slice(0, cut_at), end_us)

    def _chunk(self, events: Events, end_us: int) -> Chunk:
        dropped, self._dropped = self._dropped, 0
        reached_us = self._reached_us
        return Chunk(events, None if reached_us is None else min(reached_us, end_us), dropped)

    def _next(self) -> Events | None:
        """The next events, perhaps none of them; None after the last chunk."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return None
        self._dropped += chunk.dropped
        times = [chunk.reached_us, self._reached_us]
        times += [int(chunk.events.t[-1])] if len(chunk.events) else []
        self._reached_us = max((t for t in times if t is not None), default=None)
        return chunk.events

    def _forget(self) -> None:
        """Drops the events that can begin nothing any more: older than a span before now."""
        waiting, span_us = self._waiting, self._onset.span_us
        if self._reached_us is None or not len(waiting):
            return
        keep_from = int(np.searchsorted(waiting.t, self._reached_us - span_us, "right"))
        if keep_from and self._onset.automatic:
            edges = np.arange(int(waiting.t[0]), int(waiting.t[keep_from - 1]) + 1, span_us)
            edges = edges[-_KEPT - 1 :]
            self._background.learn(np.diff(np.searchsorted(waiting.t, edges)).astype(np.int64))
        self._counts.idle += keep_from
        self._waiting = waiting.slice(keep_from, len(waiting))


def _joined(first: Events, second: Events) -> Events:
    if not len(first):
        return second
    if not len(second):
        return first
    return replace(
        first,
        t=np.concatenate([first.t, second.t]),
        x=np.concatenate([first.x, second.x]),
        y=np.concatenate([first.y, second.y]),
        p=np.concatenate([first.p, second.p]),
    )


def _first_onset(t: NDArray[np.int64], span_us: int, threshold: int) -> int | None:
    """Index of the first event that begins a span with more than `threshold` events."""
    if len(t) <= threshold:
        return None
    found = np.flatnonzero(t[threshold:] - t[: len(t) - threshold] < span_us)
    return int(found[0]) if found.size else None
