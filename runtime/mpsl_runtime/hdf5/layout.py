"""The bytes of a data set: in the header, in one piece, or in compressed chunks.

What was never written is refused rather than filled in: a file of a kilobyte may declare a gigabyte
of fill values. Of each chunk exactly as many bytes are inflated as it must hold.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.hdf5.chunks import Chunk, Index, read_index
from mpsl_runtime.hdf5.objects import FILTERS, LAYOUT, UNDEFINED
from mpsl_runtime.hdf5.source import Cursor, Source

__all__ = ["data_of"]

Bytes = NDArray[np.uint8]
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2
_DEFLATE, _SHUFFLE = 1, 2
_FILTER_NAMES = {3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_MOST_FILTERS = 4
_PIECE = 1 << 16
_ELEMENTS = 1 << 15


def data_of(
    source: Source, messages: dict[int, bytes], shape: tuple[int, ...], width: int, where: str
) -> Bytes:
    """The bytes of all elements, in order.

    Args:
        messages: of the data set's header, with a layout.
        shape: of the data set. width: bytes of an element.

    Raises:
        MpslError: damaged, never written, beyond a limit, or in a form that is not read.
    """
    size = math.prod(shape) * width
    part = Cursor(messages[LAYOUT], source, "layout")
    version, kind = part.number(1), part.number(1)
    if version not in (3, 4, 5):
        raise source.damaged(f"layout of version {version}", where)
    if kind == _COMPACT:
        stored = part.number(2)
        if stored < size:
            raise source.damaged(f"{stored} bytes where {size} belong", where)
        return np.frombuffer(bytearray(part.take(size)), np.uint8)
    if kind == _CONTIGUOUS:
        address, stored = part.number(8), part.number(8)
        if size == 0:
            return np.empty(0, np.uint8)
        if address == UNDEFINED:
            raise source.refused("data was never written", where=where)
        if stored != size:
            raise source.damaged(f"{stored} bytes where {size} belong", where)
        return source.read_array(address, size, f"data of {where}")
    if kind != _CHUNKED:
        raise source.refused("data kept in another file is not read", where=where)
    index = read_index(source, part, version, len(shape), width, where)
    filters = _filters(source, messages.get(FILTERS), where)
    return _Chunked(source, index, filters, shape, width, where).read()


def _filters(source: Source, message: bytes | None, where: str) -> tuple[int, ...]:
    """What was done to each chunk when it was written, in order."""
    if message is None:
        return ()
    part = Cursor(message, source, "filters")
    version, count = part.number(1), part.number(1)
    if version not in (1, 2) or count > _MOST_FILTERS:
        raise source.damaged(f"{count} filters of version {version}", where)
    if version == 1:
        part.take(6)
    found = []
    for _ in range(count):
        number = part.number(2)
        name = part.number(2) if version == 1 or number >= 256 else 0
        part.take(2)
        values = part.number(2)
        part.take((name + 7) // 8 * 8 if version == 1 else name)
        part.take(4 * (values + (values % 2 if version == 1 else 0)))
        if number not in (_DEFLATE, _SHUFFLE):
            raise source.refused(
                "compression is not read",
                got=_FILTER_NAMES.get(number, f"filter {number}"),
                expected="gzip",
                where=where,
            )
        found.append(number)
    return tuple(found)


@dataclass(frozen=True)
class _Chunked:
    """A data set in pieces of one shape, the last of a row or column cut off at the edge.

    Attributes:
        index: finds them. filters: what was done to each.
        shape, width: of the data set and its elements.
    """

    source: Source
    index: Index
    filters: tuple[int, ...]
    shape: tuple[int, ...]
    width: int
    where: str

    def read(self) -> Bytes:
        piece = self.index.shape
        counts = [-(-size // one) for size, one in zip(self.shape, piece, strict=True)]
        number, size = math.prod(counts), math.prod(self.shape) * self.width
        if number == 0:
            return np.empty(0, np.uint8)
        room = math.prod(piece) * self.width
        self.source.spend("chunks", number, self.where)
        # Chunks may hold more than the data: what is inflated counts too.
        self.source.spend("data_bytes", number * room - size, self.where)
        result = np.empty(self.shape, self._element)
        missing = set(np.ndindex(*counts))
        for chunk in self.index.chunks(
            self.source, self.shape, self.width, filtered=bool(self.filters), where=self.where
        ):
            place = tuple(at // one for at, one in zip(chunk.start, piece, strict=True))
            aligned = all(at % one == 0 for at, one in zip(chunk.start, piece, strict=True))
            if place not in missing or not aligned:
                fact = f"a chunk at {chunk.start} of {self.shape}"
                raise self.source.damaged(fact, self.where)
            missing.remove(place)
            target = result[self._target(chunk.start)]
            if target.flags.c_contiguous and target.nbytes == room:
                self._fill(target.reshape(-1).view(np.uint8), chunk)
            else:
                values = np.empty(piece, self._element)
                self._fill(values.reshape(-1).view(np.uint8), chunk)
                target[...] = values[tuple(slice(size) for size in target.shape)]
        if missing:
            raise self.source.refused(
                "data was never written", got=f"{len(missing)} of {number} chunks", where=self.where
            )
        return result.reshape(-1).view(np.uint8)

    def _target(self, start: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(
            slice(at, min(at + piece, size))
            for at, piece, size in zip(start, self.index.shape, self.shape, strict=True)
        )

    @property
    def _element(self) -> np.dtype[Any]:
        """Of any type, by its width alone; numpy copies whole numbers faster than what it does not
        know."""
        return np.dtype(f"u{self.width}" if self.width in (1, 2, 4, 8) else f"V{self.width}")

    def _fill(self, place: Bytes, chunk: Chunk) -> None:
        """Puts a chunk as it was before it was written into `place`: exactly as many bytes."""
        room = place.size
        if chunk.stored > room + room // 8 + 4096:
            raise self.source.damaged(f"a chunk of {chunk.stored} bytes for {room}", self.where)
        data = self.source.read_array(chunk.address, chunk.stored, f"chunk of {self.where}")
        done = [kind for i, kind in enumerate(self.filters) if not chunk.skipped >> i & 1]
        while done:
            kind = done.pop()
            # What was done first is undone last, where the bytes are to be.
            into = np.empty(room if kind == _DEFLATE else data.size, np.uint8) if done else place
            if kind == _DEFLATE:
                data = self._inflated(data, into)
            elif data.size == into.size and data.size % self.width == 0:
                data = _unshuffled(data, self.width, into)
        if data.size != room:
            fact = f"a chunk of {data.size} bytes where {room} belong"
            raise self.source.damaged(fact, self.where)
        if not np.may_share_memory(data, place):
            place[:] = data

    def _inflated(self, data: Bytes, result: Bytes) -> Bytes:
        """As much of `result` as was filled. Goes on only as long as it fits: a thousand times as
        much could come out."""
        room, at = result.size, 0
        inflater = zlib.decompressobj()
        for begin in range(0, data.size, _PIECE):
            try:
                # One byte more than there is room for, to see that there is no more.
                out = inflater.decompress(data[begin : begin + _PIECE].data, room - at + 1)
            except zlib.error as error:
                raise self.source.damaged(f"compressed data: {error}", self.where) from error
            if len(out) > room - at:
                break
            result[at : at + len(out)] = np.frombuffer(out, np.uint8)
            at += len(out)
            if inflater.eof:
                return result[:at]
        raise self.source.damaged("compressed data that is cut short or too long", self.where)


def _unshuffled(data: Bytes, width: int, result: Bytes) -> Bytes:
    """Elements out of their first bytes, then their second ones, and so on; `result`, filled.

    A piece at a time: what is written with gaps then stays in the cache until it is complete.
    """
    planes, elements = data.reshape(width, -1), result.reshape(-1, width)
    for begin in range(0, len(elements), _ELEMENTS):
        for place, plane in enumerate(planes):
            elements[begin : begin + _ELEMENTS, place] = plane[begin : begin + _ELEMENTS]
    return result
