"""SOURCE → recordings: a file, a folder, a zip, or events in memory.

| source | recordings |
|---|---|
| `xxx.bin` | one trial, time 0 as the model was trained (DESIGN §5) |
| camera file | one stream that begins with its first event |
| zip or folder of `[Train|Test]/<label>/<file>` | labelled trials, in the order of their ids |
| DVS128 Gesture: its folder, or one `.aedat` with its `_labels.csv` | labelled trials |
| folder of files | each file as above, by name |

Live addresses are `mpsl_runtime.live.source`'s; `mpsl_runtime.live.feed` puts both together.
Where both splits are there, the test split is taken: accuracy on training data says little.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpsl_runtime.data.layouts.gestures import GestureSet, has_labels
from mpsl_runtime.data.layouts.gestures import is_there as gestures_are_there
from mpsl_runtime.data.layouts.recordings import RecordingSet, find_split, split_to_take
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import SUFFIXES, is_trial, read_chunks, read_events
from mpsl_runtime.events.steps import Chunk, Recording

__all__ = [
    "Source",
    "from_chunks",
    "from_events",
    "recordings",
]

Source = str | Path | Events | Iterable[Events]


def recordings(
    source: Source,
    binning: Binning,
    class_names: Sequence[str],
    *,
    options: ReadOptions | None = None,
    on_trouble: Callable[[str], None] | None = None,
    measure: bool = False,
) -> Iterator[Recording]:
    """The recordings of a source; paths are looked at now, files are read when their turn comes.

    Args:
        source: see the module; an iterable of Events is one stream that arrives in pieces.
        binning: of the model: its sensor and the time 0 of its trials.
        class_names: of the model; label folders are named after them.
        options: how files are to be read; labelled recordings are always read strictly.
        on_trouble: called with one line for a file that is not whole; by default a warning.
        measure: where a camera's file does not say its sensor, it is read once more beforehand, to
            see how far its events reach, and this is taken for the sensor and said.

    Raises:
        DataError: the path is absent, a label is no class, or nothing is there. While iterating:
            a recording is damaged.
    """
    if isinstance(source, Events):
        return iter([from_events(source, "events", binning, trial=True)])
    if not isinstance(source, str | Path):
        return iter([from_chunks(source, "events")])
    path = Path(source)
    reading = _Reading(options, on_trouble, measure)
    if path.is_dir():
        return _folder(path, binning, class_names, reading)
    if path.suffix.lower() == ".zip":
        return _labelled(
            RecordingSet.open(path, class_names, split=split_to_take(path)), binning, reading
        )
    if not path.is_file():
        raise DataError("no such file or folder", where=path)
    if has_labels(path):
        return _labelled(GestureSet.of_recording(path, len(class_names)), binning, reading)
    return _files([path], binning, reading)


@dataclass(frozen=True)
class _Reading:
    """How files are read, see `recordings`."""

    options: ReadOptions | None
    on_trouble: Callable[[str], None] | None
    measure: bool

    def say(self, line: str) -> None:
        """One line for people, by default a warning."""
        if self.on_trouble is None:
            warnings.warn(line, stacklevel=3)
        else:
            self.on_trouble(line)


def from_events(
    events: Events, name: str, binning: Binning, *, trial: bool, target: int | None = None
) -> Recording:
    """Events in memory as one recording; trials begin where `binning.origin` says."""
    origin_us = 0 if trial and binning.origin == "zero" else None
    return Recording(name, [Chunk(events)], origin_us, trial, target)


def from_chunks(pieces: Iterable[Events], name: str) -> Recording:
    """A stream that arrives in pieces, each in time order and after the one before."""
    return Recording(name, (Chunk(events) for events in pieces), None, trial=False)


def _files(paths: Iterable[Path], binning: Binning, reading: _Reading) -> Iterator[Recording]:
    """Trials whole, camera files piece by piece: the first step runs when its events are there."""
    for path in paths:
        if is_trial(path):
            events = read_events(path, reading.options, on_trouble=reading.on_trouble)
            yield from_events(events, str(path), binning, trial=True)
        else:
            yield Recording(str(path), _chunks(path, reading), None, trial=False)


def _chunks(path: Path, reading: _Reading) -> Iterator[Chunk]:
    size: tuple[int, int] | None = None
    with read_chunks(path, reading.options, on_trouble=reading.on_trouble) as pieces:
        for events in pieces:
            if events.sensor_size is None and reading.measure and len(events):
                size = size or _measured(path, reading)
                events = replace(events, sensor_size=size)
            yield Chunk(events)


def _measured(path: Path, reading: _Reading) -> tuple[int, int]:
    """(width, height) that the events of a file reach."""
    width = height = 1
    with read_chunks(path, reading.options, on_trouble=lambda _: None) as pieces:
        for events in pieces:
            if len(events):
                width = max(width, int(events.x.max()) + 1)
                height = max(height, int(events.y.max()) + 1)
    reading.say(
        f"{path}: does not say its sensor; taken for {width}x{height}, as far as its events go"
    )
    return width, height


def _labelled(
    samples: RecordingSet | GestureSet, binning: Binning, reading: _Reading
) -> Iterator[Recording]:
    """One without events is a recording like the others; its answer will be `none`."""
    empty: list[str] = []
    for index, sample in enumerate(samples.ids):
        events = samples.events(index, may_be_empty=True)
        if not len(events):
            empty.append(sample)
        recording = from_events(
            events,
            sample,
            binning,
            trial=isinstance(samples, GestureSet) or is_trial(sample),
            target=int(samples.labels[index]),
        )
        yield Recording(sample, recording.chunks, recording.origin_us, True, recording.target)
    if empty:
        count = f"{len(empty)} of {len(samples)} labelled recordings"
        reading.say(f"{count} without events, the first is {empty[0]}")


def _folder(
    path: Path,
    binning: Binning,
    class_names: Sequence[str],
    reading: _Reading,
) -> Iterator[Recording]:
    for root in (path, path / "DvsGesture", path / "DVSGesture"):
        split = next((s for s in ("test", "train") if gestures_are_there(root, s)), None)
        if split is not None:
            return _labelled(GestureSet.open(root, split, len(class_names)), binning, reading)
    place = find_split(path, "test") or find_split(path, "train") or path
    if place.suffix.lower() == ".zip":
        return _labelled(RecordingSet.open(place, class_names), binning, reading)
    try:
        entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError("folder cannot be read", got=error.strerror, where=place) from error
    if len(entries) == 1 and any(find_split(entries[0], split) for split in ("test", "train")):
        # An outer folder, as archives bring it.
        return _folder(entries[0], binning, class_names, reading)
    if any(entry.is_dir() for entry in entries):
        return _labelled(RecordingSet.open(place, class_names), binning, reading)
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(
            "folder has no recordings",
            expected=f"<label>/<file> or files with suffix {' '.join(SUFFIXES)}",
            where=path,
        )
    return _files(files, binning, reading)
