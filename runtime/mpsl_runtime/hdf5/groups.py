"""The names in a group and where their objects are; what is a link to somewhere else is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from mpsl_runtime.hdf5.heaps import LinkHeap, name_heap
from mpsl_runtime.hdf5.objects import LINK_INFO, SYMBOL_TABLE, UNDEFINED, Header
from mpsl_runtime.hdf5.source import Cursor, Source
from mpsl_runtime.hdf5.trees import leaves, records

__all__ = ["Entry", "entries"]

_LONGEST_NAME = 1024
_SOFT_LINK = 2
_SYMBOL = Struct("<QQI20x")  # offset of the name, address of the header, kind of what is cached
_NAME_INDEX, _NAME_RECORD = 5, 11


@dataclass(frozen=True)
class Entry:
    """A name in a group and the address of the object header behind it."""

    name: str
    address: int


def entries(source: Source, group: Header, where: str) -> list[Entry]:
    """The items of a group, sorted by name.

    Raises:
        MpslError: damaged, a link, or a name that no item can have.
    """
    found: dict[bytes, Entry] = {}
    for raw, address in _raw_entries(source, group, where):
        if not 0 < len(raw) <= _LONGEST_NAME:
            raise source.damaged("an item without a name, or with a very long one", where)
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise source.damaged(f"a name that is not UTF-8: {raw[:40]!r}", where) from error
        if raw in found:
            raise source.damaged(f"two items named {name!r}", where)
        source.spend("items", 1, where)
        found[raw] = Entry(name, address)
    return [found[raw] for raw in sorted(found)]


def _raw_entries(source: Source, group: Header, where: str) -> Iterator[tuple[bytes, int]]:
    for link in group.links:
        yield _linked(source, link, where)
    if LINK_INFO in group.messages:
        info = Cursor(group.messages[LINK_INFO], source, "link info")
        info.take(1)
        info.take(8 if info.number(1) & 1 else 0)
        heap, index = info.number(8), info.number(8)
        if heap != UNDEFINED:
            links = LinkHeap(source, heap)
            for record in records(source, index, kind=_NAME_INDEX, record_size=_NAME_RECORD):
                yield _linked(source, links.link(record[4:]), where)
    if SYMBOL_TABLE in group.messages:
        message = Cursor(group.messages[SYMBOL_TABLE], source, "symbol table")
        tree, names = message.number(8), name_heap(source, message.number(8))
        for _, node in leaves(source, tree, kind=0, key_size=8):
            for offset, address in _symbols(source, node, where):
                end = names.find(b"\0", offset, offset + _LONGEST_NAME + 2)
                yield names[offset : max(offset, end)], address


def _linked(source: Source, link: bytes, where: str) -> tuple[bytes, int]:
    """Name and address of a link message."""
    part = Cursor(link, source, "link")
    part.take(1)
    flags = part.number(1)
    if flags & 0x08 and part.number(1) != 0:
        raise source.refused("links are not read", expected="the data itself", where=where)
    part.take((8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0))
    name = part.take(part.number(1 << (flags & 3)))
    return name, part.number(8)


def _symbols(source: Source, address: int, where: str) -> Iterator[tuple[int, int]]:
    """Offset of the name and address of the object header of each entry of a symbol node."""
    source.once(address, "symbol node")
    head = source.cursor(address, 8, "symbol node")
    head.expect(b"SNOD\x01")
    head.take(1)
    count = head.number(2)
    source.spend("reads", count)
    node = source.cursor(address + 8, 40 * count, "symbol node")
    for _ in range(count):
        offset, header, cache = node.numbers(_SYMBOL)
        if cache == _SOFT_LINK or header == UNDEFINED:
            raise source.refused("links are not read", expected="the data itself", where=where)
        yield offset, header
