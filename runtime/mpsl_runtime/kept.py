"""What is kept of a running program: plain values and arrays as bytes, and back, each checked.

The layout, little-endian:

    magic 8 bytes | version u32 | bytes of the text u32 | text: JSON, in which an array stands as
    {"@": [type, shape]} | the arrays in order, elements by rows | CRC-32 of all before u32

Nothing in it is code. A file may be damaged or a stranger's: whoever reads it asks for each value
by its name, its type and its range, and gets it or one DataError.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError

__all__ = ["LARGEST_BYTES", "Kept", "from_bytes", "to_bytes"]

LARGEST_BYTES = 1 << 31
_MAGIC, _VERSION = b"mpslkept", 1
_HEADER = struct.Struct("<8sII")
_CHECK = struct.Struct("<I")
_KINDS = ("|u1", "<u2", "<u8", "<i4", "<i8", "<f4", "<f8")
_ARRAY = "@"
_DEEPEST = 20
_MOST_AXES = 3


def to_bytes(tree: Mapping[str, Any]) -> bytes:
    """The layout above.

    Args:
        tree: names and values: None, bool, int, float, str, bytes, arrays of the types of this
            module, and mappings and lists of them.
    """
    arrays: list[bytes] = []
    text = json.dumps(_plain(tree, arrays), separators=(",", ":")).encode()
    content = b"".join([_HEADER.pack(_MAGIC, _VERSION, len(text)), text, *arrays])
    return content + _CHECK.pack(zlib.crc32(content))


def _plain(value: Any, arrays: list[bytes]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.uint8)
    if isinstance(value, np.ndarray):
        kind = value.dtype.newbyteorder("<").str
        if kind not in _KINDS:
            raise TypeError(f"arrays of {value.dtype} are not kept")
        arrays.append(np.ascontiguousarray(value, kind).tobytes())
        return {_ARRAY: [kind, list(value.shape)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is not kept")


def from_bytes(content: bytes, where: object) -> Kept:
    """Reads what `to_bytes` wrote.

    Args:
        where: a file, named in errors.

    Raises:
        DataError: not such bytes, damaged, or of another version.
    """
    if len(content) < _HEADER.size + _CHECK.size or content[:8] != _MAGIC:
        raise DataError("not the state of a run", got=f"{len(content)} bytes", where=where)
    _, version, length = _HEADER.unpack_from(content)
    if version != _VERSION:
        raise DataError("state of another version", got=version, expected=_VERSION, where=where)
    if _CHECK.unpack(content[-_CHECK.size :])[0] != zlib.crc32(content[: -_CHECK.size]):
        raise DataError("state is damaged", got="another checksum", where=where)
    begin = _HEADER.size + length
    try:
        text = json.loads(content[_HEADER.size : begin])
    except (ValueError, RecursionError):
        raise DataError("state is damaged", got="no JSON", where=where) from None
    arrays = _Arrays(memoryview(content)[begin : -_CHECK.size], where)
    tree = arrays.put_into(text, _DEEPEST)
    if arrays.left or not isinstance(tree, dict):
        raise DataError("state is damaged", got=f"{arrays.left} bytes too many", where=where)
    return Kept(tree, where)


class _Arrays:
    """Takes arrays from bytes, one after another."""

    def __init__(self, content: memoryview, where: object) -> None:
        self._content, self._where = content, where

    @property
    def left(self) -> int:
        return len(self._content)

    def put_into(self, value: Any, deepest: int) -> Any:
        if deepest == 0:
            raise DataError("state is damaged", got="values within values", where=self._where)
        if isinstance(value, list):
            return [self.put_into(item, deepest - 1) for item in value]
        if not isinstance(value, dict):
            return value
        if _ARRAY in value:
            return self._take(value[_ARRAY])
        return {key: self.put_into(item, deepest - 1) for key, item in value.items()}

    def _take(self, about: Any) -> NDArray[Any]:
        match about:
            case [str(kind), list(shape)] if (
                kind in _KINDS
                and len(shape) <= _MOST_AXES
                and all(type(n) is int and 0 <= n <= LARGEST_BYTES for n in shape)
            ):
                size = math.prod(shape) * np.dtype(kind).itemsize
                if size <= len(self._content):
                    taken, self._content = self._content[:size], self._content[size:]
                    array = np.frombuffer(taken, kind).reshape(shape)
                    return array.astype(array.dtype.newbyteorder("="))
        raise DataError("state is damaged", got="an array that is none", where=self._where)


class Kept:
    """Values by their names; each is asked for by its type.

    Raises:
        DataError: from each method: there is no such value, or it is not what is asked for.
    """

    def __init__(self, tree: Mapping[str, Any], where: object) -> None:
        self._tree = tree
        self.where = where

    def is_there(self, name: str) -> bool:
        """Whether there is a value that is not None."""
        return self._tree.get(name) is not None

    def integer(self, name: str, low: int = 0, high: int = 1 << 62) -> int:
        """A whole number, low … high."""
        value = self._tree.get(name)
        if type(value) is not int or not low <= value <= high:
            self._refuse(name)
        return value

    def number(self, name: str) -> float:
        """A number; as a floating point number, NaN too."""
        value = self._tree.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._refuse(name)
        return float(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._tree.get(name)
        if type(value) is not bool:
            self._refuse(name)
        return value

    def text(self, name: str) -> str:
        """A text."""
        value = self._tree.get(name)
        if type(value) is not str:
            self._refuse(name)
        return value

    def array(self, name: str, kind: Any, shape: tuple[int | None, ...] = (None,)) -> NDArray[Any]:
        """An array of a type; None in `shape` is any extent. It may be written to."""
        value = self._tree.get(name)
        if (
            not isinstance(value, np.ndarray)
            or value.dtype != kind
            or len(value.shape) != len(shape)
            or any(want not in (None, got) for want, got in zip(shape, value.shape, strict=True))
        ):
            self._refuse(name)
        return value

    def blob(self, name: str) -> bytes:
        """Bytes."""
        return self.array(name, np.uint8).tobytes()

    def integers(self, name: str, low: int = 0, high: int = 1 << 62) -> list[int]:
        """A list of whole numbers, low … high."""
        value = self._tree.get(name)
        if not isinstance(value, list) or not all(
            type(item) is int and low <= item <= high for item in value
        ):
            self._refuse(name)
        return list(value)

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) of a sensor; zeros where it is not known."""
        values = self.integers(name, 0, 1 << 16)
        if len(values) != 2:
            self._refuse(name)
        return values[0], values[1]

    def counter(self, name: str) -> Counter[str]:
        """Counts by words."""
        value = self._tree.get(name)
        if not isinstance(value, dict) or not all(
            type(item) is int and 0 <= item <= 1 << 62 for item in value.values()
        ):
            self._refuse(name)
        return Counter(value)

    def inner(self, name: str) -> Kept:
        """A mapping of its own."""
        value = self._tree.get(name)
        if not isinstance(value, dict):
            self._refuse(name)
        return Kept(value, self.where)

    def each(self, name: str) -> Iterator[Kept]:
        """The mappings of a list."""
        value = self._tree.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._refuse(name)
        yield from (Kept(item, self.where) for item in value)

    def _refuse(self, name: str) -> NoReturn:
        raise DataError("state is damaged", got=f"no {name} that can be", where=self.where)
