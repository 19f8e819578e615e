"""What the elements of a data set are: numbers, truth values or text; all else is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mpsl_runtime.hdf5.source import Cursor, Source

__all__ = ["Datatype", "datatype_of"]

_FIXED, _FLOAT, _TEXT, _ENUM, _VARIABLE = 0, 1, 3, 8, 9
_NAMES = {2: "time", 4: "bit field", 5: "opaque", 6: "compound", 7: "reference", 10: "array"}
# bytes -> bit offset, precision, exponent's place and size, mantissa's place and size, bias
_IEEE = {
    2: (0, 16, 10, 5, 0, 10, 15),
    4: (0, 32, 23, 8, 0, 23, 127),
    8: (0, 64, 52, 11, 0, 52, 1023),
}
_UTF8_TEXT = 1
_TRUTH_NAMES = b"FALSE\0\0\0TRUE\0\0\0\0"


@dataclass(frozen=True)
class Datatype:
    """The elements of a data set.

    Attributes:
        kind: `numbers`, `truth` (numpy's bool), `text` of a fixed number of bytes, or `references`
            to text that lies in a heap.
        size: bytes of an element.
        number: of numbers, as they lie in the file.
    """

    kind: Literal["numbers", "truth", "text", "references"]
    size: int
    number: np.dtype[Any] | None = None


def datatype_of(source: Source, message: bytes, where: str) -> Datatype:
    """Reads a datatype message.

    Raises:
        MpslError: damaged, or no numbers of at most 8 bytes and no text; it says what it is.
    """
    part = Cursor(message, source, "datatype")
    first, bits, size = part.number(1), part.number(3), part.number(4)
    version, kind = first >> 4, first & 0x0F
    if kind == _FIXED:
        order = ">" if bits & 1 else "<"
        if size in (1, 2, 4, 8) and (part.number(2), part.number(2)) == (0, 8 * size):
            sign = "i" if bits & 8 else "u"
            return Datatype("numbers", size, np.dtype(f"{order}{sign}{size}"))
    elif kind == _FLOAT:
        order = ">" if bits & 1 else "<"
        form = [part.number(width) for width in (2, 2, 1, 1, 1, 1, 4)]
        ordinary = bits & 0x40 == 0 and (bits >> 4) & 3 == 2 and bits >> 8 == 8 * size - 1
        if size in _IEEE and tuple(form) == _IEEE[size] and ordinary:
            return Datatype("numbers", size, np.dtype(f"{order}f{size}"))
    elif kind == _TEXT and size > 0:
        return Datatype("text", size)
    elif kind == _ENUM and bits & 0xFFFF == 2 and size == 1:
        base = datatype_of(source, part.take(12), where)
        names = _TRUTH_NAMES if version < 3 else b"FALSE\0TRUE\0"
        if base.kind == "numbers" and part.take(len(names) + 2) == names + b"\0\1":
            return Datatype("truth", 1)
    elif kind == _VARIABLE and bits & 0x0F == _UTF8_TEXT and size == 16:
        return Datatype("references", size)
    name = _NAMES.get(kind, f"numbers or lists of an unusual form, {size} bytes")
    raise source.refused("data is neither numbers nor text", got=name, where=where)
