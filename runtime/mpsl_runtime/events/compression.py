"""Unpacking what others have packed, within limits: LZ4 frames, Zstandard and gzip."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Literal

__all__ = ["PackedError", "Packing", "Unpacker", "errors", "unpack", "zstandard"]

Packing = Literal["lz4", "zstd", "gzip"]
_STEP = 1 << 20


class PackedError(Exception):
    """Packed data that is damaged, or that would take too much memory."""


def _state(packing: Packing) -> Any:
    """An object with `decompress(data, max_length)`, `eof`, and `unused_data` once at the end."""
    if packing == "gzip":
        return zlib.decompressobj(wbits=31)
    if packing == "lz4":
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor()
    return zstandard().ZstdDecompressor()


def zstandard() -> Any:
    """The module `compression.zstd` of Python 3.14, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def errors() -> tuple[type[Exception], ...]:
    """What unpackers raise for damage; lz4 says RuntimeError and ValueError."""
    return zlib.error, zstandard().ZstdError, RuntimeError, ValueError, EOFError, MemoryError


class Unpacker:
    """Unpacks a stream of one or more parts, each packed by itself, as their bytes come.

    Attributes:
        is_between: every part that has begun has ended.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._current: Any = None
        self.is_between = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes unpack to, at most a MiB at a time.

        Raises:
            One of `errors()`: they are damaged.
        """
        while True:
            if self.is_between:
                if self._packing == "gzip":
                    data = data.lstrip(b"\0")  # what tapes and some writers fill up with
                if not data:
                    return
                self._current = _state(self._packing)
                self.is_between = False
            piece = self._current.decompress(data, _STEP)
            if piece:
                yield piece
            if self._current.eof:
                data = self._current.unused_data or b""
                self.is_between = True
            elif self._packing == "gzip":
                data = self._current.unconsumed_tail
                if not data and len(piece) < _STEP:
                    return
            else:
                data = b""
                if self._current.needs_input:
                    return


def unpack(packing: Packing, data: bytes, largest: int) -> bytes:
    """One whole frame.

    Args:
        largest: bytes that it may unpack to.

    Raises:
        PackedError: it is damaged, does not end, or is larger.
    """
    pieces: list[bytes] = []
    size = 0
    unpacker = Unpacker(packing)
    try:
        for piece in unpacker.feed(data):
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                raise PackedError(f"unpacks to more than {largest} bytes")
    except errors() as error:
        raise PackedError(str(error)) from error
    if not unpacker.is_between:
        raise PackedError("does not end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
