"""The bytes of a file: read where it says, only as far as it goes, with a bound on the work."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MpslError

__all__ = ["Cursor", "Limits", "Source"]


@dataclass(frozen=True)
class Limits:
    """What a file may ask for.

    Attributes:
        file_bytes: its size.
        data_bytes: what its data sets declare in all, uncompressed.
        text_bytes: the text in them, each piece counted as often as it is named.
        structure_bytes: all that is read besides data: headers, names, indices, texts.
        items: groups and data sets.
        depth: of groups within groups.
        reads: pieces of structure that are looked at, a measure of time: about a microsecond each.
        chunks: pieces of compressed data.
    """

    file_bytes: int = 1 << 28
    data_bytes: int = 1 << 28
    text_bytes: int = 1 << 20
    structure_bytes: int = 1 << 26
    items: int = 30_000
    depth: int = 12
    reads: int = 1_000_000
    chunks: int = 1 << 16


_TOO_MUCH = {
    "file_bytes": "is too large, in bytes",
    "data_bytes": "declares too much data, in bytes",
    "text_bytes": "has too much text, in bytes",
    "structure_bytes": "has too much structure, in bytes",
    "items": "has too many groups and data sets",
    "reads": "takes too long to read, in pieces",
    "chunks": "has too many chunks of data",
}


class Source:
    """An open file. Every error that its content causes is of the type `error`.

    Attributes:
        size: of the file in bytes.
        limits: see `Limits`.
    """

    def __init__(self, path: Path, limits: Limits, error: type[MpslError], noun: str) -> None:
        """Opens a file.

        Args:
            noun: what the file is, for messages: `model file`.

        Raises:
            error: absent, not to be read, or too large; it says which.
        """
        self.path, self.limits, self.error, self.noun = path, limits, error, noun
        self._spent: dict[str, int] = {}
        self._seen: set[int] = set()
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as reason:
            raise self._unreadable(reason) from reason
        facts = os.fstat(self._file)
        if not stat.S_ISREG(facts.st_mode):
            os.close(self._file)
            got = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device or a pipe"
            raise error(f"no such {noun}", got=got, expected="a file", where=path)
        self.size = facts.st_size

    def _unreadable(self, reason: OSError | ValueError) -> MpslError:
        if isinstance(reason, FileNotFoundError | NotADirectoryError):
            return self.error(f"no such {self.noun}", where=self.path)
        got = getattr(reason, "strerror", None) or reason
        return self.error(f"cannot read {self.noun}", got=got, where=self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def damaged(self, fact: str, where: str | None = None) -> MpslError:
        """The error for content that cannot be. `where`: the item in the file."""
        place = f"{where} of {self.path}" if where else self.path
        return self.error(f"damaged {self.noun}", got=fact, where=place)

    def refused(
        self, what: str, *, got: object = None, expected: object = None, where: str | None = None
    ) -> MpslError:
        """The error for content that is HDF5, but not read here."""
        place = f"{where} of {self.path}" if where else self.path
        return self.error(what, got=got, expected=expected, where=place)

    def spend(self, kind: str, amount: int, where: str | None = None) -> None:
        """Counts work or memory against a limit, before it is done or taken.

        Args:
            kind: a field of `Limits`.

        Raises:
            error: the file asks for more than the limit.
        """
        spent = self._spent.get(kind, 0) + amount
        limit = getattr(self.limits, kind)
        if spent > limit:
            raise self.refused(
                f"{self.noun} {_TOO_MUCH[kind]}", got=spent, expected=f"≤ {limit}", where=where
            )
        self._spent[kind] = spent

    def once(self, address: int, what: str) -> None:
        """Raises an error where a structure is met a second time: a cycle, or one part under two
        names, would let a small file ask for anything."""
        if address in self._seen:
            raise self.refused(
                "links are not read", got=f"{what} that is met twice", expected="the data itself"
            )
        self._seen.add(address)

    def _check(self, address: int, size: int, what: str) -> None:
        """Counts a piece that is to be read; an error where the file has no such piece."""
        self.spend("reads", 1)
        if size < 0 or address + size > self.size:
            raise self.damaged(f"{what} beyond the end of the file")

    def read(self, address: int, size: int, what: str) -> bytes:
        """`size` bytes at `address`; an error beyond the end of the file."""
        self._check(address, size, what)
        self.spend("structure_bytes", size)
        try:
            data = os.pread(self._file, size, address)
        except OSError as reason:
            raise self._unreadable(reason) from reason
        if len(data) != size:
            raise self.damaged("a file that became shorter while it was read")
        return data

    def read_array(self, address: int, size: int, what: str) -> NDArray[np.uint8]:
        """Like `read`, for much data: it lies in memory once, and may be written to."""
        self._check(address, size, what)
        data = np.empty(size, np.uint8)
        try:
            done = os.preadv(self._file, [data.data], address)
        except OSError as reason:
            raise self._unreadable(reason) from reason
        if done != size:
            raise self.damaged("a file that became shorter while it was read")
        return data

    def cursor(self, address: int, size: int, what: str) -> Cursor:
        """`size` bytes at `address`, to be taken apart."""
        return Cursor(self.read(address, size, what), self, what)


class Cursor:
    """Takes bytes apart from the left; an error where there are too few."""

    def __init__(self, data: bytes, source: Source, what: str) -> None:
        self.data, self.source, self.what = data, source, what
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes that are not yet taken."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next bytes."""
        at, end = self.at, self.at + size
        if end > len(self.data):
            raise self.source.damaged(f"{self.what} that is cut short")
        self.at = end
        return self.data[at:end]

    def number(self, size: int) -> int:
        """The next bytes as a whole number ≥ 0, little-endian."""
        # As `take`, without the call: a file has thousands of them.
        at, end = self.at, self.at + size
        if end > len(self.data):
            raise self.source.damaged(f"{self.what} that is cut short")
        self.at = end
        return int.from_bytes(self.data[at:end], "little")

    def numbers(self, form: Struct) -> tuple[Any, ...]:
        """The next bytes as several numbers at once."""
        at = self.at
        self.take(form.size)
        return form.unpack_from(self.data, at)

    def expect(self, value: bytes) -> None:
        """An error where the next bytes are others."""
        found = self.take(len(value))
        if found != value:
            raise self.source.damaged(f"{self.what} that begins with {found!r}, not {value!r}")
