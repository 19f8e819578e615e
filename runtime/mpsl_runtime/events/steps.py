"""Cutting a recording, whole or still arriving, into the steps of a network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.binning import Binning, SparseSteps, sparse_steps
from mpsl_runtime.events.events import Events

__all__ = ["Ceiling", "Chunk", "Policy", "Recording", "Rest", "StepInput", "cut"]

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


class _Cutter:
    """Cuts events that arrive in pieces into steps."""

    def __init__(self, binning: Binning, recording: Recording) -> None:
        self.binning = replace(binning, origin="zero")
        self.file = recording.file
        self._ceiling = recording.ceiling
        self.origin_us = recording.origin_us
        self.last_us: int | None = None
        self.next_step = 0
        self.dropped = 0
        self._waiting: list[Events] = []

    def push(self, chunk: Chunk) -> None:
        """Takes a chunk in."""
        self.dropped += chunk.dropped
        events = chunk.events
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

    def steps_until(self, reached_us: int) -> int:
        """Number of steps that end at or before a time."""
        if self.origin_us is None:
            return 0
        return max(0, (reached_us - self.origin_us) // self.binning.step_us)

    def complete(self, stop: int) -> Iterator[StepInput]:
        """Yields the steps up to `stop`, exclusive, in blocks of at most T."""
        while self.next_step < stop:
            steps = min(self.binning.steps, stop - self.next_step)
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
                yield StepInput(
                    self.next_step,
                    begin_us + i * step_us,
                    sparse.address[low:high],
                    value[low:high],
                    count[i] - above[i],
                    dropped,
                    binning_us,
                )
                self.next_step += 1

    def _take(self, end_us: int) -> Events:
        """Removes and returns the waiting events before `end_us`."""
        if not self._waiting:
            return Events.empty()
        if len(self._waiting) > 1:
            self._waiting = [
                Events(
                    t=np.concatenate([events.t for events in self._waiting]),
                    x=np.concatenate([events.x for events in self._waiting]),
                    y=np.concatenate([events.y for events in self._waiting]),
                    p=np.concatenate([events.p for events in self._waiting]),
                )
            ]
        events = self._waiting[0]
        cut_at = int(np.searchsorted(events.t, end_us))
        self._waiting = [events.slice(cut_at, len(events))] if cut_at < len(events) else []
        return events.slice(0, cut_at)

    def discard(self) -> int:
        """Forgets the events that no step has taken; returns their number."""
        left = sum(len(events) for events in self._waiting)
        self._waiting = []
        return left


def cut(recording: Recording, binning: Binning, policy: Policy) -> Iterator[StepInput | Rest]:
    """The steps of a recording; the last item says what is left.

    Args:
        recording: what is left of it is consumed.
        binning: its origin is overruled by the recording's.

    Raises:
        DataError: an event outside the sensor, before t0 or back in time, or a gap that no
            recording has.
    """
    window = binning.steps
    one_window = recording.trial and policy == "tumbling"
    limit = window if one_window else None
    cutter = _Cutter(binning, recording)
    truncated = 0
    for chunk in recording.chunks:
        cutter.push(chunk)
        times = [t for t in (chunk.reached_us, cutter.last_us) if t is not None]
        if times:
            stop = cutter.steps_until(max(times))
            yield from cutter.complete(stop if limit is None else min(limit, stop))
        if limit is not None and cutter.next_step >= limit:
            truncated += cutter.discard()
    if limit is None:
        steps = max(cutter.next_step, window)
        if cutter.last_us is not None:
            steps = max(steps, cutter.steps_until(cutter.last_us) + 1)
        limit = math.ceil(steps / window) * window if policy == "tumbling" else steps
    yield from cutter.complete(limit)
    yield Rest(truncated + cutter.discard(), cutter.dropped)
