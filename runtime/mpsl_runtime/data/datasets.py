"""Data sets: files on disk → samples with an id and a label → the network's input.

Training wraps these classes, verification and `mpsl run` use them as they are, so that a model
meets the same input everywhere. Nothing here downloads or makes data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.catalogue import DATASETS, DatasetFacts, facts_of
from mpsl_runtime.data.layouts import ImageSamples, RecordingSamples, SplitName, layout_of
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events import binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.model.metadata import InputKind, ModelMetadata

__all__ = [
    "DATASETS",
    "SPLITS",
    "DatasetFacts",
    "Split",
    "SplitName",
    "content_hash",
    "facts_of",
    "find",
    "image_current",
    "look_for",
    "open_split",
]

SPLITS: tuple[SplitName, ...] = ("train", "test")


def find(name: str, data: Path | None = None) -> Path:
    """The folder that holds the files of a data set.

    Args:
        name: one of `DATASETS`.
        data: the data set's own folder or its parent (`--data`); None looks in
            `$MPSL_DATA/<name>`, then in `~/.cache/mpsl/<name>`. Zips or unpacked, with or without
            the outer folder that the data set's source packs around it.

    Raises:
        UsageError: unknown name. DataError: nothing there; says where it was looked for.
    """
    facts = facts_of(name)
    if data is not None and not Path(data).is_dir():
        raise DataError("no such data folder", expected=facts.missing or None, where=data)
    root = look_for(name, data)
    if root is None:
        raise DataError(
            f"data set {name} is not there; {facts.missing}",
            where=" or ".join(str(base) for base in _bases(name, data)),
        )
    return root


def look_for(name: str, data: Path | None = None) -> Path | None:
    """As `find`; None where the data set is not there."""
    facts = facts_of(name)
    layout = layout_of(facts.layout)
    for base in _bases(name, data):
        for root in (base, *(base / outer for outer in facts.outer)):
            if any(layout.is_there(root, split) for split in SPLITS):
                return root
    return None


def _bases(name: str, data: Path | None) -> list[Path]:
    if data is not None:
        return [Path(data), Path(data) / name]
    bases = [Path.home() / ".cache" / "mpsl" / name]
    if os.environ.get("MPSL_DATA"):
        bases.insert(0, Path(os.environ["MPSL_DATA"]) / name)
    return bases


@dataclass(frozen=True, eq=False)
class Split:
    """The training or the test samples of a data set.

    Attributes:
        facts: of the data set; split: `train` or `test`.
        ids: of every sample, in a fixed order: "3/00045.bin", or "00045" for images.
        labels: int64 [N].
    """

    facts: DatasetFacts
    split: SplitName
    ids: list[str]
    labels: NDArray[np.int64]
    _samples: ImageSamples | RecordingSamples

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.facts.name

    @property
    def kind(self) -> InputKind:
        """`events` or `image`."""
        return self.facts.kind

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.facts.class_names

    def raw(self, index: int) -> bytes:
        """The recording's file content, or the image's pixels."""
        if isinstance(self._samples, ImageSamples):
            return self.image(index).tobytes()
        return self._samples.read(index)

    def events(self, index: int) -> Events:
        """The recording; DataError when it is damaged or an event lies outside the sensor."""
        if isinstance(self._samples, ImageSamples):
            raise DataError(f"data set {self.name} has images, not events")
        where = self._samples.where(index)
        events = self._samples.events(index)
        events.check(sensor_size=self.facts.sensor_size, where=where)
        return replace(events, sensor_size=self.facts.sensor_size)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, uint8 [C, H, W]."""
        image: NDArray[np.uint8] = self.images()[index]
        return image

    def images(self) -> NDArray[np.uint8]:
        """All images, uint8 [N, C, H, W]."""
        if not isinstance(self._samples, ImageSamples):
            raise DataError(f"data set {self.name} has events, not images")
        return self._samples.images

    def input(self, index: int, metadata: ModelMetadata) -> NDArray[np.float32]:
        """The network's input, float32 [T, C, H, W].

        Events are binned; an image is the same current in every step (a read-only view).

        Raises:
            DataError: the recording is damaged, or the model wants the other kind of input.
        """
        if metadata.input_kind != self.kind:
            raise DataError(
                "model and data set do not fit",
                got=f"{self.name}: {self.kind}",
                expected=metadata.input_kind,
            )
        if self.kind == "events":
            return binning.frames(self.events(index), metadata.binning)
        current = image_current(self.image(index), metadata)
        return np.broadcast_to(current, (metadata.steps, *current.shape))


def open_split(name: str, root: Path, split: SplitName) -> Split:
    """Opens one split of a data set; for events only the list of files is read here.

    Args:
        name: one of `DATASETS`; root: the folder that `find` returned.

    Raises:
        DataError: files are absent, damaged, or labelled with a class the data set does not have.
    """
    facts = facts_of(name)
    if split not in SPLITS:
        raise UsageError("unknown split", got=repr(split), expected="train or test")
    root, layout = Path(root), layout_of(facts.layout)
    if not layout.is_there(root, split):
        raise DataError(f"data set {name} has no {split} files; {facts.missing}", where=root)
    samples = layout.read(root, split, facts)
    if isinstance(samples, ImageSamples):
        shape = samples.images.shape[1:]
        if shape != facts.image_shape:
            raise DataError(
                "images have another shape", got=shape, expected=facts.image_shape, where=root
            )
    else:
        _check_classes(facts, samples.labels, root)
    return Split(facts, split, samples.ids, samples.labels, samples)


def _check_classes(facts: DatasetFacts, labels: NDArray[np.int64], root: Path) -> None:
    """nmnist8 opened as nmnist would otherwise give a score for the wrong data set."""
    absent = set(range(len(facts.class_names))) - set(labels.tolist())
    if absent:
        names = ", ".join(facts.class_names[label] for label in sorted(absent))
        raise DataError(
            f"data set {facts.name} lacks recordings of class {names}",
            expected=f"{len(facts.class_names)} classes",
            where=root,
        )


def image_current(images: NDArray[np.uint8], metadata: ModelMetadata) -> NDArray[np.float32]:
    """Intensity as current, on a power-of-two grid so that sums are exact in any order.

    pixel/256; with mean and std round(((pixel/255 − mean)/std)·64)/64, computed in float64.

    Args:
        images: uint8 [..., C, H, W].

    Returns:
        float32 [..., C, H, W].

    Raises:
        DataError: mean and std do not fit the number of channels.
    """
    if not metadata.image_mean and not metadata.image_std:
        return images.astype(np.float32) / np.float32(256)
    mean = _per_channel(metadata.image_mean, images.shape[-3])
    std = _per_channel(metadata.image_std, images.shape[-3])
    if not np.all(std > 0):
        raise DataError("image_std must be positive", got=metadata.image_std)
    # 256 values a channel: a table is exact and far quicker than float64 over all pixels.
    pixel = np.arange(256, dtype=np.float64) / 255
    table = (np.rint((pixel - mean[:, None]) / std[:, None] * 64) / 64).astype(np.float32)
    channel: NDArray[np.intp] = np.arange(images.shape[-3])[:, None, None]
    current: NDArray[np.float32] = table[channel, images]
    return current


def _per_channel(text: str, channels: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if len(values) not in (1, channels) or not np.all(np.isfinite(values)):
        raise DataError(
            "image mean or std does not fit", got=repr(text), expected=f"1 or {channels} numbers"
        )
    return np.broadcast_to(values, (channels,))


def content_hash(split: Split, progress: Callable[[int], None] | None = None) -> str:
    """sha256 over name, ids, labels and the raw bytes of every sample: which data this is.

    The same for zips and unpacked folders.

    Args:
        progress: called with each index, for a progress bar.
    """
    digest = hashlib.sha256(f"{split.name}\n{split.split}\n{len(split)}\n".encode())
    for index, (sample, label) in enumerate(zip(split.ids, split.labels, strict=True)):
        raw = split.raw(index)
        digest.update(f"{sample}\n{int(label)}\n{len(raw)}\n".encode())
        digest.update(raw)
        if progress is not None:
            progress(index)
    return digest.hexdigest()
