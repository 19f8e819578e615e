"""Events in numpy's files: `.npy` and `.npz`, as tonic and others write them.

A structured array with names, or a table [N, 4]; in an archive also one array a column, by name.
Headers are parsed here, not evaluated, nothing is unpickled, and an archive is unpacked a piece at
a time.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.names import Naming, naming_of
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns
from mpsl_runtime.events.table import ROWS, Conversion, order_of
from mpsl_runtime.events.trouble import Trouble

__all__ = ["NpyTable", "NpzTable"]

_LARGEST_HEADER = 10_000
_LARGEST_ROW_BYTES = 4096
_MOST_MEMBERS = 1000
_MOST_COLUMNS = 16
_STEP = 1 << 20
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    UnicodeError,
    tokenize.TokenError,
)


class _Array:
    """An array [N] or [N, columns] that is read row by row, from a file or from within an archive.

    Columns may lie one after another, as `np.save` leaves `np.stack([t, x, y, p])` and its
    transpose: each is then read through a file of its own.
    """

    def __init__(self, open_file: Callable[[], IO[bytes]], where: object) -> None:
        try:
            self._files = [open_file()]
            shape, is_fortran, self.dtype = _header(self._files[0])
            is_by_column = len(shape) == 2 and (is_fortran or (shape[0] == 4 and shape[1] != 4))
            if is_by_column and not is_fortran:
                shape = shape[::-1]
            self.shape = shape
            row = math.prod(shape[1:]) * self.dtype.itemsize
            if (
                self.dtype.hasobject
                or len(shape) not in (1, 2)
                or not 0 < row <= _LARGEST_ROW_BYTES
            ):
                raise _no_table(self.dtype, shape, where)
            self._item_bytes = row
            if is_by_column:
                self._item_bytes = self.dtype.itemsize
                self._open_columns(open_file)
        except _DAMAGE as error:
            raise _damaged(error, where) from None
        self._left = shape[0]
        self.is_cut = False

    def _open_columns(self, open_file: Callable[[], IO[bytes]]) -> None:
        """A file for each column, at its beginning."""
        for column in range(1, self.shape[1]):
            file = open_file()
            _header(file)
            self._files.append(file)
            self._pass_over(file, column * self.shape[0] * self._item_bytes)

    @staticmethod
    def _pass_over(file: IO[bytes], size: int) -> None:
        while size > 0 and (passed := len(file.read(min(size, _STEP)))):
            size -= passed

    def read(self, rows: int) -> NDArray[Any]:
        """The next rows, fewer at the end."""
        wanted = min(rows, self._left)
        parts = [file.read(wanted * self._item_bytes) for file in self._files]
        number = min(map(len, parts)) // self._item_bytes
        self._left = self._left - number if number == wanted else 0
        self.is_cut |= number < wanted
        size = number * self._item_bytes // self.dtype.itemsize
        arrays = [np.frombuffer(part, self.dtype, size) for part in parts]
        if len(arrays) > 1:
            return np.stack(arrays, axis=1)
        return arrays[0].reshape(number, *self.shape[1:])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type; the file is then at the data."""
    if npy.read_magic(file) == (1, 0):
        return npy.read_array_header_1_0(file, max_header_size=_LARGEST_HEADER)
    return npy.read_array_header_2_0(file, max_header_size=_LARGEST_HEADER)


def _no_table(dtype: np.dtype[Any], shape: tuple[int, ...], where: object) -> DataError:
    return DataError(
        "array is no table of events",
        got=f"{str(dtype)[:80]} {str(shape)[:80]}",
        expected="names t, x, y, p, or numbers [N, 4]",
        where=where,
    )


def _pieces(
    array: _Array, options: ReadOptions, trouble: Trouble, where: object
) -> Iterator[Columns]:
    """The events of one array that holds all columns."""
    naming = _naming(array, where)
    unit = naming.unit if naming else None
    conversion = Conversion(options, trouble, where, named=unit, has_names=naming is not None)
    order = "".join(options.column_names) or None
    while len(rows := array.read(ROWS)):
        if naming is not None:
            names = array.dtype.names or ()
            fields = [rows[names[naming.letters.index(letter)]] for letter in "txyp"]
        else:
            order = order or order_of(rows, where)
            if len(order) != rows.shape[1]:
                raise DataError(
                    "table has another number of columns",
                    got=rows.shape[1],
                    expected=len(order),
                    where=where,
                )
            fields = [rows[:, order.index(letter)] for letter in "txyp"]
        yield conversion.columns(*fields)
    if array.is_cut:
        trouble.add("cut", 1, "the array")


def _naming(array: _Array, where: object) -> Naming | None:
    """Names of a structured array; None for a table of numbers."""
    if array.dtype.names is not None and len(array.shape) == 1:
        naming = naming_of(array.dtype.names)
        if naming is not None:
            return naming
    elif array.dtype.names is None and len(array.shape) == 2 and array.shape[1] >= 4:
        return None
    raise _no_table(array.dtype, array.shape, where)


class NpyTable:
    """See `table.Table`. Raises DataError: damaged, or no table of events."""

    format = "npy"
    sensor_size: tuple[int, int] | None = None

    def __init__(self, path: Path, options: ReadOptions, trouble: Trouble, where: object) -> None:
        self._path = path
        self._files: list[IO[bytes]] = []
        self._about = options, trouble, where

    def _open(self) -> IO[bytes]:
        file = self._path.open("rb")
        self._files.append(file)
        return file

    def pieces(self) -> Iterator[Columns]:
        """See `Table`."""
        try:
            yield from _pieces(_Array(self._open, self._about[2]), *self._about)
        except _DAMAGE as error:
            raise _damaged(error, self._about[2]) from None

    def close(self) -> None:
        """See `Table`."""
        for file in self._files:
            file.close()


class NpzTable:
    """See `table.Table`. Raises DataError: damaged, no events, or several arrays of them."""

    format = "npz"
    sensor_size: tuple[int, int] | None = None

    def __init__(self, path: Path, options: ReadOptions, trouble: Trouble, where: object) -> None:
        self._about = options, trouble, where
        self._where = where
        self._files: list[IO[bytes]] = []
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise _damaged(error, where) from None

    def close(self) -> None:
        """See `Table`."""
        for file in self._files:
            file.close()
        self._archive.close()

    def pieces(self) -> Iterator[Columns]:
        """See `Table`."""
        try:
            members = self._members()
            naming = naming_of(list(members))
            if naming is not None and self._about[0].stream is None:
                yield from self._of_columns(members, naming)
            else:
                yield from _pieces(self._one(members), *self._about)
        except _DAMAGE as error:
            raise _damaged(error, self._where) from None

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        found = [info for info in self._archive.infolist() if info.filename.endswith(".npy")]
        if len(found) > _MOST_MEMBERS:
            raise DataError("archive has too many arrays", got=len(found), where=self._where)
        return {info.filename.removesuffix(".npy"): info for info in found}

    def _open(self, info: zipfile.ZipInfo) -> _Array:
        def open_file() -> IO[bytes]:
            self._files.append(self._archive.open(info))
            return self._files[-1]

        return _Array(open_file, f"{info.filename[:80]} of {self._where}")

    def _one(self, members: dict[str, zipfile.ZipInfo]) -> _Array:
        """The one array that can be a table of events."""
        fitting: dict[str, _Array] = {}
        wanted = self._about[0].stream
        for name, info in members.items():
            if wanted not in (None, name):
                continue
            try:
                array = self._open(info)
                _naming(array, self._where)
            except DataError:
                continue
            fitting[name] = array
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        raise DataError(
            "archive has several tables of events" if fitting else "archive has no events",
            got=", ".join(list(fitting or members)[:8]) or "no arrays",
            expected="one of them by --stream" if fitting else "arrays t, x, y, p, or a table",
            where=self._where,
        )

    def _of_columns(self, members: dict[str, zipfile.ZipInfo], naming: Naming) -> Iterator[Columns]:
        options, trouble, where = self._about
        conversion = Conversion(options, trouble, where, named=naming.unit)
        infos = dict(zip(naming.letters, members.values(), strict=True))
        arrays = [self._open(infos[letter]) for letter in "txyp"]
        for array in arrays:
            if array.shape[1:] or array.dtype.names:
                raise DataError(
                    "array is no column of events",
                    got=f"{str(array.dtype)[:80]} {array.shape}",
                    expected="numbers [N]",
                    where=where,
                )
        is_cut = len({array.shape[0] for array in arrays}) > 1
        while True:
            columns = [array.read(ROWS) for array in arrays]
            number = min(map(len, columns))
            is_cut |= any(array.is_cut for array in arrays)
            if not number:
                break
            yield conversion.columns(*(column[:number] for column in columns))
        if is_cut:
            trouble.add("cut", 1, "an event")


def _damaged(error: BaseException, where: object) -> DataError:
    if isinstance(error, DataError):
        return error
    text = " ".join(str(error).split())[:200]
    return DataError("damaged numpy file", got=text or type(error).__name__, where=where)
