"""Where the chunks of a data set are: a tree, a list, or one chunk alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mpsl_runtime.hdf5.objects import UNDEFINED
from mpsl_runtime.hdf5.source import Cursor, Source
from mpsl_runtime.hdf5.trees import leaves

__all__ = ["Chunk", "Index", "read_index"]

_SINGLE, _IMPLICIT, _FIXED = 1, 2, 3
_OTHERS = {4: "extensible array", 5: "tree 2"}
_CHECKSUM = 4


@dataclass(frozen=True)
class Chunk:
    """A piece of data in the file.

    Attributes:
        start: its first element. address, stored: where it lies, and in how many bytes.
        skipped: a bit for each filter that was left out.
    """

    start: tuple[int, ...]
    address: int
    stored: int
    skipped: int


@dataclass(frozen=True)
class Index:
    """How the chunks are found.

    Attributes:
        kind: of the newer layout; 0 for a tree of version 1. address: of the index.
        shape: of a chunk.
        stored, skipped: of a single chunk that is compressed. page_bits: of a list in pages.
    """

    kind: int
    address: int
    shape: tuple[int, ...]
    stored: int | None = None
    skipped: int = 0

    def chunks(
        self, source: Source, shape: tuple[int, ...], width: int, *, filtered: bool, where: str
    ) -> Iterator[Chunk]:
        """Every chunk that was written.

        Args:
            shape: of the data set. width: bytes of an element. filtered: chunks are compressed.
        """
        if self.address == UNDEFINED:
            return iter(())
        if self.kind == 0:
            return self._from_tree(source, len(shape))
        room = math.prod(self.shape) * width
        if self.kind == _SINGLE:
            stored = room if self.stored is None else self.stored
            return iter([Chunk((0,) * len(shape), self.address, stored, self.skipped)])
        counts = [-(-size // piece) for size, piece in zip(shape, self.shape, strict=True)]
        starts = (
            tuple(int(at) * piece for at, piece in zip(place, self.shape, strict=True))
            for place in np.ndindex(*counts)
        )
        if self.kind == _IMPLICIT:
            return (
                Chunk(start, self.address + number * room, room, 0)
                for number, start in enumerate(starts)
            )
        return _from_list(source, self.address, starts, math.prod(counts), room, filtered, where)

    def _from_tree(self, source: Source, rank: int) -> Iterator[Chunk]:
        for key, address in leaves(source, self.address, kind=1, key_size=8 + 8 * (rank + 1)):
            part = Cursor(key, source, "key of a chunk")
            stored, skipped = part.number(4), part.number(4)
            yield Chunk(tuple(part.number(8) for _ in range(rank)), address, stored, skipped)


def read_index(
    source: Source, part: Cursor, version: int, rank: int, width: int, where: str
) -> Index:
    """The index that a layout message names.

    Args:
        part: the message behind version and class. rank, width: of the data set.

    Raises:
        MpslError: damaged, of other dimensions than its data, or an index that is not read.
    """
    flags = part.number(1) if version > 3 else 0
    dimensions = part.number(1)
    address = part.number(8) if version == 3 else UNDEFINED
    bytes_of_size = 4 if version == 3 else part.number(1)
    if not 1 <= dimensions - 1 == rank:
        raise source.damaged("chunks of other dimensions than their data", where)
    shape = tuple(part.number(bytes_of_size) for _ in range(rank))
    if part.number(bytes_of_size) != width or 0 in shape:
        raise source.damaged("chunks of other elements than their data", where)
    if version == 3:
        return Index(0, address, shape)
    kind = part.number(1)
    if kind == _SINGLE:
        stored, skipped = (part.number(8), part.number(4)) if flags & 2 else (None, 0)
        return Index(kind, part.number(8), shape, stored, skipped)
    if kind == _FIXED:
        part.take(1)
    elif kind != _IMPLICIT:
        got = f"chunks in an {_OTHERS.get(kind, f'index {kind}')}"
        raise source.refused("data set that can grow is not read", got=got, where=where)
    return Index(kind, part.number(8), shape)


def _from_list(
    source: Source,
    address: int,
    starts: Iterator[tuple[int, ...]],
    count: int,
    room: int,
    filtered: bool,
    where: str,
) -> Iterator[Chunk]:
    """The chunks of a list of fixed length, in pages if it is long."""
    head = source.cursor(address, 28, "list of chunks")
    head.expect(b"FAHD\0" + bytes([filtered]))
    size, page_bits, stated, block = (head.number(n) for n in (1, 1, 8, 8))
    if stated != count or not (size == 8 or (filtered and 12 < size <= 20)) or page_bits > 20:
        raise source.damaged("list of chunks of another length than their data", where)
    if block == UNDEFINED:
        return
    pages = -(-count >> page_bits) if count > 1 << page_bits else 0
    start = source.cursor(block, 14, "list of chunks")
    start.expect(b"FADB\0" + bytes([filtered]))
    at = block + 14
    written = b"\xff" * pages
    if pages:
        bitmap = source.read(at, (pages + 7) // 8, "list of chunks")
        written = bytes(bitmap[page // 8] >> (7 - page % 8) & 1 for page in range(pages))
        at += len(bitmap) + _CHECKSUM
    for page in range(max(1, pages)):
        length = min(count - (page << page_bits), 1 << page_bits) if pages else count
        source.spend("reads", length)
        part = source.cursor(at, length * size, "list of chunks")
        at += length * size + _CHECKSUM
        for _ in range(length):
            place, where_it_is = next(starts), part.number(8)
            stored = part.number(size - 12) if filtered else room
            skipped = part.number(4) if filtered else 0
            if where_it_is != UNDEFINED and (not pages or written[page]):
                yield Chunk(place, where_it_is, stored, skipped)
