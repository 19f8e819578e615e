"""Formats that are read at any place: from a file directly; as bytes come, once all are there.

Bytes that arrive are kept in a temporary file, not in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.hdf5 import Hdf5Table
from mpsl_runtime.events.numpy_files import NpyTable, NpzTable
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.table import Table
from mpsl_runtime.events.trouble import Trouble

__all__ = [
    "LONGEST_TABLE_MARK",
    "TABLE_MARKS",
    "AttachedTable",
    "OpenTable",
    "WholeParser",
    "table_opener",
]

_LARGEST_BYTES = 1 << 33
OpenTable = Callable[[Path, ReadOptions, Trouble, object], Table]
_TABLES: dict[bytes, tuple[str, OpenTable]] = {
    b"\x89HDF\r\n\x1a\n": ("HDF5", Hdf5Table),
    b"\x93NUMPY": ("npy", NpyTable),
    b"PK\x03\x04": ("npz", NpzTable),
}
TABLE_MARKS = tuple(_TABLES)
"""The first bytes of these formats."""
LONGEST_TABLE_MARK = max(map(len, TABLE_MARKS))


def table_opener(begin: bytes) -> tuple[str, OpenTable] | None:
    """Name and reader of the format that begins so; None where it is none of these."""
    return next((found for mark, found in _TABLES.items() if begin.startswith(mark)), None)


class AttachedTable:
    """A parser for a table that is read directly: no bytes come through it."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def format(self) -> str:
        """See `Parser`."""
        return self._table.format

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """See `Parser`."""
        return self._table.sensor_size

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        return concatenated([])

    def finish(self) -> Columns:
        """See `Parser`."""
        return concatenated([])


class WholeParser:
    """Keeps the bytes until the end, then reads them. See `parser.Parser`."""

    def __init__(
        self, name: str, opener: OpenTable, options: ReadOptions, trouble: Trouble, where: object
    ) -> None:
        self.format = name
        self.sensor_size: tuple[int, int] | None = None
        self._opener = opener
        self._about = options, trouble, where
        self._size = 0
        self._kept = tempfile.NamedTemporaryFile(prefix="mpsl-")  # noqa: SIM115 (until `finish`)

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        self._size += len(data)
        if self._size > _LARGEST_BYTES:
            raise DataError(
                "recording is too large to be kept until its end",
                expected=f"≤ {_LARGEST_BYTES >> 30} GiB, or a file",
                where=self._about[2],
            )
        try:
            self._kept.write(data)
        except OSError as error:
            raise DataError(
                "recording cannot be kept", got=error.strerror, where=self._about[2]
            ) from None
        return concatenated([])

    def finish(self) -> Columns:
        """See `Parser`."""
        self._kept.flush()
        try:
            table = self._opener(Path(self._kept.name), *self._about)
            self.sensor_size = table.sensor_size
            try:
                return concatenated(list(table.pieces()))
            finally:
                table.close()
        finally:
            self._kept.close()
