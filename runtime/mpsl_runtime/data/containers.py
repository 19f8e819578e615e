"""Zips, gzip streams and numpy arrays of unknown origin, read within limits.

What a container declares is held against a limit before anything is unpacked, and no more is
unpacked than it declares: a megabyte can say that it is a gigabyte, or become one.
"""

from __future__ import annotations

import gzip
import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError

__all__ = ["BoundedStream", "array_of", "map_array", "open_zip", "read_arrays", "read_member"]

LARGEST_DIRECTORY = 1 << 26
"""Bytes of a zip's list of members: about half a million of them."""

_END = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 1 << 16
# What Python raises for damaged zips; RuntimeError for one that is encrypted.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    OverflowError,
    NotImplementedError,
)
# What numpy raises for damaged headers, which it parses as Python.
_NO_ARRAY = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip whose list of members has been read.

    Raises:
        DataError: absent, damaged, or with more members than `LARGEST_DIRECTORY` can list.
    """
    try:
        size = _directory_bytes(path)
        if size > LARGEST_DIRECTORY:
            raise DataError(
                "zip lists too many members",
                got=f"{size} bytes",
                expected=f"≤ {LARGEST_DIRECTORY}",
                where=path,
            )
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError("no such file", where=path) from None
    except PermissionError as error:
        raise DataError("file cannot be read", got=error.strerror, where=path) from None
    except _DAMAGE as error:
        raise DataError("damaged or truncated zip", got=error, where=path) from None


def _directory_bytes(path: Path) -> int:
    """The size of a zip's list as its end says it; the file's own size where that is not found, or
    stands in the larger form."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + _END_BYTES:
        return size
    stated = int.from_bytes(tail[at + 12 : at + 16], "little")
    return size if stated == 0xFFFFFFFF else min(stated, size)


def read_member(
    archive: zipfile.ZipFile, name: str, largest: int, *, noun: str, where: Path
) -> bytes:
    """The content of a member.

    Args:
        largest: bytes that it may have. noun: what it is, for messages. where: likewise.

    Raises:
        DataError: absent, damaged, encrypted, too large, or packed in an unusual way.
    """
    try:
        info = archive.getinfo(name)
        if info.file_size > largest:
            raise DataError(
                f"{noun} in the zip is too large",
                got=f"{info.file_size} bytes",
                expected=f"≤ {largest}",
                where=where,
            )
        # Others may ask for gigabytes before they give a byte.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"compression of the {noun} in the zip is not read",
                got=f"method {info.compress_type}",
                expected="deflate",
                where=where,
            )
        # Not archive.read(), which unpacks all that there is before it looks at the size.
        with archive.open(info) as stream:
            return stream.read(info.file_size + 1)
    except _DAMAGE as error:
        raise DataError(f"{noun} in the zip cannot be read", got=error, where=where) from None


class BoundedStream(io.RawIOBase):
    """A gzip stream, from its beginning, that refuses to give more than a limit in all."""

    def __init__(self, packed: gzip.GzipFile, largest: int, where: Path) -> None:
        super().__init__()
        self._packed, self._left, self._largest, self._where = packed, largest, largest, where

    def readable(self) -> bool:
        """Of io.RawIOBase."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            DataError: there is more than the limit, or more is asked for.
        """
        if size < 0 or size > self._left:
            size = self._left + 1
        data = self._packed.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                "archive unpacks to too much",
                got="more",
                expected=f"≤ {self._largest} bytes",
                where=self._where,
            )
        return data


def map_array(path: Path, *, damage: str) -> NDArray[Any]:
    """An array of a `.npy` file, mapped: a header that claims more than the file holds is an error
    and no allocation.

    Args:
        damage: what is wrong where it cannot be read, for the message.

    Raises:
        DataError: absent, damaged, of Python objects, or no array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError("no such file", where=path) from None
    except _NO_ARRAY as error:
        raise DataError(damage, got=error or type(error).__name__, where=path) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(damage, got="an archive", where=path)
    return array


def read_arrays(path: Path, names: tuple[str, ...], largest: int) -> list[NDArray[Any]]:
    """Arrays of numbers of an `.npz` file, by name.

    Args:
        largest: bytes that all of them may have together.

    Raises:
        DataError: the file is absent or damaged; one of them is not there, too large, or no array
            of numbers.
    """
    found: list[NDArray[Any]] = []
    with open_zip(path) as archive:
        listed = set(archive.namelist())
        missing = [name for name in names if f"{name}.npy" not in listed]
        if missing:
            raise DataError(
                "array is not in the file",
                got=f"no {missing[0]!r}",
                expected=", ".join(names),
                where=path,
            )
        for name in names:
            left = largest - sum(array.nbytes for array in found)
            content = read_member(archive, f"{name}.npy", left, noun="array", where=path)
            try:
                array = array_of(content)
            except _NO_ARRAY as error:
                raise DataError(
                    "array cannot be read", got=error or name, where=f"{name!r} of {path}"
                ) from None
            if array.dtype.kind not in "biuf":
                raise DataError(
                    "array has no numbers", got=array.dtype, where=f"{name!r} of {path}"
                )
            found.append(array)
    return found


def array_of(content: bytes) -> NDArray[Any]:
    """The array of a `.npy` file; its header must declare as many bytes as there are.

    Raises:
        ValueError: it does not, or the array is one of Python objects; numpy itself answers damage
            with errors of other kinds.
    """
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, _, dtype = read(stream)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != len(content) - stream.tell():
        raise ValueError(f"array of {dtype} {shape} does not fit its data")
    stream.seek(0)
    array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array
