"""Plays recordings to the models: piece by piece, when the clock says so.

A jump into the middle of a recording begins a little before its goal, so that the network has seen
what it needs: a trial from its beginning, a stream a window earlier, on the grid of windows that it
would have had without the jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.view.clock import Clock, Jump
from mpsl_runtime.view.playlist import Playlist, Track

__all__ = ["Audience", "Player", "Playing"]

Size = tuple[int, int]
# A piece is what the clock lets through at once: shorter than a picture of the page.
_PIECE_S = 0.01
_SHORTEST_US = 100
_BETWEEN_S = 0.7
# After a jump, the picture shows what came so long before.
_SEEN_US = 40_000


class Audience(Protocol):
    """Who is played to."""

    def begin(self, recording: Recording, size: Size | None) -> None:
        """A recording begins; its chunks come by `put`."""

    def put(self, chunk: Chunk, *, is_shown: bool) -> None:
        """A piece. is_shown: not only to put the network where it was."""

    def end(self) -> None:
        """The recording has ended."""

    def clear(self) -> None:
        """What was put is to be forgotten."""


@dataclass(frozen=True)
class Playing:
    """What is played now.

    Attributes:
        number: of the recording, from 0 on. file: its name. target: its class where known.
        begin_us: its first time; position_us: what has been played, after it.
        is_over: the last recording has ended.
    """

    number: int = 0
    file: str = ""
    target: int | None = None
    begin_us: int = 0
    position_us: int = 0
    is_over: bool = False


class Player:
    """Plays a list of recordings from the first to the last; `run` is for a thread.

    Attributes:
        clock: to be told of pauses, steps and jumps. playing: see `Playing`. step_us: of a step.

    Args:
        playlist: what is played. clock: when. binning: of the first model: its steps and windows.
        audience: to whom. once: it ends after the last recording; otherwise it waits for a jump.
        loops: whether it begins anew after the last recording; asked each time.
    """

    def __init__(
        self,
        playlist: Playlist,
        clock: Clock,
        binning: Binning,
        audience: Audience,
        *,
        once: bool,
        loops: Callable[[], bool],
    ) -> None:
        self.clock, self.playing = clock, Playing()
        self._playlist, self._audience = playlist, audience
        self.step_us = binning.step_us
        self._window_us = binning.step_us * binning.steps
        self._once, self._loops = once, loops

    def run(self) -> None:
        """Plays until the end, or until the clock is stopped.

        Raises:
            DataError: a recording is damaged.
        """
        goal = Jump(0, 0)
        while not self.clock.is_stopped:
            track = self._playlist.open(goal.recording)
            found = self._after_the_last(goal) if track is None else self._play(track, goal)
            if found is None:
                return
            goal = found

    def _after_the_last(self, goal: Jump) -> Jump | None:
        """Where to go on; None is nowhere."""
        if goal.recording == 0 or self._once:
            return None
        if self._loops():
            return Jump(0, 0)
        self.clock.pause(True)
        self.playing = replace(self.playing, is_over=True)
        while True:
            what = self.clock.wait(self.playing.position_us)
            if what == "leave":
                return self._jumped()
            if what == "play":  # from the end: from the beginning
                return Jump(0, 0)

    def _jumped(self) -> Jump | None:
        jump = self.clock.taken_jump()
        if jump is not None:
            self._audience.clear()
        return jump

    def _play(self, track: Track, goal: Jump) -> Jump | None:
        """Plays one recording; where to go on."""
        recording, begin_us = track.recording, track.begin_us
        goal_us = begin_us + goal.position_us
        lead_us = self._lead(track, goal_us)
        origin_us = recording.origin_us if recording.trial else lead_us
        self.playing = Playing(goal.recording, recording.file, recording.target, begin_us)
        self._audience.begin(replace(recording, origin_us=origin_us), track.size)
        self._reach(goal_us)
        now_us = lead_us
        for events, known_us in _from(recording.chunks, lead_us):
            last_us = int(events.t[-1])
            if known_us == last_us <= goal_us:  # to the end, which is not waited for
                goal_us = last_us + 1
            while len(events) and now_us <= last_us:
                until_us = self._until(now_us, goal_us, begin_us)
                if until_us is None:
                    return self._jumped()
                cut = int(np.searchsorted(events.t, until_us))
                is_shown = until_us > goal_us - _SEEN_US
                piece, events = events.slice(0, cut), events.slice(cut, len(events))
                self._audience.put(Chunk(piece, min(until_us, known_us)), is_shown=is_shown)
                now_us = until_us
                self._reach(max(min(now_us, known_us), goal_us))
        self._audience.end()
        self.clock.rest(_BETWEEN_S / max(1.0, self.clock.speed))
        jump = self._jumped()
        return jump or (None if self.clock.is_stopped else Jump(goal.recording + 1, 0))

    def _lead(self, track: Track, goal_us: int) -> int:
        """The time from which on the network must see the recording, to be right at the goal."""
        if track.recording.trial:
            return track.begin_us
        windows = (goal_us - track.begin_us) // self._window_us - 1
        return track.begin_us + max(0, windows) * self._window_us

    def _until(self, now_us: int, goal_us: int, begin_us: int) -> int | None:
        """Waits, and says up to which time may be played; None: no further."""
        for before_us in (goal_us - _SEEN_US, goal_us):
            if now_us < before_us:
                return min(before_us, now_us + self._window_us)
        what = self.clock.wait(now_us)
        if what == "leave":
            return None
        if what == "step":
            return begin_us + ((now_us - begin_us) // self.step_us + 1) * self.step_us
        return now_us + max(_SHORTEST_US, round(_PIECE_S * 1e6 * self.clock.speed))

    def _reach(self, now_us: int) -> None:
        self.playing = replace(self.playing, position_us=now_us - self.playing.begin_us)


def _from(chunks: Iterable[Chunk], begin_us: int) -> Iterator[tuple[Events, int]]:
    """The events from a time on, in pieces that are not empty, each with the time before which
    there are no others: that of the next event, or of its own last one where none follows."""
    before: Events | None = None
    for chunk in chunks:
        first = int(np.searchsorted(chunk.events.t, begin_us))
        if first < len(chunk.events):
            events = chunk.events.slice(first, len(chunk.events))
            if before is not None:
                yield before, int(events.t[0])
            before = events
    if before is not None:
        yield before, int(before.t[-1])
