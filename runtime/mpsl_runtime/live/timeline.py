"""Events of sources that number nothing: their times alone say what belongs together.

Pieces (datagrams, packets of a driver) that overtook others are put in order within `reorder_s` of
their arrival, which is how long every event then waits. Events that come later than that are lost,
counted. Time that falls by a second, or that rises by more than `gap_us`, begins a new recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.flow import Piece
from mpsl_runtime.live.pieces import Begin, End
from mpsl_runtime.live.source import LiveSource

__all__ = ["Arrival", "Timeline"]

_SMALLEST_FALL_US = 1_000_000


@dataclass(frozen=True, eq=False)
class Arrival:
    """Pieces that arrived together, at `seconds`; nothing has, where there are no events.

    Attributes:
        events: of all of them, one behind the other.
        edges: int64 [m+1], where each begins; None is one piece.
    """

    events: Events
    seconds: float
    edges: NDArray[np.int64] | None = None


class Timeline:
    """See the module.

    Args:
        source: where it is counted.
        reorder_s, gap_us: see the module.
    """

    def __init__(self, source: LiveSource, *, reorder_s: float, gap_us: int) -> None:
        self._source = source
        self._reorder_s, self._gap_us = reorder_s, gap_us
        self._held: list[tuple[float, Events]] = []
        self._seen_us: int | None = None  # last time of the last piece
        self._reached_us: int | None = None  # last time that was given
        self._is_open = False

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        return {
            "seen_us": self._seen_us,
            "reached_us": self._reached_us,
            "is_open": self._is_open,
            "held": [events.kept() for _, events in self._held],
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken; DataError where that cannot be."""
        for name in ("seen_us", "reached_us"):
            value = kept.integer(name, -(1 << 62)) if kept.is_there(name) else None
            setattr(self, f"_{name}", value)
        self._is_open = kept.boolean("is_open")
        # Held no longer: those that they wait for were sent while nothing ran.
        self._held = [(-math.inf, Events.from_kept(events)) for events in kept.each("held")]

    def take(self, arrival: Arrival) -> Iterator[Piece]:
        """What becomes of events that have arrived: chunks in time order, and where recordings
        begin and end."""
        for start, stop, is_jump in self._segments(arrival):
            if is_jump:
                self._source.resynchronise("the sender's clock has jumped")
                yield from self.finish()
                self._reached_us = None
            self._held.append((arrival.seconds, arrival.events.slice(start, stop)))
        yield from self._release(arrival.seconds)

    def finish(self) -> Iterator[Piece]:
        """Nothing more comes, or something else."""
        yield from self._release(None)
        if self._is_open:
            self._is_open = False
            yield End(last=False)

    def _segments(self, arrival: Arrival) -> Iterator[tuple[int, int, bool]]:
        """(start, stop, whether time has jumped before it)."""
        t = arrival.events.t
        if not len(t):
            return
        edges = arrival.edges
        starts = np.zeros(1, np.int64) if edges is None else edges[:-1][np.diff(edges) > 0]
        stops = np.append(starts[1:], len(t))
        first, last = t[starts], t[stops - 1]
        before = np.concatenate([[first[0] if self._seen_us is None else self._seen_us], last[:-1]])
        jumps = (before - first >= _SMALLEST_FALL_US) | (first - before > self._gap_us)
        self._seen_us = int(last[-1])
        begins = np.flatnonzero(jumps)
        cuts = starts[begins].tolist()
        if not jumps[0]:
            yield 0, cuts[0] if cuts else len(t), False
        for k, cut in enumerate(cuts):
            yield cut, cuts[k + 1] if k + 1 < len(cuts) else len(t), True

    def _release(self, now_s: float | None) -> Iterator[Piece]:
        """What has waited long enough, and all that is no later than it."""
        due = [
            events
            for seconds, events in self._held
            if now_s is None or seconds <= now_s - self._reorder_s
        ]
        if not due:
            return
        until_us = max(int(events.t.max()) for events in due)
        kept: list[tuple[float, Events]] = []
        for seconds, events in self._held[len(due) :]:
            early = events.t <= until_us
            if early.all():
                due.append(events)
            elif early.any():
                due.append(_where(events, early))
                kept.append((seconds, _where(events, ~early)))
            else:
                kept.append((seconds, events))
        self._held = kept
        if not self._is_open:
            self._is_open = True
            yield Begin(None, False, (0, 0))
        yield self._in_order(due)

    def _in_order(self, pieces: list[Events]) -> Chunk:
        t, x, y, p = (
            np.concatenate([getattr(events, name) for events in pieces]) for name in "txyp"
        )
        if (t[1:] < t[:-1]).any():
            place = np.argsort(t, kind="stable")
            t, x, y, p = t[place], x[place], y[place], p[place]
        late = 0
        if self._reached_us is not None:
            late = int(np.searchsorted(t, self._reached_us))
            self._source.lose("later than those after them", late)
        if len(t):
            self._reached_us = max(int(t[-1]), self._reached_us or int(t[-1]))
        return Chunk(
            Events(t[late:], x[late:], y[late:], p[late:], pieces[0].sensor_size), None, late
        )


def _where(events: Events, which: NDArray[np.bool_]) -> Events:
    return Events(
        events.t[which], events.x[which], events.y[which], events.p[which], events.sensor_size
    )
