"""SOURCE → recordings that can be opened again, by their number: what a player needs to go back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.geometry import View
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.sources import recordings

__all__ = ["Playlist", "Track"]


@dataclass(frozen=True, eq=False)
class Track:
    """A recording with its beginning looked at.

    Attributes:
        recording: to be played once. begin_us: the time at which it begins.
        size: (width, height) of the camera where it is known, else None.
    """

    recording: Recording
    begin_us: int
    size: tuple[int, int] | None


class Playlist:
    """The recordings of a file, a folder or a zip.

    Args:
        path: where they are. binning, class_names: of the first model, for trials and labels.
        options: see `SourceOptions`. say: called with a line for people, once for each line.

    Raises:
        DataError: the path is absent, or nothing is there.
    """

    def __init__(
        self,
        path: str | Path,
        binning: Binning,
        class_names: Sequence[str],
        options: SourceOptions,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._binning, self._class_names = path, binning, class_names
        self._options, self._say = options, say
        self._said: set[str] = set()
        self._next = 0
        self._items = self._anew()

    def open(self, number: int) -> Track | None:
        """The recording of a number, from 0 on; None behind the last one.

        Raises:
            DataError: it is damaged.
        """
        if number < self._next:
            self._next, self._items = 0, self._anew()
        recording = next(islice(self._items, number - self._next, None), None)
        self._next = number + 1
        return None if recording is None else self._looked_at(recording)

    def _anew(self) -> Iterator[Recording]:
        options = self._options
        return recordings(
            self._path,
            self._binning,
            self._class_names,
            options=options.read,
            on_trouble=self._once,
            # As the feed has it: a camera that nobody names is the model's, where it fits as it is.
            measure=options.view != View() and options.sensor_size is None,
        )

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _looked_at(self, recording: Recording) -> Track:
        chunks = iter(recording.chunks)
        first = next(chunks, None)
        while first is not None and not len(first.events):
            first = next(chunks, None)
        if first is None:
            first = Chunk(Events.empty())
        begin_us = recording.origin_us
        if begin_us is None:
            begin_us = int(first.events.t[0]) if len(first.events) else 0
        size = self._options.sensor_size or first.events.sensor_size
        return Track(replace(recording, chunks=_again(first, chunks)), begin_us, size)


def _again(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest
