"""CIFAR-10's binary version: six batches, each record one label byte and 3,072 bytes of pixels (the
planes red, green, blue of 32x32, row by row).

Source: A. Krizhevsky, "The CIFAR-10 dataset", section "Binary version". Read unpacked, or from
`cifar-10-binary.tar.gz` as it was downloaded.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.containers import BoundedStream
from mpsl_runtime.data.layouts.layout import ImageSamples, SplitName, register
from mpsl_runtime.errors import DataError

if TYPE_CHECKING:
    from mpsl_runtime.data.catalogue import DatasetFacts

__all__ = [
    "ARCHIVE",
    "BATCHES",
    "CifarBatches",
    "is_there",
    "read_batch",
    "read_batches",
    "read_split",
]

ARCHIVE = "cifar-10-binary.tar.gz"
BATCHES: dict[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_ALL = (*BATCHES["train"], *BATCHES["test"])

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
# An official batch has 30 MB, and the archive unpacks to 184: anything larger is something else.
_LARGEST = 1 << 26
_LARGEST_ARCHIVE = 1 << 28
_MOST_MEMBERS = 1000
# What tarfile raises for damaged headers; RecursionError for long names within long names.
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
)


def is_there(root: Path) -> bool:
    """Whether `root` has the archive or a batch; which are missing is said on reading."""
    return any((root / name).is_file() for name in (ARCHIVE, *_ALL))


def read_split(
    root: Path, split: str, *, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N], in the order of the batches.

    Raises:
        DataError: a batch is absent, damaged, no whole number of records, of another length than
            the others, or has a label that is not a class.
    """
    parts = [
        _parsed(content, root / name, classes)
        for name, content in read_batches(root, split).items()
    ]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def read_batch(path: Path, *, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One batch by itself: images uint8 [N, 3, 32, 32] and labels int64 [N].

    Raises:
        DataError: see `read_split`.
    """
    content = _read(path)
    _check_whole(content, path)
    return _parsed(content, path, classes)


def _parsed(
    content: bytes, where: Path, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    if int(records[:, 0].max()) >= classes:
        index = int(np.argmax(records[:, 0] >= classes))
        raise DataError(
            f"label of record {index} is not a class",
            got=int(records[index, 0]),
            expected=f"0…{classes - 1}",
            where=where,
        )
    return records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].astype(np.int64)


def _check_whole(content: bytes, where: Path) -> None:
    if not content or len(content) % _RECORD:
        raise DataError(
            "batch is no whole number of records",
            got=f"{len(content)} bytes",
            expected=f"a multiple of {_RECORD}; truncated?",
            where=where,
        )


def read_batches(root: Path, split: str) -> dict[str, bytes]:
    """The content of a split's batches by name; unpacked ones go before the archive.

    Raises:
        DataError: see `read_split`; labels are not looked at.
    """
    names = BATCHES[split]
    found = [name for name in _ALL if (root / name).is_file()]
    if not found and (root / ARCHIVE).is_file():
        contents = _from_archive(root / ARCHIVE, names)
        where = root / ARCHIVE
    else:
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(
                f"{missing[0]} of data set cifar10 is missing",
                got=", ".join(found) or "no batch",
                expected=", ".join(names),
                where=root,
            )
        contents = {name: _read(root / name) for name in names}
        where = root
    for name, content in contents.items():
        _check_whole(content, where / name)
    sizes = {name: len(content) for name, content in contents.items()}
    # A batch that was cut off between two records shows only beside the others.
    sizes.update((name, _size(root / name)) for name in found)
    _same_size(sizes, where)
    return contents


def _same_size(sizes: dict[str, int], where: Path) -> None:
    (first, size), *others = sizes.items()
    for name, length in others:
        if length != size:
            raise DataError(
                "batches differ in size; truncated?",
                got=f"{name} {length} bytes, {first} {size}",
                expected="the same number of records in all six",
                where=where,
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror, where=path) from error


def _read(path: Path) -> bytes:
    if _size(path) > _LARGEST:
        raise _too_large(path, _size(path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror, where=path) from error


def _too_large(where: Path, size: int) -> DataError:
    return DataError(
        "batch is too large", got=f"{size} bytes", expected=f"{10_000 * _RECORD}", where=where
    )


def _from_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Reads the members of those names, wherever they lie in the archive; nothing is unpacked."""
    found: dict[str, bytes] = {}
    try:
        # As a stream: going back would unpack everything before once more.
        with (
            gzip.open(path) as packed,
            BoundedStream(packed, _LARGEST_ARCHIVE, path) as bounded,
            tarfile.open(fileobj=bounded, mode="r|") as archive,
        ):
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise DataError("archive has too many members", where=path)
                name = Path(member.name).name
                if name not in names or not member.isfile():
                    continue
                if name in found:
                    raise DataError("batch is there twice", got=member.name, where=path)
                if member.size > _LARGEST:
                    raise _too_large(path / member.name, member.size)
                stream = archive.extractfile(member)
                found[name] = b"" if stream is None else stream.read()
                if len(found[name]) != member.size:
                    raise DataError("damaged or truncated archive", where=path)
            # The checksum stands at the very end, behind the last member.
            while bounded.read(1 << 20):
                pass
    except _DAMAGE as error:
        raise DataError("damaged or truncated archive", got=error, where=path) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{missing[0]} of data set cifar10 is missing",
            got=", ".join(found) or "no batch",
            expected=", ".join(names),
            where=path,
        )
    return {name: found[name] for name in names}


class CifarBatches:
    """The six batches, unpacked or in their archive."""

    def is_there(self, root: Path, split: SplitName) -> bool:
        """See `Layout.is_there`; one batch of either split is enough."""
        return is_there(root)

    def read(self, root: Path, split: SplitName, facts: DatasetFacts) -> ImageSamples:
        """See `Layout.read`."""
        return ImageSamples(*read_split(root, split, classes=len(facts.class_names)))


register("cifar", CifarBatches())
