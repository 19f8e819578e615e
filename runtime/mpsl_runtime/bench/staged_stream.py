"""Labelled recordings as one long stream with pauses and noise, and what is true of it.

The stream is what a camera would send that sees the recordings one after another, at random, with
nothing but background noise in between. Since it is known what was shown when, the answers of a
policy can be judged (`stream_evaluation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording

__all__ = ["Shown", "StagedStream", "Staging"]

_LARGEST_NOISE_HZ = 10_000.0


@dataclass(frozen=True)
class Shown:
    """A recording in the stream: its class, and when it begins and ends in µs."""

    label: int
    start_us: int
    end_us: int


@dataclass(frozen=True)
class Staging:
    """How recordings become a stream.

    Attributes:
        pause_ms: shortest and longest silence between two recordings, uniform between.
        noise_hz: background events a second and pixel, a Poisson process over both polarities.
        seed: of order, pauses and noise.
        chunk_us: length of the pieces in which the events arrive.
    """

    pause_ms: tuple[float, float] = (200.0, 2000.0)
    noise_hz: float = 1.0
    seed: int = 0
    chunk_us: int = 10_000

    def __post_init__(self) -> None:
        low, high = self.pause_ms
        if not (0 <= low <= high <= 3_600_000 and 0 <= self.noise_hz <= _LARGEST_NOISE_HZ):
            raise UsageError(
                "stream cannot be staged so",
                got=f"pauses {low:g} … {high:g} ms, {self.noise_hz:g} noise events/s",
                expected=f"0 ≤ pauses ≤ an hour, 0 ≤ noise ≤ {_LARGEST_NOISE_HZ:g}",
            )


class StagedStream:
    """Recordings in random order with pauses; the same seed gives the same stream.

    Attributes:
        shown: the truth, in time order; complete once the stream has been run through.
        end_us: its end so far. events: in it so far.

    Args:
        count: recordings. events: gives recording i. labels: of every recording.
        sensor_size: (width, height), for the noise.
    """

    def __init__(
        self,
        count: int,
        events: Callable[[int], Events],
        labels: Sequence[int],
        sensor_size: tuple[int, int],
        staging: Staging,
    ) -> None:
        self._events, self._labels, self._staging = events, labels, staging
        self._size = sensor_size
        self._random = np.random.default_rng([staging.seed, 0])
        self._order = self._random.permutation(count)
        self.shown: list[Shown] = []
        self.end_us = self.events = 0

    def recording(self, name: str) -> Recording:
        """The stream, to be run once; its time 0 is that of step 0."""
        return Recording(name, self._chunks(), 0, trial=False)

    def _chunks(self) -> Iterator[Chunk]:
        for index in self._order.tolist():
            yield from self._stretch(self._pause_us(), Events.empty())
            recording = self._events(index)
            if not len(recording):
                continue
            first = int(recording.t[0])
            shifted = replace(recording, t=recording.t - first + self.end_us, sensor_size=None)
            start, length = self.end_us, int(shifted.t[-1]) + 1 - self.end_us
            self.shown.append(Shown(int(self._labels[index]), start, start + length))
            yield from self._stretch(length, shifted)
        yield from self._stretch(self._pause_us(), Events.empty())

    def _pause_us(self) -> int:
        low, high = self._staging.pause_ms
        return round(self._random.uniform(low, high) * 1000)

    def _stretch(self, length_us: int, events: Events) -> Iterator[Chunk]:
        """A piece of the stream with its noise, chunk by chunk."""
        stop_us = self.end_us + length_us
        while self.end_us < stop_us:
            end = min(self.end_us + self._staging.chunk_us, stop_us)
            low, high = np.searchsorted(events.t, [self.end_us, end]).tolist()
            piece = self._with_noise(events.slice(low, high), self.end_us, end)
            self.end_us = end
            self.events += len(piece)
            yield Chunk(piece, reached_us=end)

    def _with_noise(self, events: Events, begin_us: int, end_us: int) -> Events:
        width, height = self._size
        mean = self._staging.noise_hz * width * height * (end_us - begin_us) / 1e6
        number = int(self._random.poisson(mean)) if mean > 0 else 0
        if not number:
            return events
        random = self._random
        t = np.concatenate([events.t, random.integers(begin_us, end_us, number)])
        order = np.argsort(t, kind="stable")
        columns = (
            np.concatenate([old, random.integers(0, limit, number).astype(old.dtype)])[order]
            for old, limit in ((events.x, width), (events.y, height), (events.p, 2))
        )
        return Events.from_columns(t[order], *columns)
