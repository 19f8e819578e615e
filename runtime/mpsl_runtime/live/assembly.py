"""Our datagrams, put in order: what overtook others waits, what begins anew is taken as that.

The rules, for datagrams that follow one sender (compare RFC 3550, appendix A.1):

- A datagram with the expected number goes on at once. Later numbers wait, at most `reorder_s`, for
  those that they have overtaken; then these are counted as lost.
- Time that falls by a second, or stands still for longer than `gap_us`, begins a new recording: the
  clock has jumped or wrapped. Smaller falls lose the events that come late, counted.
- Numbers from before are late or repeated; four of them in a row, or a whole recording, are a
  sender that has started again. Two in a row from another sender take over from one that has been
  silent for two seconds; until then they are ignored.

Nothing here knows a socket or a clock: the time of arrival comes with the datagrams.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import numpy as np

from mpsl_runtime.kept import Kept
from mpsl_runtime.live.arrivals import Arrivals, Item
from mpsl_runtime.live.datagram import (
    END,
    LARGEST_COUNT,
    LAST,
    ORIGIN,
    TRIAL,
    faults,
    read_headers,
)
from mpsl_runtime.live.pieces import Begin, Data, End, Output, Report
from mpsl_runtime.live.socket_queue import Batch

__all__ = ["Assembler"]

SENDER_SILENT_S = 2.0
_SMALLEST_FALL_US = 1_000_000
_MOST_WAITING = 4096
_MOST_STRANGE = 16
_IN_A_ROW_SAME, _IN_A_ROW_OTHER = 4, 2
_LATE = "late or repeated datagram"
# What is kept of where it stands.
_FLAGS = ("is_open", "has_begun", "has_spoken", "is_last", "joined")
_NUMBERS = (
    *("sender", "own", "recording", "previous", "next", "next_event", "reached_us", "missing"),
)


def _distance(a: int, b: int) -> int:
    """a − b for numbers that wrap at 2^32."""
    return (a - b + (1 << 31)) % (1 << 32) - (1 << 31)


class Assembler:
    """See the module.

    Attributes:
        lost: datagrams that never came.

    Args:
        report: where it is counted.
        reorder_s: how long later numbers wait; gap_us: longest time without events.
    """

    def __init__(self, report: Report, *, reorder_s: float, gap_us: int) -> None:
        self.lost = 0
        self._report = report
        self._reorder_s, self._gap_us = reorder_s, gap_us
        self._sender: int | None = None
        self._own: int | None = None  # whose LAST ends the run
        self._heard_s = 0.0
        self._recording = self._previous = -1
        self._is_open = self._has_begun = self._has_spoken = self._is_last = False
        self._joined = True
        self._next = self._next_event = 0
        self._reached_us = 0
        self._size = (0, 0)
        self._waiting: dict[int, Item] = {}
        self._ahead: list[Item] = []
        self._strange: list[Item] = []
        self._missing = 0
        # Events that this machine has let go before what is looked at now, or at most so many.
        self._in_queue = self._in_system = 0
        # What is missing came while nothing ran.
        self._is_resumed = False

    def kept(self) -> dict[str, Any]:
        """Where it stands, for `mpsl_runtime.kept`; what waits for others is not among it, and is
        counted with all that is not there when it goes on."""
        return {name: getattr(self, f"_{name}") for name in (*_FLAGS, *_NUMBERS)} | {
            "size": list(self._size)
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken; DataError where that cannot be."""
        for name in _FLAGS:
            setattr(self, f"_{name}", kept.boolean(name))
        for name in _NUMBERS:
            value = kept.integer(name, -1, 1 << 64) if kept.is_there(name) else None
            setattr(self, f"_{name}", value)
        self._size, self._is_resumed = kept.size("size"), self._is_open

    @property
    def heard_s(self) -> float:
        """When a datagram of use has come."""
        return self._heard_s

    @property
    def is_waiting(self) -> bool:
        """Whether datagrams wait for others, so that `idle` has something to do."""
        return bool(self._waiting or self._ahead)

    def take(self, batch: Batch) -> Iterator[Output]:
        """Takes in what has come."""
        self._in_queue += batch.dropped_events
        self._in_system += batch.unseen * LARGEST_COUNT
        sizes = np.diff(batch.offsets)
        headers = read_headers(batch.data, batch.offsets)
        good = np.ones(len(batch), np.bool_)
        for reason, which in faults(headers, sizes):
            if which.any():
                self._report.ignore(reason, int(which.sum()))
                good &= ~which
        index = np.flatnonzero(good)
        if not len(index):
            return
        seen = Arrivals(batch, headers[index], index, self._gap_us)
        for first, stop in seen.rows():
            yield from self._row(seen, first, stop)
        # All of that was before the end of this batch: its gaps have been seen.
        self._in_queue = self._in_system = 0

    def idle(self, now_s: float) -> Iterator[Output]:
        """Gives up waiting where it has been long enough."""
        while self.is_waiting:
            oldest = [*islice(self._waiting.values(), 1), *self._ahead[:1]]
            if now_s - min(item.arrival_s for item in oldest) < self._reorder_s:
                return
            yield from self._give_up()

    def finish(self) -> Iterator[Output]:
        """Nothing more comes."""
        while self.is_waiting:
            yield from self._give_up()
        self._forget_strange()
        if self._is_open:
            yield from self._close(last=True)

    def _row(self, seen: Arrivals, first: int, stop: int) -> Iterator[Output]:
        """Datagrams that follow on each other: as one where they go on, else one by one."""
        item = seen.item(first)
        goes_on = (
            self._is_open
            and self._has_begun
            and not self.is_waiting
            and item.sender == self._sender
            and item.recording == self._recording
            and item.size == self._size
            and self._is_on_time(item)
        )
        ahead = _distance(item.sequence, self._next) if goes_on else -1
        if ahead > 0 and self._is_known_to_be_lost:
            self._skip_to(item)
            ahead = 0
        if ahead:
            for k in range(first, stop):
                item = seen.item(k)
                yield from self._accept(item)
                yield from self.idle(item.arrival_s)
            return
        last = seen.item(stop - 1)
        self._forget_strange()
        yield Data(seen.run(first, stop), self._take_missing())
        yield from self._advance(last)

    def _accept(self, item: Item) -> Iterator[Output]:
        if self._sender is None:
            self._own = item.sender
            yield from self._begin(item)
        elif item.sender != self._sender:
            yield from self._other_sender(item)
        elif item.recording == self._recording:
            yield from self._same_recording(item)
        elif item.recording == self._previous:
            yield from self._late(item)
        elif self._is_open:
            self._ahead.append(item)
            if len(self._ahead) > _MOST_WAITING:
                yield from self._give_up()
        else:
            yield from self._begin(item)

    def _begin(self, item: Item) -> Iterator[Output]:
        """Another recording, from its first datagram on."""
        self._joined = self._sender is None
        self._previous = self._recording if item.sender == self._sender else -1
        self._sender, self._recording = item.sender, item.recording
        self._is_open, self._has_begun, self._has_spoken = True, False, False
        self._next = self._next_event = self._missing = 0
        self._waiting, self._strange = {}, []
        yield from self._same_recording(item)

    def _same_recording(self, item: Item) -> Iterator[Output]:
        distance = _distance(item.sequence, self._next)
        if not self._is_open:
            if not (item.flags & END and distance == -1):
                yield from self._late(item)
        elif distance < 0:
            yield from self._late(item)
        elif distance > 0:
            if item.sequence in self._waiting:
                self._report.ignore(_LATE)
                return
            self._waiting[item.sequence] = item
            if len(self._waiting) > _MOST_WAITING or self._is_known_to_be_lost:
                yield from self._give_up()
        else:
            self._forget_strange()
            yield from self._in_order(item)
            yield from self._release()

    def _release(self) -> Iterator[Output]:
        """What waited for what has come by now."""
        while self._is_open and self._next in self._waiting:
            yield from self._in_order(self._waiting.pop(self._next))
        if not self._is_open and self._ahead:
            ahead = sorted(
                self._ahead,
                key=lambda item: (_distance(item.recording, self._recording), item.sequence),
            )
            self._ahead = []
            for item in ahead:
                yield from self._accept(item)

    def _give_up(self) -> Iterator[Output]:
        """Goes on without what has not come."""
        if self._waiting:
            self._skip_to(
                min(self._waiting.values(), key=lambda i: _distance(i.sequence, self._next))
            )
        elif self._ahead:
            yield from self._close(last=False)
        yield from self._release()

    @property
    def _is_known_to_be_lost(self) -> bool:
        """What is missing was let go on this machine: it will not come."""
        return self._is_resumed or self._in_queue > 0 or self._in_system > 0

    def _skip_to(self, item: Item) -> None:
        """Counts what is missing before a datagram as lost."""
        gone = _distance(item.sequence, self._next)
        # No sender puts more into a datagram, whatever it says.
        missing = max(0, min(item.first_event - self._next_event, gone * LARGEST_COUNT))
        if self._has_begun or not self._joined:
            self.lost += gone
        else:  # whoever begins to listen in the middle has lost only what was let go here
            missing = min(missing, self._in_queue)
        for cause, most in (
            ("sent while nothing ran", missing if self._is_resumed else 0),
            ("queue was full", self._in_queue),
            ("the system's buffer was full", self._in_system),
            ("lost on the way", missing),
        ):
            part = min(missing, most)
            self._missing += self._report.lose(cause, part)
            missing -= part
        self._in_queue = max(0, self._in_queue - gone * LARGEST_COUNT)
        self._next = item.sequence

    def _in_order(self, item: Item) -> Iterator[Output]:
        if self._has_begun and item.size != self._size:
            self._report.ignore("datagram from another sensor")
            self._missing += self._report.lose("another sensor", item.count)
            yield from self._advance(item)
            return
        if not self._has_begun:
            yield self._first(item)
        elif not self._is_on_time(item):
            self._report.resynchronise("the sender's clock has jumped")
            yield End(False)
            self._reached_us = item.time_us
            yield Begin(None, bool(item.flags & TRIAL), item.size)
        yield Data(item.run, self._take_missing())
        yield from self._advance(item)

    def _first(self, item: Item) -> Begin:
        self._has_begun = True
        self._reached_us = item.time_us
        self._size = item.size
        origin_us: int | None = None
        if item.flags & ORIGIN and 0 <= item.time_us - item.origin_us <= self._gap_us:
            origin_us = item.origin_us
        return Begin(origin_us, bool(item.flags & TRIAL), item.size)

    def _is_on_time(self, item: Item) -> bool:
        fall_us = self._reached_us - item.time_us
        return fall_us < _SMALLEST_FALL_US and item.last_us - self._reached_us <= self._gap_us

    def _advance(self, item: Item) -> Iterator[Output]:
        self._is_resumed = False
        self._reached_us = max(self._reached_us, item.last_us)
        self._next = (item.sequence + 1) % (1 << 32)
        self._next_event = item.first_event + item.count
        self._heard_s = max(self._heard_s, item.arrival_s)
        if item.flags & END:
            # A bare LAST from somebody who has sent nothing else ends no run but his own.
            counts = self._has_spoken or item.sender == self._own
            if self._has_spoken:
                self._own = item.sender
            yield from self._close(last=bool(item.flags & LAST) and counts)
        else:
            self._has_spoken = True

    def _close(self, *, last: bool) -> Iterator[Output]:
        if self._has_begun:
            yield End(last)
        self._is_open, self._is_last = False, last
        self._let_go(self._waiting.values())  # behind the end
        self._waiting = {}

    def _let_go(self, items: Collection[Item]) -> None:
        """Counts datagrams that waited for what never came."""
        if items:
            self._report.ignore("datagram that belongs nowhere", len(items))
            self._report.lose("belonging nowhere", sum(item.count for item in items))

    def _take_missing(self) -> int:
        missing, self._missing = self._missing, 0
        return missing

    def _late(self, item: Item) -> Iterator[Output]:
        """A number from before: late or repeated, unless it goes on like a new beginning."""
        if item.flags & END and item.recording == self._previous:
            return
        yield from self._hold(item, _IN_A_ROW_SAME, "the sender has started again")

    def _other_sender(self, item: Item) -> Iterator[Output]:
        if not self._is_open and self._is_last:
            yield from self._begin(item)
        elif item.arrival_s - self._heard_s < SENDER_SILENT_S:
            self._report.ignore("another sender during a recording")
        elif not self._is_open:
            yield from self._begin(item)
        else:
            yield from self._hold(item, _IN_A_ROW_OTHER, "another sender takes over")

    def _hold(self, item: Item, in_a_row: int, why: str) -> Iterator[Output]:
        """Keeps what does not belong; when enough of it is in a row, it is followed from there."""
        held = self._strange[:1]
        if held and (held[0].sender, held[0].recording) != (item.sender, item.recording):
            self._forget_strange()
        self._strange.append(item)
        row = sorted({item.sequence: item for item in self._strange}.items())
        last = row[-1]
        begins = len(row) - 1
        while begins and row[begins - 1][0] == row[begins][0] - 1:
            begins -= 1
        length = len(row) - begins
        whole = length > 1 and not row[begins][0] and bool(last[1].flags & END)
        if length < in_a_row and not whole:
            if len(self._strange) > _MOST_STRANGE:
                self._strange.pop(0)
                self._report.ignore(_LATE)
            return
        self._report.resynchronise(why)
        if self._is_open:
            yield from self._close(last=False)
        following = [item for _, item in row[begins:]]
        if len(self._strange) > len(following):
            self._report.ignore(_LATE, len(self._strange) - len(following))
        self._joined = False
        yield from self._begin_at(following)

    def _begin_at(self, items: list[Item]) -> Iterator[Output]:
        """A recording whose first datagrams are these, in order; none before them is missed."""
        self._let_go(self._ahead)
        self._ahead, self._waiting, self._strange = [], {}, []
        self._previous, self._recording = -1, items[0].recording
        self._sender = items[0].sender
        self._is_open, self._has_begun, self._has_spoken = True, False, False
        self._missing = 0
        self._next, self._next_event = items[0].sequence, items[0].first_event
        for item in items:
            yield from self._accept(item)

    def _forget_strange(self) -> None:
        if self._strange:
            self._report.ignore(_LATE, len(self._strange))
            self._strange = []
