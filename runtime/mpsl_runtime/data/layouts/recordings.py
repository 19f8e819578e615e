"""Labelled recordings: `[Train|Test]/<label>/<file>` in a folder or a zip.

A sample's id is its path under the split, `3/00045.bin`, the same whether zipped or not.
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.containers import open_zip, read_member
from mpsl_runtime.data.layouts.layout import SplitName, register
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import SUFFIXES, decode_events, read_bytes

if TYPE_CHECKING:
    from mpsl_runtime.data.catalogue import DatasetFacts

__all__ = ["LabelFolders", "LabelledFiles", "RecordingSet", "find_split", "split_to_take"]

# A file in a zip that unpacks to more is a trap, not a trial.
_LARGEST_MEMBER = 1 << 28
_SPLITS = ("train", "test")


def find_split(root: Path, split: str) -> Path | None:
    """The folder or zip that holds a split: `Test/`, `test/`, `Test.zip` or `test.zip`; a folder
    goes before a zip."""
    for name in (split.capitalize(), split):
        if (root / name).is_dir():
            return root / name
    for name in (f"{split}.zip", f"{split.capitalize()}.zip"):
        if (root / name).is_file():
            return root / name
    return None


@dataclass(eq=False)
class LabelledFiles:
    """Labelled files in a fixed order: by label, then by name.

    Attributes:
        place: the folder or the zip.
        ids: paths under the split.
        labels: int64 [N], index into the class names.
    """

    noun: ClassVar[str] = "file"
    place: Path
    ids: list[str]
    labels: NDArray[np.int64]
    _members: list[str]
    _archives: dict[int, zipfile.ZipFile] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        place: Path,
        class_names: Sequence[str],
        *,
        split: str | None = None,
        suffixes: Iterable[str] = SUFFIXES,
    ) -> Self:
        """Lists the files.

        Args:
            place: a folder with one folder a label, or a zip with the same inside; the split's
                folder and others may lie around it in a zip.
            class_names: in the order of the labels; folders are named after them.
            split: which split to take where a zip holds both.
            suffixes: of files that are taken; a file with another one is an error, so that
                a mislabelled or stray file is not passed over in silence.

        Raises:
            DataError: unreadable, no such files, a label that is no class, a stray file.
        """
        zipped = not place.is_dir()
        members = _zip_members(place) if zipped else _folder_members(place)
        known = {name: label for label, name in enumerate(class_names)}
        rows: list[tuple[int, str, str]] = []
        for member in members:
            parts = _label_and_name(PurePosixPath(member).parts, zipped, split)
            if parts is None:
                continue
            where = f"{place}/{member}"
            if len(parts) != 2 or PurePosixPath(member).suffix.lower() not in suffixes:
                raise DataError(
                    f"file is not a labelled {cls.noun}",
                    got="/".join(parts),
                    expected=f"<label>/<name>{'|'.join(suffixes)}",
                    where=where,
                )
            if parts[0] not in known:
                raise DataError(
                    "label is not a class",
                    got=repr(parts[0]),
                    expected=", ".join(class_names),
                    where=where,
                )
            rows.append((known[parts[0]], "/".join(parts), member))
        if not rows:
            raise DataError(f"no {cls.noun}s", expected="<label>/<file>", where=place)
        rows.sort()
        ids = [row[1] for row in rows]
        twice = next((a for a, b in itertools.pairwise(ids) if a == b), None)
        if twice is not None:
            raise DataError(f"{cls.noun} is there twice", got=twice, where=place)
        labels = np.array([row[0] for row in rows], np.int64)
        return cls(place, ids, labels, [row[2] for row in rows])

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, index: int) -> Path:
        """The file (inside the zip), for messages and for its suffix."""
        return self.place / self._members[index]

    def read(self, index: int) -> bytes:
        """The file's content; DataError when it is absent or damaged."""
        member = self._members[index]
        if self.place.is_dir():
            return read_bytes(self.place / member)
        process = os.getpid()  # a forked worker needs its own file position
        if process not in self._archives:
            self._archives[process] = open_zip(self.place)
        return read_member(
            self._archives[process],
            member,
            _LARGEST_MEMBER,
            noun=self.noun,
            where=self.where(index),
        )

    def __getstate__(self) -> dict[str, object]:
        """Open archives do not travel to a spawned worker."""
        return {**self.__dict__, "_archives": {}}


class RecordingSet(LabelledFiles):
    """Labelled recordings."""

    noun = "recording"

    def events(self, index: int, *, may_be_empty: bool = False) -> Events:
        """The recording; DataError when it is absent, damaged, or empty where it may not be."""
        options = ReadOptions(strict=True, may_be_empty=may_be_empty)
        # All that such a reader could have to say is that nothing is there, which is seen.
        return decode_events(
            self.read(index), self.where(index), options, on_trouble=lambda _: None
        )


def split_to_take(place: Path) -> str | None:
    """Which split of a zip: of both the test split, of one or none what is there.

    Raises:
        DataError: absent or damaged.
    """
    folders = {part.lower() for name in _zip_members(place) for part in name.split("/")[:-1]}
    return "test" if set(_SPLITS) <= folders else None


def _label_and_name(
    parts: tuple[str, ...], zipped: bool, split: str | None
) -> tuple[str, ...] | None:
    """What should be (label, name) of a member's path; None where it is hidden or of another
    split."""
    if any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    if not zipped:
        return parts
    inside = [i for i, part in enumerate(parts) if part.lower() in _SPLITS]
    if not inside:
        return parts[-2:]
    if split is not None and parts[inside[-1]].lower() != split:
        return None
    return parts[inside[-1] + 1 :]


def _zip_members(path: Path) -> list[str]:
    with open_zip(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def _folder_members(place: Path) -> list[str]:
    try:
        return [
            f"{label.name}/{file.name}"
            for label in place.iterdir()
            if label.is_dir()
            for file in label.iterdir()
            if file.is_file()
        ]
    except OSError as error:
        raise DataError("folder cannot be read", got=error.strerror, where=place) from error


class LabelFolders:
    """`[Train|Test]/<label>/<file>`, unpacked or zipped."""

    def is_there(self, root: Path, split: SplitName) -> bool:
        """See `Layout.is_there`."""
        return find_split(root, split) is not None

    def read(self, root: Path, split: SplitName, facts: DatasetFacts) -> RecordingSet:
        """See `Layout.read`."""
        place = find_split(root, split)
        if place is None:
            raise DataError(f"no {split} recordings", expected=split.capitalize(), where=root)
        return RecordingSet.open(place, facts.class_names, split=split, suffixes=facts.suffixes)


register("recordings", LabelFolders())
