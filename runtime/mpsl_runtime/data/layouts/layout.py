"""What a layout is, and where it is registered."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events

if TYPE_CHECKING:
    from mpsl_runtime.data.catalogue import DatasetFacts

__all__ = ["ImageSamples", "Layout", "RecordingSamples", "SplitName", "layout_of", "register"]

SplitName = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageSamples:
    """Labelled images, all in memory: uint8 [N, C, H, W] and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def ids(self) -> list[str]:
        """Their numbers: "00045"."""
        return [f"{index:05d}" for index in range(len(self.images))]


class RecordingSamples(Protocol):
    """Labelled recordings; a file is read when its turn comes.

    Attributes:
        ids: of every sample, in a fixed order: "3/00045.bin".
        labels: int64 [N].
    """

    ids: list[str]
    labels: NDArray[np.int64]

    def where(self, index: int) -> Path:
        """The file, for messages."""
        ...

    def events(self, index: int) -> Events:
        """The recording; DataError when it is absent or damaged."""
        ...

    def read(self, index: int) -> bytes:
        """What names this very recording in a hash: its file's content."""
        ...


class Layout(Protocol):
    """How the files of a data set lie in a folder, and how they are read."""

    def is_there(self, root: Path, split: SplitName) -> bool:
        """Whether a folder holds the files of a split; none is opened."""
        ...

    def read(
        self, root: Path, split: SplitName, facts: DatasetFacts
    ) -> ImageSamples | RecordingSamples:
        """The samples of a split.

        Args:
            root: where `is_there` said yes. facts: of the data set; class names above all.

        Raises:
            DataError: files are absent, damaged, or labelled with a class that is none.
        """
        ...


_LAYOUTS: dict[str, Layout] = {}


def register(name: str, layout: Layout) -> None:
    """Makes a layout known by the name that `DatasetFacts.layout` gives.

    Raises:
        UsageError: another one has this name.
    """
    if name in _LAYOUTS and type(_LAYOUTS[name]) is not type(layout):
        raise UsageError("two layouts have one name", got=repr(name))
    _LAYOUTS[name] = layout


def layout_of(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in _LAYOUTS:
        package = import_module("mpsl_runtime.data.layouts")
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")
    if name not in _LAYOUTS:
        raise UsageError("unknown layout", got=repr(name), expected=", ".join(sorted(_LAYOUTS)))
    return _LAYOUTS[name]
