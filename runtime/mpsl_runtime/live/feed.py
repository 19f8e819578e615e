"""Any sources in, recordings as a model is to see them out.

What comes from a camera of another size is cut, summed and mirrored (`events.geometry`), filtered
(`events.filters`), and held at the largest input that an int8 model takes. Every event that does
not come through is counted, by cause.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.filters import Filters
from mpsl_runtime.events.geometry import PixelMap, View, misfit
from mpsl_runtime.events.steps import Ceiling, Chunk, Recording
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import is_live
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.source import LONGEST_GAP_US, LiveSource, open_source
from mpsl_runtime.live.sources import Source, recordings

__all__ = ["Feed"]

_LONGEST_GAP_STEPS = 100_000
_OUTSIDE = "outside the sensor"


@dataclass(frozen=True, eq=False)
class _Passage:
    """What the events of one recording go through."""

    size: tuple[int, int]
    pixels: PixelMap
    filters: Filters | None


class Feed:
    """The recordings of some sources; iterate over it once.

    Attributes:
        source: where it is a live one, else None.
        taken: events that filters and the view have taken, by name.
        on_camera: called with events as they come, before filters and the view, and with the
            pixels that the model sees of the camera's.

    Args:
        sources: paths and events, or one live source (an address, or an object).
        binning: of the model: its sensor, its steps and the time 0 of its trials.
        class_names: of the model; label folders are named after them.
        options: see `SourceOptions`.
        input_max: the largest input that the model takes; live and moved events are held there.
        say: called with a line for people; by default, what is wrong with files is a warning.

    Raises:
        UsageError: an address that cannot be meant, or a live source beside others.
        DataError: a path is absent, or nothing is there. While iterating: a recording is damaged
            or from another sensor (the line proposes options); nobody is at the address.
    """

    def __init__(
        self,
        sources: Sequence[Source | LiveSource],
        binning: Binning,
        class_names: Sequence[str],
        options: SourceOptions | None = None,
        *,
        input_max: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.source: LiveSource | None = None
        self.taken: Counter[str] = Counter()
        self._words = [source if isinstance(source, str | Path) else "" for source in sources]
        self._losses: Counter[str] = Counter()
        self._binning, self._say = binning, say
        self._options = options or SourceOptions()
        self._input_max = input_max
        self._ceilings = Ceiling(input_max) if input_max else None
        found: Iterable[Recording]
        stored = [source for source in sources if not isinstance(source, LiveSource)]
        if len(stored) < len(sources) or any(is_live(source) for source in stored):
            if len(sources) > 1:
                raise UsageError(
                    "a live source stands alone", got=f"{len(sources)} sources", expected=1
                )
            gap_us = min(LONGEST_GAP_US, _LONGEST_GAP_STEPS * binning.step_us)
            self.source = (
                sources[0]
                if isinstance(sources[0], LiveSource)
                else open_source(
                    str(sources[0]), self._options, longest_gap_us=gap_us, say=self._live_line
                )
            )
            found = self.source.recordings()
        else:
            found = chain.from_iterable([self._stored(source, class_names) for source in stored])
        self.on_camera: Callable[[Events, PixelMap], None] | None = None
        self._found = iter(found)
        # Of the recordings so far, the last one may be in the middle: chunks that it has given.
        self._recordings = self._chunks_given = 0
        self._passage: _Passage | None = None
        self._items = self._run()

    def __iter__(self) -> Iterator[Recording]:
        return self._items

    def _run(self) -> Iterator[Recording]:
        for recording in self._found:
            self._recordings += 1
            self._chunks_given, self._passage = 0, None
            yield self._prepared(recording, recording.chunks)

    @property
    def identity(self) -> dict[str, str]:
        """What decides which events the model sees, in words: the sources, and how they are read
        and seen."""
        options = self._options
        seen = {name: getattr(options, name) for name in ("view", "filters", "merge", "read")}
        size = options.sensor_size
        return {"source": ", ".join(map(str, self._words)), "view": f"{seen} sensor {size}"}

    def kept(self) -> dict[str, Any]:
        """Where it stands and what it has counted, for `mpsl_runtime.kept`."""
        filters = None if self._passage is None else self._passage.filters
        return {
            "recordings": self._recordings,
            "chunks": self._chunks_given,
            "taken": dict(self.taken),
            "losses": dict(self._losses),
            "held": 0 if self._ceilings is None else self._ceilings.held,
            "size": None if self._passage is None else list(self._passage.size),
            "filters": None if filters is None else filters.kept(),
            "source": None if self.source is None else self.source.kept(),
        }

    def restore(self, kept: Kept, inside: Recording | None) -> None:
        """Goes on where `kept` was taken, before it is iterated over.

        What files have given is read once more and passed over; a live source goes on, as far as
        it can.

        Args:
            inside: what is known of the recording in whose middle that was. Its rest comes first.

        Raises:
            DataError: it cannot be, or the sources are others.
        """
        self.taken, self._losses = kept.counter("taken"), kept.counter("losses")
        if self._ceilings is not None:
            self._ceilings.held = kept.integer("held")
        if self.source is not None:
            self.source.restore(kept.inner("source"))
        if inside is None:
            deque(islice(self._found, kept.integer("recordings")), maxlen=0)
            self._recordings = kept.integer("recordings")
            return
        self._recordings = kept.integer("recordings", 1) - 1
        if self.source is None:
            deque(islice(self._found, self._recordings), maxlen=0)
        elif not self.source.goes_on:
            # It begins anew: the rest of what there was is nothing.
            self._found = chain([replace(inside, chunks=())], self._found)
        self._items = chain(self._rest(kept, inside), self._items)

    def _rest(self, kept: Kept, inside: Recording) -> Iterator[Recording]:
        """The rest of a recording."""
        recording = next(self._found, None)
        if recording is None or recording.file != inside.file:
            got = "nothing" if recording is None else recording.file
            raise DataError("state of another source", got=got, expected=inside.file)
        chunks = iter(recording.chunks)
        if self.source is None:
            deque(islice(chunks, kept.integer("chunks")), maxlen=0)
        self._recordings += 1
        self._chunks_given = kept.integer("chunks")
        if kept.is_there("size"):
            self._passage = self._passage_of(kept.size("size"), recording.file)
            if self._passage.filters is not None:
                self._passage.filters.restore(kept.inner("filters"))
        yield self._prepared(recording, chunks)

    def count_on(self, before: Feed) -> None:
        """Counts on where another feed of the same model has ended, but for its source."""
        self.taken, self._losses = before.taken, before._losses
        if self._ceilings is not None and before._ceilings is not None:
            self._ceilings.held = before._ceilings.held

    @property
    def losses(self) -> dict[str, int]:
        """Events that did not come through, by cause."""
        found = Counter(self._losses)
        if self.source is not None:
            found += Counter(dict(self.source.losses))  # at once: its thread may add a cause
        if self._ceilings is not None and self._ceilings.held:
            found["more than the model takes at one input"] += self._ceilings.held
        return dict(found)

    @property
    def ignored(self) -> dict[str, int]:
        """Messages of a live source that were no use, by reason."""
        return {} if self.source is None else dict(self.source.ignored)

    @property
    def resynchronised(self) -> int:
        """How often a live source began anew."""
        return 0 if self.source is None else self.source.resynchronised

    def counts(self) -> dict[str, dict[str, int]]:
        """All that did not come through or was no use: for each kind, a number by cause."""
        found = {"events lost": self.losses, "events left out": dict(self.taken)}
        if self.source is not None:
            found["messages ignored"] = self.ignored
            if self.resynchronised:
                found["begun anew"] = {"times": self.resynchronised}
        return found

    def stop(self) -> None:
        """Ends a live source soon, from any thread or a signal handler."""
        if self.source is not None:
            self.source.stop()

    def suspend(self) -> None:
        """As `stop`, but to go on later, see `kept`."""
        if self.source is not None:
            self.source.suspend()

    def close(self) -> None:
        """Lets a live source go."""
        if self.source is not None:
            self.source.close()

    def _live_line(self, line: str) -> None:
        if self._say is not None and self.source is not None:
            self._say(f"{self.source.name}: {line}")

    def _stored(self, source: Source, class_names: Sequence[str]) -> Iterator[Recording]:
        options = self._options
        needs_size = options.view != View() or not options.filters.is_off
        return recordings(
            source,
            self._binning,
            class_names,
            options=options.read,
            on_trouble=self._say,
            measure=needs_size and options.sensor_size is None,
        )

    def _prepared(self, recording: Recording, chunks: Iterable[Chunk]) -> Recording:
        is_held = self.source is not None or self._options.changes_events
        return replace(
            recording,
            chunks=self._chunks(recording, chunks),
            ceiling=self._ceilings if is_held else None,
        )

    def _chunks(self, recording: Recording, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._chunks_given += 1
            events = chunk.events
            if not len(events):
                yield chunk
                continue
            if self._passage is None:
                self._passage = self._passage_or_none(events, recording)
            passage = self._passage
            if passage is None:
                dropped = self.source.lose("another sensor", len(events)) if self.source else 0
                yield Chunk(Events.empty(), chunk.reached_us, chunk.dropped + dropped)
                continue
            if self.on_camera is not None:
                self.on_camera(events, passage.pixels)
            last_us = int(events.t[-1])
            events, dropped = self._passed(events, passage, recording)
            reached_us = last_us if chunk.reached_us is None else chunk.reached_us
            yield Chunk(events, max(reached_us, last_us), chunk.dropped + dropped)

    def _passage_or_none(self, events: Events, recording: Recording) -> _Passage | None:
        """None where a service is sent what does not fit: it stays."""
        try:
            return self._passage_from(events, recording)
        except DataError as error:
            if self.source is None or not self._options.serve:
                raise
            self.source.ignore("recordings from another sensor")
            self.source.note(str(error))
            return None

    def _passage_from(self, events: Events, recording: Recording) -> _Passage:
        """Decides, from the first events of a recording, how they are to be seen."""
        options, model = self._options, self._binning.sensor_size
        size = options.sensor_size or events.sensor_size
        if size is None and self.source is not None:
            size = self.source.sensor_size
        if size is None:
            self._check_unknown(events, recording)
            size = model
        return self._passage_of(size, recording.file)

    def _passage_of(self, size: tuple[int, int], file: str) -> _Passage:
        options = self._options
        pixels = options.view.onto(size, self._binning.sensor_size, file)
        filters = None if options.filters.is_off else Filters(options.filters, size)
        return _Passage(size, pixels, filters)

    def _check_unknown(self, events: Events, recording: Recording) -> None:
        """Nobody says the sensor's size: it is the model's, unless it cannot be."""
        options, model = self._options, self._binning.sensor_size
        reached = int(events.x.max()) + 1, int(events.y.max()) + 1
        needs_size = options.view != View() or not options.filters.is_off
        if needs_size and not recording.trial:
            raise DataError(
                "source does not say how large its sensor is",
                got=f"events up to x={reached[0] - 1} y={reached[1] - 1}",
                expected="--sensor WIDTHxHEIGHT",
                where=recording.file,
            )
        outside = (events.x >= model[0]) | (events.y >= model[1])
        few = 2 * int(np.count_nonzero(outside)) <= len(events)
        if outside.any() and not (self.source is not None and few):
            camera = max(reached[0], model[0]), max(reached[1], model[1])
            got = f"events up to x={reached[0] - 1} y={reached[1] - 1}"
            if recording.trial or self.source is not None:
                got += " (its size is not said: --sensor WIDTHxHEIGHT)"
            raise misfit(got, camera, model, recording.file)

    def _passed(
        self, events: Events, passage: _Passage, recording: Recording
    ) -> tuple[Events, int]:
        """The events that the model sees, and how many were lost on the way."""
        size = passage.size
        dropped = 0
        if int(events.x.max()) >= size[0] or int(events.y.max()) >= size[1]:
            if self.source is None and not self._options.changes_events:
                events.check(sensor_size=size, where=recording.file)
            inside = (events.x < size[0]) & (events.y < size[1])
            dropped = int(np.count_nonzero(~inside))
            self._losses[_OUTSIDE] += dropped
            events = Events(
                events.t[inside], events.x[inside], events.y[inside], events.p[inside], size
            )
        if passage.filters is not None:
            before = Counter(passage.filters.taken)
            events = passage.filters.apply(events)
            self.taken += passage.filters.taken - before
        merge = self._options.merge
        if merge or not passage.pixels.is_identity:
            seen = passage.pixels.apply(events, merge=merge)
            if len(seen) < len(events):
                self.taken["outside the view"] += len(events) - len(seen)
            events = seen
        return events, dropped
