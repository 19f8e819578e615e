"""A recording of any format inside gzip, Zstandard or LZ4: unpacked as it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.compression import Packing, Unpacker, errors
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.parser import Parser
from mpsl_runtime.events.trouble import Trouble

__all__ = ["PACKINGS", "PackedParser"]

PACKINGS: dict[bytes, Packing] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
"""The first bytes of what is packed."""

Recognise = Callable[[bytes, bool], Parser | None]
# Recordings pack to a half or a tenth. What grows so much is made to fill memory.
_MOST_TIMES_PACKED = 100
_ALWAYS_BYTES = 1 << 24
_INPUT_STEP = 1 << 16


class PackedParser:
    """See `parser.Parser`.

    Args:
        recognise: `(first bytes, is_whole)` → a parser of what is inside.

    Raises:
        DataError: from `feed` and `finish`: as of the parser inside, or it unpacks to far more than
            a recording does.
    """

    def __init__(
        self, packing: Packing, recognise: Recognise, trouble: Trouble, where: str | Path
    ) -> None:
        self._packing, self._recognise = packing, recognise
        self._trouble, self._where = trouble, where
        self._unpacker = Unpacker(packing)
        self._parser: Parser | None = None
        self._begin = b""
        self._taken = self._given = 0
        self._is_lost = False

    @property
    def format(self) -> str:
        """See `Parser`."""
        return self._packing if self._parser is None else f"{self._parser.format}, {self._packing}"

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """See `Parser`."""
        return None if self._parser is None else self._parser.sensor_size

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        pieces: list[Columns] = []
        for start in range(0, len(data), _INPUT_STEP):
            part = data[start : start + _INPUT_STEP]
            if self._is_lost:
                self._trouble.add("lost_bytes", len(part))
                continue
            self._taken += len(part)
            try:
                pieces += [self._inside(piece) for piece in self._unpacker.feed(part)]
            except errors():
                self._is_lost = True
                self._trouble.add("damaged", 1, f"{self._packing} block")
        return concatenated(pieces)

    def finish(self) -> Columns:
        """See `Parser`."""
        if not self._unpacker.is_between and not self._is_lost:
            self._trouble.add("cut", 1, f"the {self._packing} data")
        if not self._given:
            raise DataError(
                "nothing of the packed recording is whole",
                got=self._trouble or "0 bytes",
                where=self._where,
            )
        pieces = [self._inside(b"", is_whole=True)]
        if self._parser is not None:
            pieces.append(self._parser.finish())
        return concatenated(pieces)

    def _inside(self, data: bytes, *, is_whole: bool = False) -> Columns:
        self._given += len(data)
        if self._given > max(_ALWAYS_BYTES, _MOST_TIMES_PACKED * self._taken):
            raise DataError(
                "recording unpacks to more than recordings do",
                got=f"{self._given:,} bytes from {self._taken:,}",
                expected=f"≤ {_MOST_TIMES_PACKED} times",
                where=self._where,
            )
        if self._parser is None:
            self._begin += data
            self._parser = self._recognise(self._begin, is_whole)
            if self._parser is None:
                return concatenated([])
            data, self._begin = self._begin, b""
        return self._parser.feed(data)
