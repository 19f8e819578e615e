"""What every reader of one format offers, and those that stand on a native decoder."""

from __future__ import annotations

from typing import Protocol

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.trouble import Trouble

__all__ = ["Parser", "WordParser", "is_text"]

_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def is_text(data: bytes) -> bool:
    """Whether these bytes are printable ASCII, tabs and ends of lines alone."""
    return not data.translate(None, _TEXT)


class Parser(Protocol):
    """Bytes of one format in, events out as the file has them.

    `feed` and `finish` raise DataError where nothing sensible can follow; what can be passed over
    is counted in the `Trouble` that the parser was made with.
    """

    @property
    def format(self) -> str:
        """Its name, for people."""

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """(width, height) in pixels once the file has said it."""

    def feed(self, data: bytes) -> Columns:
        """The events that the next bytes complete."""

    def finish(self) -> Columns:
        """The events that the end completes."""


class WordParser:
    """A format whose body is a stream of words: decoded in the native module.

    Args:
        name: of the format.
        decoder: of the body.
        header_bytes: before the body, not fed to the decoder.
        trouble: where is counted; where: named in errors.
        unit: what may be cut at the end, such as `a word`.

    Attributes:
        add_us: what the header says is missing from all times.

    Raises:
        DataError: from `feed`: words of the clock are missing.
    """

    def __init__(
        self,
        name: str,
        decoder: _native.EventDecoder,
        trouble: Trouble,
        where: object,
        *,
        header_bytes: int,
        unit: str,
        sensor_size: tuple[int, int] | None = None,
    ) -> None:
        self.format = name
        self.sensor_size = sensor_size
        self._decoder = decoder
        self._trouble, self._where = trouble, where
        self._skip = header_bytes
        self._unit = unit
        self._outside = 0
        self.add_us = 0

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._decoder.is_lost:
            self._trouble.add("lost_bytes", len(data))
        columns: Columns = self._decoder.feed(data)
        decoder, trouble = self._decoder, self._trouble
        trouble.set("before_clock", decoder.before_time)
        trouble.set("before_address", decoder.before_address)
        trouble.set("unknown_words", decoder.unknown)
        if decoder.without_clock:
            raise DataError(
                f"clock of the {self.format} words is not whole",
                got=f"TIME_LOW began anew {decoder.without_clock:,} times without a TIME_HIGH",
                expected="a TIME_HIGH before each",
                where=self._where,
            )
        size = self.sensor_size
        detail = f"{size[0]}x{size[1]}" if size else "any sensor"
        trouble.add("outside", decoder.outside - self._outside, detail)
        self._outside = decoder.outside
        if self.add_us:
            t, x, y, p = columns
            return t + self.add_us, x, y, p
        return columns

    def finish(self) -> Columns:
        """See `Parser`."""
        if self._decoder.pending:
            self._trouble.add("cut", 1, self._unit)
        if self._decoder.is_lost:
            self._trouble.add("damaged", 1, "packet")
        return concatenated([])
