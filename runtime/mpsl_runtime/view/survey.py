"""How long a recording is, and how busy over its length: it is read once more, meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MpslError
from mpsl_runtime.view.playlist import Playlist

__all__ = ["Survey", "Surveyed"]

_FINEST_US, _MOST = 1024, 256


@dataclass(frozen=True)
class Surveyed:
    """Of one recording.

    Attributes:
        number: of the recording. length_us: from its beginning to its last event.
        activity: events in equal parts of that length.
    """

    number: int
    length_us: int
    activity: list[int]


class Survey:
    """Reads recordings in a thread of its own.

    Args:
        playlist: one of its own. found: called with each result.
    """

    def __init__(self, playlist: Playlist, found: Callable[[Surveyed], None]) -> None:
        self._playlist, self._found = playlist, found
        self._changed = threading.Condition()
        self._wanted: int | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name="mpsl view survey", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def ask(self, number: int) -> None:
        """This recording is of interest now, and no other."""
        with self._changed:
            self._wanted = number
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        done: int | None = None
        while True:
            with self._changed:
                while not self._is_stopped and self._wanted == done:
                    self._changed.wait()
                if self._is_stopped:
                    return
                done = self._wanted
            try:
                found = self._read(done or 0)
            except MpslError:  # whoever plays it says what is wrong
                continue
            if found is not None:
                self._found(found)

    def _read(self, number: int) -> Surveyed | None:
        """None where another one is wanted meanwhile, or there is none."""
        track = self._playlist.open(number)
        if track is None:
            return None
        counts: NDArray[np.int64] = np.zeros(_MOST, np.int64)
        part_us, last_us = _FINEST_US, 0
        for chunk in track.recording.chunks:
            if self._is_stopped or self._wanted != number:
                return None
            t = chunk.events.t - track.begin_us
            t = t[t >= 0]
            if not len(t):
                continue
            last_us = int(t[-1])
            while last_us >= part_us * _MOST:
                part_us *= 2
                counts = np.append(
                    counts.reshape(-1, 2).sum(axis=1), np.zeros(_MOST // 2, np.int64)
                )
            counts += np.bincount(t // part_us, minlength=_MOST)
        used = last_us // part_us + 1
        return Surveyed(number, last_us, counts[:used].tolist())
