"""DVS128 Gesture: eleven gestures of arms and hands before a camera of 128x128 pixels.

Source: A. Amir et al., "A low power, fully event-based gesture recognition system", CVPR 2017. Two
layouts are read:

As published: `user01_led.aedat` (AEDAT 3.1) with `user01_led_labels.csv`, and the lists
`trials_to_train.txt` and `trials_to_test.txt`. A trial is a row `class,startTime_usec,endTime_usec`
with a class of 1…11: the events with start ≤ t < end.

As tonic packs it: `ibmGestureTrain/user01_led/0.npy` and `ibmGestureTest/…`. A trial is a file with
the columns x, y, polarity and time in ms, named by its label, 0…10.

Time 0 of a trial is its start by the label file, or, where there is none, its first event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.containers import map_array
from mpsl_runtime.data.layouts.layout import SplitName, register
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import read_bytes, read_events

if TYPE_CHECKING:
    from mpsl_runtime.data.catalogue import DatasetFacts

__all__ = [
    "MADE_RECORD",
    "SENSOR_SIZE",
    "GestureSet",
    "Gestures",
    "Trial",
    "has_labels",
    "is_there",
    "read_labels",
]

SENSOR_SIZE = (128, 128)
# Made recordings have the published layout and this file, and are never taken for the real ones.
MADE_RECORD = "dvs-gesture-made.json"

_HEADER = ["class", "startTime_usec", "endTime_usec"]
_LARGEST_TEXT = 1 << 20
_LARGEST_RECORDING = 1 << 31
_TONIC = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}


@dataclass(frozen=True)
class Trial:
    """One sample.

    Attributes:
        path: the recording.
        label: 0…10. start_us, end_us: in the recording's time; equal where the file is the trial.
    """

    path: Path
    label: int
    start_us: int = 0
    end_us: int = 0


def is_there(root: Path, split: str | None = None, *, made: bool | None = None) -> bool:
    """Whether `root` holds the data set, or one split of it, in one of the two layouts.

    Args:
        made: only the made recordings (True), only others (False), or both (None).
    """
    if made is not None and (root / MADE_RECORD).is_file() is not made:
        return False
    splits = _TONIC if split is None else (split,)
    return any(_list_of(root, one).is_file() or (root / _TONIC[one]).is_dir() for one in splits)


def has_labels(path: Path) -> bool:
    """Whether a recording's label file lies beside it: `user01_led_labels.csv`."""
    return path.suffix.lower() == ".aedat" and _labels_of(path).is_file()


def _labels_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.csv")


def _list_of(root: Path, split: str) -> Path:
    return root / f"trials_to_{split}.txt"


def read_labels(path: Path, classes: int) -> list[tuple[int, int, int]]:
    """The rows of a label file: (label from 0, start, end), times in µs of the recording.

    Raises:
        DataError: absent, not such a file, a class that is none, or a trial that ends before it
            starts.
    """
    lines = _text(path).splitlines()
    if not lines or [cell.strip() for cell in lines[0].split(",")] != _HEADER:
        raise DataError(
            "not a label file",
            got=repr(lines[0][:40] if lines else ""),
            expected=",".join(_HEADER),
            where=path,
        )
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 3 or not all(c.isascii() and c.isdigit() and len(c) < 19 for c in cells):
            raise DataError(
                "row is not a trial", got=repr(line[:40]), expected=",".join(_HEADER), where=where
            )
        kind, start, end = (int(cell) for cell in cells)
        if not 1 <= kind <= classes:
            raise DataError("label is not a class", got=kind, expected=f"1…{classes}", where=where)
        if end <= start:
            raise DataError("trial ends before it starts", got=f"{start}…{end} µs", where=where)
        rows.append((kind - 1, start, end))
    if not rows:
        raise DataError("label file has no trials", where=path)
    return rows


def _text(path: Path) -> str:
    if path.is_file() and path.stat().st_size > _LARGEST_TEXT:
        raise DataError("text file is too large", got=f"{path.stat().st_size} bytes", where=path)
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError("not a text file", where=path) from None


@dataclass(eq=False)
class GestureSet:
    """Trials in a fixed order: by recording, then as the label file or the labels order them.

    Attributes:
        ids: "user01_led/00": the recording and the number of the trial in it, or the file's label.
        labels: int64 [N].
    """

    ids: list[str]
    labels: NDArray[np.int64]
    _trials: list[Trial]
    _held: dict[Path, Events] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path, split: str, classes: int) -> GestureSet:
        """Lists the trials of a split; recordings are read when their turn comes.

        Args:
            root: where `is_there`. classes: how many the model or the data set has.

        Raises:
            DataError: the split is absent, a listed file is missing, or a label is not a class.
        """
        listed = _list_of(root, split)
        if not listed.is_file():
            if (root / _TONIC[split]).is_dir():
                return _of_trials(_packed_trials(root / _TONIC[split], classes))
            raise DataError(
                f"no {split} trials",
                expected=f"{listed.name} or {_TONIC[split]}/",
                where=root,
            )
        trials: list[tuple[str, Trial]] = []
        names = [line.strip() for line in _text(listed).splitlines() if line.strip()]
        for name in sorted(names):
            if Path(name).name != name or Path(name).suffix != ".aedat":
                raise DataError(
                    "line is not the name of a recording",
                    got=repr(name[:60]),
                    expected="user01_led.aedat",
                    where=listed,
                )
            if not (root / name).is_file():
                raise DataError(f"recording of {listed.name} is missing", where=root / name)
            trials += _cut_trials(root / name, classes)
        twice = len(names) - len(set(names))
        if twice or not trials:
            what = "recording is listed twice" if twice else "no recordings are listed"
            raise DataError(what, where=listed)
        return _of_trials(trials)

    @classmethod
    def of_recording(cls, path: Path, classes: int) -> GestureSet:
        """The trials of one recording with its label file beside it; DataError as `open`."""
        return _of_trials(_cut_trials(path, classes))

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, index: int) -> Path:
        """The trial's recording, for messages."""
        return self._trials[index].path

    def events(self, index: int, *, may_be_empty: bool = False) -> Events:
        """The trial's events, t from its start in µs.

        Raises:
            DataError: the recording is damaged, or has no event in the trial, which is no sample
                of a data set; a stranger's label file may well name one (`may_be_empty`).
        """
        trial = self._trials[index]
        if trial.path.suffix == ".npy":
            events = _read_packed(trial.path)
        else:
            # Trials come recording by recording: one is held, not all.
            if trial.path not in self._held:
                self._held = {trial.path: _read_recording(trial.path)}
            whole = self._held[trial.path]
            first, last = np.searchsorted(whole.t, [trial.start_us, trial.end_us])
            part = whole.slice(int(first), int(last))
            events = Events(part.t - trial.start_us, part.x, part.y, part.p, SENSOR_SIZE)
        if not len(events) and not may_be_empty:
            raise DataError(
                "trial has no events",
                got=f"{trial.start_us}…{trial.end_us} µs" if trial.end_us else None,
                where=trial.path,
            )
        return events

    def read(self, index: int) -> bytes:
        """The trial's events as bytes (t, x, y, p, column by column), for hashes."""
        events = self.events(index)
        columns = (events.t, events.x, events.y, events.p)
        return b"".join(
            column.astype(column.dtype.newbyteorder("<")).tobytes() for column in columns
        )

    def __getstate__(self) -> dict[str, object]:
        """A held recording does not travel to a spawned worker."""
        return {**self.__dict__, "_held": {}}


def _of_trials(trials: Iterable[tuple[str, Trial]]) -> GestureSet:
    pairs = list(trials)
    labels = np.array([trial.label for _, trial in pairs], np.int64)
    return GestureSet([name for name, _ in pairs], labels, [trial for _, trial in pairs])


def _cut_trials(path: Path, classes: int) -> list[tuple[str, Trial]]:
    rows = read_labels(_labels_of(path), classes)
    return [
        (f"{path.stem}/{number:02d}", Trial(path, label, start, end))
        for number, (label, start, end) in enumerate(rows)
    ]


def _packed_trials(place: Path, classes: int) -> list[tuple[str, Trial]]:
    trials = []
    for path in sorted(place.glob("*/*.npy"), key=_user_then_label):
        if path.name.startswith("."):
            continue
        if not path.stem.isdigit() or not 0 <= int(path.stem) < classes:
            raise DataError(
                "label is not a class",
                got=repr(path.stem),
                expected=f"0…{classes - 1}, as the name of the file",
                where=path,
            )
        trials.append((f"{path.parent.name}/{path.stem}", Trial(path, int(path.stem))))
    if not trials:
        raise DataError("no recordings", expected="<user>/<label>.npy", where=place)
    return trials


def _user_then_label(path: Path) -> tuple[str, str]:
    return path.parent.name, path.stem.rjust(4)


def _read_recording(path: Path) -> Events:
    size = path.stat().st_size if path.is_file() else 0
    if size > _LARGEST_RECORDING:
        raise DataError("recording is too large", got=f"{size} bytes", where=path)
    # What is empty is a matter of trials.
    options = ReadOptions(strict=True, may_be_empty=True)
    events = read_events(path, options, on_trouble=lambda _: None)
    events.check(sensor_size=SENSOR_SIZE, where=path)
    return events


def _read_packed(path: Path) -> Events:
    table = map_array(path, damage="damaged or truncated recording")
    if table.ndim != 2 or table.shape[1] != 4 or table.dtype.kind not in "iuf":
        raise DataError(
            "recording is no table of events",
            got=f"{table.dtype} {table.shape}",
            expected="numbers [N, 4]: x, y, polarity, time in ms",
            where=path,
        )
    values = np.asarray(table, np.float64)
    if not np.all(np.isfinite(values)) or np.abs(values).max(initial=0) > 1e12:
        raise DataError("recording has impossible numbers", where=path)
    t = np.rint(values[:, 3] * 1000).astype(np.int64)
    return Events.from_columns(
        t - (t[0] if len(t) else 0),
        values[:, 0].astype(np.int64),
        values[:, 1].astype(np.int64),
        values[:, 2].astype(np.int64),
        sensor_size=SENSOR_SIZE,
        where=path,
    )


class Gestures:
    """Trials in one of the two layouts above.

    Args:
        made: the recordings that are made here, and no others; or others, and none of these.
    """

    def __init__(self, *, made: bool) -> None:
        self._made = made

    def is_there(self, root: Path, split: SplitName) -> bool:
        """See `Layout.is_there`."""
        return is_there(root, split, made=self._made)

    def read(self, root: Path, split: SplitName, facts: DatasetFacts) -> GestureSet:
        """See `Layout.read`."""
        return GestureSet.open(root, split, len(facts.class_names))


register("gestures", Gestures(made=False))
register("gestures-made", Gestures(made=True))
