"""Unpacking what others have packed, within limits: LZ4 frames, Zstandard and gzip."""

from __future__ import annotations

import sys
import zlib
from typing import Any, Literal

__all__ = ["PackedError", "Packing", "unpack", "unpacker"]

Packing = Literal["lz4", "zstd", "gzip"]
_STEP = 1 << 22


class PackedError(Exception):
    """Packed data that is damaged, or that would take too much memory."""


def unpacker(packing: Packing) -> Any:
    """An object with `decompress(data, max_length)`, `eof`, and `unused_data` once at the end."""
    if packing == "gzip":
        return zlib.decompressobj(wbits=31)
    if packing == "lz4":
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor()
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor()


def errors() -> tuple[type[Exception], ...]:
    """What unpackers raise for damage."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    # lz4 says RuntimeError and ValueError.
    return zlib.error, zstd.ZstdError, RuntimeError, ValueError, EOFError, MemoryError


def unpack(packing: Packing, data: bytes, largest: int) -> bytes:
    """One whole frame.

    Args:
        largest: bytes that it may unpack to.

    Raises:
        PackedError: it is damaged, does not end, or is larger.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        state = unpacker(packing)
        while not state.eof:
            piece = state.decompress(data, _STEP)
            data = b""
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                raise PackedError(f"unpacks to more than {largest} bytes")
            if not piece and not state.eof:
                raise PackedError("does not end")
    except errors() as error:
        raise PackedError(str(error)) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
