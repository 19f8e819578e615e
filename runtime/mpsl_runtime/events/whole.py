"""Formats that can be read only when the whole file is there."""

from __future__ import annotations

from collections.abc import Callable

from mpsl_runtime.events.order import Columns, concatenated

__all__ = ["WholeParser"]


class WholeParser:
    """Keeps the bytes until the end, then has them decoded.

    Args:
        name: of the format.
        decode: all bytes → (columns, size of the sensor).
    """

    def __init__(
        self, name: str, decode: Callable[[bytes], tuple[Columns, tuple[int, int] | None]]
    ) -> None:
        self.format = name
        self.sensor_size: tuple[int, int] | None = None
        self._decode = decode
        self._kept = bytearray()

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        self._kept += data
        return concatenated([])

    def finish(self) -> Columns:
        """See `Parser`."""
        columns, self.sensor_size = self._decode(bytes(self._kept))
        return columns
