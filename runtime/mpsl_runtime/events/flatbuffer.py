"""The little of FlatBuffers that AEDAT 4 needs, with every offset held to the buffer.

Source: "FlatBuffer Internals" (flatbuffers.dev). A table begins with the distance to its vtable,
which holds the place of each field; strings and vectors begin with their length.
"""

from __future__ import annotations

import struct

__all__ = ["DamagedBufferError", "Table"]


class DamagedBufferError(Exception):
    """An offset or a length that leads out of the buffer."""


def _unpack(form: struct.Struct, buffer: bytes, at: int) -> int:
    if not 0 <= at <= len(buffer) - form.size:
        raise DamagedBufferError(f"offset {at} of {len(buffer)} bytes")
    return int(form.unpack_from(buffer, at)[0])


_U16, _U32 = struct.Struct("<H"), struct.Struct("<I")
_I32, _I64 = struct.Struct("<i"), struct.Struct("<q")


class Table:
    """The root table of a buffer that begins with its root's offset and a mark of four letters.

    Args:
        buffer: without the length before it.
        mark: such as `EVTS`.

    Raises:
        DamagedBufferError: another mark, or offsets that lead out of the buffer.
    """

    def __init__(self, buffer: bytes, mark: bytes) -> None:
        if buffer[4:8] != mark:
            raise DamagedBufferError(f"mark {buffer[4:8]!r}")
        self.buffer = buffer
        self._at = _unpack(_U32, buffer, 0)
        self._vtable = self._at - _unpack(_I32, buffer, self._at)
        self._vtable_size = _unpack(_U16, buffer, self._vtable)

    def _field(self, index: int) -> int | None:
        """Where a field lies; None where the table does not have it."""
        entry = 4 + 2 * index
        if entry + 2 > self._vtable_size:
            return None
        offset = _unpack(_U16, self.buffer, self._vtable + entry)
        return self._at + offset if offset else None

    def int32(self, index: int, default: int) -> int:
        """A field of 32 bits."""
        at = self._field(index)
        return default if at is None else _unpack(_I32, self.buffer, at)

    def int64(self, index: int, default: int) -> int:
        """A field of 64 bits."""
        at = self._field(index)
        return default if at is None else _unpack(_I64, self.buffer, at)

    def vector(self, index: int, item_bytes: int) -> tuple[int, int]:
        """(where the items begin, how many there are) of a vector or a string; (0, 0) without."""
        at = self._field(index)
        if at is None:
            return 0, 0
        at += _unpack(_U32, self.buffer, at)
        number = _unpack(_U32, self.buffer, at)
        if number * item_bytes > len(self.buffer) - at - 4:
            raise DamagedBufferError(f"{number} items in {len(self.buffer)} bytes")
        return at + 4, number
