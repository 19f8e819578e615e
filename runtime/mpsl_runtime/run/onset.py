"""Where something begins in a stream: more than N events within some milliseconds.

A network that was trained on recordings answers best when its window begins with what it sees.
`windows` cuts a stream into such windows, each a recording of its own that begins with the first
event of the burst. What lies between them is counted as idle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording

__all__ = ["Background", "Onset", "OnsetCounts", "windows"]

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

    def learn(self, counts: NDArray[np.int64]) -> None:
        """Takes in the counts of spans that began nothing."""
        self._counts.extend(counts[-_KEPT:].tolist())


@dataclass
class OnsetCounts:
    """Totals of one stream. idle: events between windows; windows: that began."""

    idle: int = 0
    windows: int = 0


class _Supply:
    """Chunks of a recording, from which windows are taken piece by piece."""

    def __init__(self, recording: Recording) -> None:
        self._chunks = iter(recording.chunks)
        self.reached_us: int | None = None
        self.dropped = 0
        self.ended = False

    def next(self) -> Events | None:
        """The next events, perhaps none of them; None after the last chunk."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self.ended = True
            return None
        self.dropped += chunk.dropped
        times = [chunk.reached_us] if chunk.reached_us is not None else []
        times += [int(chunk.events.t[-1])] if len(chunk.events) else []
        times += [self.reached_us] if self.reached_us is not None else []
        self.reached_us = max(times, default=None)
        return chunk.events

    def lost(self) -> int:
        """Events lost since this was asked last."""
        dropped, self.dropped = self.dropped, 0
        return dropped


def windows(
    recording: Recording,
    onset: Onset,
    length_us: int,
    counts: OnsetCounts,
    background: Background | None = None,
) -> Iterator[Recording]:
    """Cuts a stream into windows that begin where something begins.

    Take what is in a window before the next one is asked for; what was not taken is skipped and
    counted as idle.

    Args:
        recording: a stream; it is consumed as the windows are.
        onset: what begins a window. length_us: of every window.
        counts: is kept up to date.
        background: of this stream; given where the caller teaches it too.

    Yields:
        trials that begin at the first event of the burst, under the stream's name.
    """
    background = background or Background(onset)
    supply = _Supply(recording)
    waiting = Events.empty()
    while True:
        start = _first_onset(waiting.t, onset.span_us, background.threshold)
        if start is None:
            waiting = _forget(waiting, supply, onset, counts, background)
            arrived = supply.next()
            if arrived is None:
                counts.idle += len(waiting)
                return
            waiting = _joined(waiting, arrived)
            continue
        counts.idle += start
        waiting = waiting.slice(start, len(waiting))
        begin_us = int(waiting.t[0])
        counts.windows += 1
        window = _Window(waiting, supply, begin_us + length_us)
        yield Recording(
            recording.file, window.chunks, begin_us, trial=True, ceiling=recording.ceiling
        )
        waiting = window.skip(counts)


class _Window:
    """The events of one window, drawn from the stream as they come."""

    def __init__(self, waiting: Events, supply: _Supply, end_us: int) -> None:
        self._supply, self._end_us = supply, end_us
        self._left = Events.empty()
        self.chunks = self._draw(waiting)

    def _draw(self, waiting: Events) -> Iterator[Chunk]:
        """What belongs to the window; the last chunk says that time has reached its end."""
        arrived: Events | None = waiting
        while arrived is not None:
            cut_at = int(np.searchsorted(arrived.t, self._end_us))
            self._left = arrived.slice(cut_at, len(arrived))
            reached = self._supply.reached_us
            over = reached is not None and reached >= self._end_us
            yield Chunk(
                arrived.slice(0, cut_at),
                None if reached is None else min(reached, self._end_us),
                self._supply.lost(),
            )
            if over:
                return
            arrived = self._supply.next()

    def skip(self, counts: OnsetCounts) -> Events:
        """Passes over what nobody took; returns the events behind the window."""
        for chunk in self.chunks:
            counts.idle += len(chunk.events)
        return self._left


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


def _forget(
    waiting: Events, supply: _Supply, onset: Onset, counts: OnsetCounts, background: Background
) -> Events:
    """Drops the events that can begin nothing any more: older than a span before now."""
    if supply.reached_us is None or not len(waiting):
        return waiting
    keep_from = int(np.searchsorted(waiting.t, supply.reached_us - onset.span_us, "right"))
    if keep_from and onset.automatic:
        edges = np.arange(int(waiting.t[0]), int(waiting.t[keep_from - 1]) + 1, onset.span_us)
        edges = edges[-_KEPT - 1 :]
        background.learn(np.diff(np.searchsorted(waiting.t, edges)).astype(np.int64))
    counts.idle += keep_from
    return waiting.slice(keep_from, len(waiting))
