"""Cutting a recording, whole or still arriving, into the steps of a network."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.binning import Binning, SparseSteps, sparse_steps
from mpsl_runtime.events.events import Events
from mpsl_runtime.kept import Kept

__all__ = ["Ceiling", "Chunk", "Cutter", "Policy", "Recording", "Rest", "StepInput", "cut"]

Policy = Literal["tumbling", "continuous"]
# A time stamp gone wrong would otherwise be an endless loop over empty steps.
LONGEST_GAP_STEPS = 1_000_000


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a recording.

    Attributes:
        events: in time order, none before those of the chunk before.
        reached_us: every event before this time has been delivered; None says nothing new.
        dropped: events that were lost since the chunk before.
    """

    events: Events
    reached_us: int | None = None
    dropped: int = 0


class Ceiling:
    """Holds inputs at the largest that a model takes; events above it are counted.

    Attributes:
        held: events that were above it.
    """

    def __init__(self, largest: float) -> None:
        self._largest = np.float32(largest)
        self.held = 0

    def hold(self, sparse: SparseSteps) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The values of some steps, held, and the events above it in each step."""
        value, steps = sparse.value, len(sparse.offsets) - 1
        if not len(value) or value.max() <= self._largest:
            return value, np.zeros(steps, np.int64)
        lower = np.minimum(value, self._largest)
        above = np.concatenate([[0], np.cumsum((value - lower).astype(np.int64))])
        each = np.diff(above[sparse.offsets])
        self.held += int(above[-1])
        return lower, each


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording, whole or still arriving.

    Attributes:
        file: its name in the output: a path, a sample's id, or an address.
        chunks: the events.
        origin_us: time of step 0; None is the first event.
        trial: a sample of T steps (see the module).
        target: its class where known.
        ceiling: where its inputs are held, instead of refused.
    """

    file: str
    chunks: Iterable[Chunk]
    origin_us: int | None
    trial: bool
    target: int | None = None
    ceiling: Ceiling | None = None


@dataclass(frozen=True, eq=False)
class StepInput:
    """One step's input: `address` int32 [n] and `value` float32 [n], see `binning.SparseSteps`."""

    step: int
    t_us: int
    address: NDArray[np.int32]
    value: NDArray[np.float32]
    events: int
    dropped: int
    binning_us: float

    def kept(self) -> dict[str, Any]:
        """As values for `mpsl_runtime.kept`."""
        return dict(self.__dict__)

    @classmethod
    def from_kept(cls, kept: Kept) -> StepInput:
        """What `kept` gave; DataError where that cannot be."""
        address = kept.array("address", np.int32)
        return cls(
            kept.integer("step"),
            kept.integer("t_us", -(1 << 62)),
            address,
            kept.array("value", np.float32, (len(address),)),
            kept.integer("events"),
            kept.integer("dropped"),
            kept.number("binning_us"),
        )


def _shifted(events: Events, by_us: int) -> Events:
    return replace(events, t=events.t - by_us)


@dataclass(frozen=True)
class Rest:
    """What no step has taken when a recording ends.

    Attributes:
        truncated: events after the last step of a trial.
        dropped: events that were lost after the last step.
    """

    truncated: int
    dropped: int


class Cutter:
    """Cuts events that arrive in pieces into steps; between two steps it may be kept.

    Args:
        binning: its origin is overruled by the recording's.
        recording: its chunks are somebody else's to bring.
    """

    def __init__(self, binning: Binning, recording: Recording) -> None:
        self.binning = replace(binning, origin="zero")
        self.file = recording.file
        self._ceiling = recording.ceiling
        self.origin_us = recording.origin_us
        self.last_us: int | None = None
        self.next_step = 0
        self.dropped = self.truncated = 0
        self._reached_us: int | None = None
        self._waiting: list[Events] = []
        self._made: deque[StepInput] = deque()  # of one block; they are given out one by one

    def kept(self) -> dict[str, Any]:
        """All that the next steps depend on, for `mpsl_runtime.kept`."""
        names = ("origin_us", "last_us", "next_step", "dropped", "truncated")
        return {name: getattr(self, name) for name in names} | {
            "reached_us": self._reached_us,
            "waiting": self._waiting_as_one().kept(),
            "made": [item.kept() for item in self._made],
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken; DataError where that cannot be."""
        for name in ("origin_us", "last_us", "reached_us"):
            value = kept.integer(name, -(1 << 62)) if kept.is_there(name) else None
            setattr(self, "_reached_us" if name == "reached_us" else name, value)
        self.next_step = kept.integer("next_step")
        self.dropped, self.truncated = kept.integer("dropped"), kept.integer("truncated")
        waiting = Events.from_kept(kept.inner("waiting"))
        waiting.check(sensor_size=self.binning.sensor_size, where=kept.where)
        self._waiting = [waiting] if len(waiting) else []
        self._made = deque(map(StepInput.from_kept, kept.each("made")))
        inputs = math.prod(self.binning.shape)
        if self._behind() - self.next_step > LONGEST_GAP_STEPS:
            raise DataError("state is damaged", got="a time far ahead", where=kept.where)
        for item in self._made:
            if len(item.address) and not 0 <= item.address.min() <= item.address.max() < inputs:
                raise DataError("state is damaged", got="an event outside", where=kept.where)

    def push(self, chunk: Chunk) -> None:
        """Takes a chunk in."""
        self.dropped += chunk.dropped
        events = chunk.events
        if chunk.reached_us is not None:
            self._reached_us = max(chunk.reached_us, self._reached_us or chunk.reached_us)
        if not len(events):
            return
        events.check(sensor_size=self.binning.sensor_size, where=self.file)
        first = int(events.t[0])
        if self.origin_us is None:
            self.origin_us = first
        before = self.origin_us + self.next_step * self.binning.step_us
        before = max(before, self.last_us if self.last_us is not None else before)
        if first < before:
            raise DataError(
                "event before those already given",
                got=f"{first} µs",
                expected=f"≥ {before} µs",
                where=self.file,
            )
        gap_us = int(np.diff(events.t, prepend=before).max())
        if gap_us > LONGEST_GAP_STEPS * self.binning.step_us:
            raise DataError(
                "gap in the recording's time",
                got=f"{gap_us} µs without an event",
                expected=f"≤ {LONGEST_GAP_STEPS} steps",
                where=self.file,
            )
        self.last_us = int(events.t[-1])
        self._waiting.append(events)

    def due(self, limit: int | None) -> Iterator[StepInput]:
        """The steps whose time is over; none beyond `limit`, after which events are truncated."""
        stop = self._behind()
        yield from self.complete(stop if limit is None else min(limit, stop))
        if limit is not None and self.next_step >= limit:
            self.discard()

    def _behind(self) -> int:
        """Number of steps whose time is over."""
        times = [t for t in (self._reached_us, self.last_us) if t is not None]
        return self._steps_until(max(times)) if times else 0

    def _steps_until(self, reached_us: int) -> int:
        """Number of steps that end at or before a time."""
        if self.origin_us is None:
            return 0
        return max(0, (reached_us - self.origin_us) // self.binning.step_us)

    def last_step(self, whole_windows: bool) -> int:
        """The end of the steps when nothing more comes, exclusive: at least one window."""
        window = self.binning.steps
        steps = max(self.next_step, window)
        if self.last_us is not None:
            steps = max(steps, self._steps_until(self.last_us) + 1)
        return math.ceil(steps / window) * window if whole_windows else steps

    def complete(self, stop: int) -> Iterator[StepInput]:
        """Yields the steps up to `stop`, exclusive."""
        while True:
            while self._made:
                yield self._made.popleft()
            if self.next_step >= stop:
                return
            self._make(min(self.binning.steps, stop - self.next_step))

    def _make(self, steps: int) -> None:
        """Makes the next so many steps."""
        start = time.perf_counter_ns()
        step_us, origin_us = self.binning.step_us, self.origin_us or 0
        begin_us = origin_us + self.next_step * step_us
        events = self._take(begin_us + steps * step_us)
        block = replace(self.binning, steps=steps)
        sparse = sparse_steps(_shifted(events, begin_us), block)
        edges = begin_us + step_us * np.arange(steps + 1)
        count = np.diff(np.searchsorted(events.t, edges)).tolist()
        value, above = sparse.value, [0] * steps
        if self._ceiling is not None:
            value, held = self._ceiling.hold(sparse)
            above = held.tolist()
        binning_us = (time.perf_counter_ns() - start) / 1000 / steps
        for i in range(steps):
            low, high = int(sparse.offsets[i]), int(sparse.offsets[i + 1])
            dropped, self.dropped = self.dropped + above[i], 0
            self._made.append(
                StepInput(
                    self.next_step,
                    begin_us + i * step_us,
                    sparse.address[low:high],
                    value[low:high],
                    count[i] - above[i],
                    dropped,
                    binning_us,
                )
            )
            self.next_step += 1

    def _waiting_as_one(self) -> Events:
        if len(self._waiting) > 1:
            t, x, y, p = (
                np.concatenate([getattr(events, name) for events in self._waiting])
                for name in "txyp"
            )
            self._waiting = [Events(t, x, y, p)]
        return self._waiting[0] if self._waiting else Events.empty()

    def _take(self, end_us: int) -> Events:
        """Removes and returns the waiting events before `end_us`."""
        events = self._waiting_as_one()
        cut_at = int(np.searchsorted(events.t, end_us))
        self._waiting = [events.slice(cut_at, len(events))] if cut_at < len(events) else []
        return events.slice(0, cut_at)

    def discard(self) -> None:
        """Forgets the events that no step has taken, and counts them."""
        self.truncated += sum(len(events) for events in self._waiting)
        self._waiting = []


def cut(
    recording: Recording, binning: Binning, policy: Policy, cutter: Cutter | None = None
) -> Iterator[StepInput | Rest]:
    """The steps of a recording; the last item says what is left.

    Args:
        recording: what is left of it is consumed.
        binning: its origin is overruled by the recording's.
        cutter: goes on from there.

    Raises:
        DataError: an event outside the sensor, before t0 or back in time, or a gap that no
            recording has.
    """
    one_window = recording.trial and policy == "tumbling"
    limit = binning.steps if one_window else None
    cutter = cutter or Cutter(binning, recording)
    yield from cutter.due(limit)
    for chunk in recording.chunks:
        cutter.push(chunk)
        yield from cutter.due(limit)
    yield from cutter.complete(cutter.last_step(policy == "tumbling") if limit is None else limit)
    cutter.discard()
    yield Rest(cutter.truncated, cutter.dropped)
