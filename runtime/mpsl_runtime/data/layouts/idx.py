"""IDX files, the format of MNIST: big-endian magic 0x0000 08 <dimensions>, uint32 sizes, bytes.

Source: Y. LeCun, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.layouts.layout import ImageSamples, SplitName, register
from mpsl_runtime.errors import DataError

if TYPE_CHECKING:
    from mpsl_runtime.data.catalogue import DatasetFacts

__all__ = ["IdxPairs", "find_pair", "read_idx", "read_pair"]

# Five times the images of MNIST.
_LARGEST = 1 << 28
_PREFIX = {"train": "train", "test": "t10k"}


def find_pair(root: Path, split: str) -> tuple[Path, Path] | None:
    """(images, labels) of a split under their official names, compressed or not; else None."""
    found = []
    for what in ("images-idx3", "labels-idx1"):
        stem = f"{_PREFIX[split]}-{what}-ubyte"
        paths = [root / f"{stem}.gz", root / stem, root / stem.replace("-idx", ".idx")]
        there = [path for path in paths if path.is_file()]
        if not there:
            return None
        found.append(there[0])
    return found[0], found[1]


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes, gzip-compressed if its content is.

    Raises:
        DataError: not an IDX file, other dimensions, truncated, or longer than its header says.
    """
    try:
        with path.open("rb") as plain:
            compressed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as stream:
            head = stream.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(
                    "not an IDX file of bytes",
                    got=head[:4].hex() or "nothing",
                    expected=f"magic 000008{dimensions:02x}",
                    where=path,
                )
            shape = tuple(int(size) for size in np.frombuffer(head[4:], ">u4"))
            size = int(np.prod([int(n) for n in shape], dtype=object))
            if size > _LARGEST:
                raise DataError("IDX header asks for too much", got=shape, where=path)
            body = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError("no such file", where=path) from None
        raise DataError("damaged or truncated file", got=error, where=path) from None
    if len(body) != size:
        raise DataError(
            "IDX file and its header differ in size",
            got=f"{len(body)}{'+' if len(body) > size else ''} bytes",
            expected=f"{size} for {shape}",
            where=path,
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_pair(
    images: Path, labels: Path, *, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, 1, H, W] and labels int64 [N].

    Raises:
        DataError: see `read_idx`; also when the numbers differ or a label is not a class.
    """
    pixels = read_idx(images, 3)
    target = read_idx(labels, 1).astype(np.int64)
    if len(pixels) != len(target):
        raise DataError(
            "images and labels differ in number",
            got=len(target),
            expected=len(pixels),
            where=labels,
        )
    if not len(target):
        raise DataError("data set is empty", where=images)
    if int(target.max()) >= classes:
        raise DataError(
            "label is not a class", got=int(target.max()), expected=f"0…{classes - 1}", where=labels
        )
    return pixels[:, None], target


class IdxPairs:
    """For each split a file of images and one of labels, under MNIST's names."""

    def is_there(self, root: Path, split: SplitName) -> bool:
        """See `Layout.is_there`."""
        return find_pair(root, split) is not None

    def read(self, root: Path, split: SplitName, facts: DatasetFacts) -> ImageSamples:
        """See `Layout.read`."""
        pair = find_pair(root, split)
        if pair is None:
            raise DataError(f"no {split} files", expected=f"{_PREFIX[split]}-*-ubyte", where=root)
        return ImageSamples(*read_pair(*pair, classes=len(facts.class_names)))


register("idx", IdxPairs())
