"""Heaps: names of a group, links of a large group, and text of any length."""

from __future__ import annotations

from mpsl_runtime.hdf5.source import Source

__all__ = ["LinkHeap", "name_heap", "text_heap"]

_LARGEST_NAME_HEAP = 1 << 24
_LARGEST_LINK = 1 << 16


def name_heap(source: Source, address: int) -> bytes:
    """The names of a group with a symbol table, one after another ("local heap")."""
    head = source.cursor(address, 32, "heap of names")
    head.expect(b"HEAP\0")
    head.take(3)
    size, _, start = head.number(8), head.number(8), head.number(8)
    if size > _LARGEST_NAME_HEAP:
        raise source.damaged(f"heap of names of {size} bytes")
    source.once(start, "heap of names")
    return source.read(start, size, "heap of names")


def text_heap(source: Source, address: int) -> dict[int, bytes]:
    """The texts of a heap by index ("global heap")."""
    head = source.cursor(address, 16, "heap of text")
    head.expect(b"GCOL\x01")
    head.take(3)
    size = head.number(8)
    body = source.cursor(address + 16, max(0, size - 16), "heap of text")
    found: dict[int, bytes] = {}
    while body.left >= 16:
        source.spend("reads", 1)
        index = body.number(2)
        body.take(6)
        length = body.number(8)
        if index == 0:  # what is free, to the end
            break
        found.setdefault(index, body.take(length))
        body.take(min(body.left, -length % 8))
    return found


class LinkHeap:
    """The links of a group with many of them ("fractal heap"): blocks in rows, each row's blocks
    twice as large as those of the row above, and rows of such tables below them."""

    def __init__(self, source: Source, address: int) -> None:
        self.source = source
        head = source.cursor(address, 146, "heap of links")
        head.expect(b"FRHP\0")
        head.take(2)
        filters, _ = head.number(2), head.number(1)
        largest = head.number(4)
        head.take(96)
        self.columns, self.smallest = head.number(2), head.number(8)
        largest_block, bits = head.number(8), head.number(2)
        head.take(2)
        self.top, self.rows = head.number(8), head.number(2)
        sound = (
            filters == 0
            and self.columns > 0
            and self.smallest > 0
            and self.smallest & (self.smallest - 1) == 0
            and self.columns & (self.columns - 1) == 0
            and self.smallest <= largest_block <= 1 << 24
            and bits <= 64
        )
        if not sound:
            raise source.damaged("heap of links of an unknown form")
        self.offset_bytes = (bits + 7) // 8
        # Enough for an offset within the largest block, and for the largest object.
        self.length_bytes = min(
            (largest_block.bit_length() + 6) // 8, (largest.bit_length() + 7) // 8
        )
        self.direct_rows = (largest_block // self.smallest).bit_length() + 1

    def link(self, name: bytes) -> bytes:
        """The link message of a heap ID."""
        if name[0] != 0:
            raise self.source.refused("very long names are not read")
        at = 1 + self.offset_bytes
        offset = int.from_bytes(name[1:at], "little")
        length = int.from_bytes(name[at : at + self.length_bytes], "little")
        if length > _LARGEST_LINK:
            raise self.source.damaged(f"a link of {length} bytes")
        return self.source.read(self._address(offset), length, "link")

    def _address(self, offset: int) -> int:
        """Where in the file what stands at `offset` in the heap is."""
        table, rows = self.top, self.rows
        if rows == 0:  # one block alone
            return self._inside(table, offset, self.smallest)
        first = self.smallest * self.columns
        while True:
            row = (offset // first).bit_length()
            size = self.smallest << max(0, row - 1)
            begin = first << (row - 1) if row else 0
            if row >= rows:
                raise self.source.damaged("a link beyond its heap")
            column = (offset - begin) // size
            index = row * self.columns + column
            at = table + 5 + 8 + self.offset_bytes + 8 * index
            table = self.source.cursor(at, 8, "heap of links").number(8)
            offset = offset - begin - column * size
            if row < self.direct_rows:
                return self._inside(table, offset, size)
            rows = (size // first).bit_length()

    def _inside(self, block: int, offset: int, size: int) -> int:
        if offset >= size:
            raise self.source.damaged("a link beyond its heap")
        return block + offset
