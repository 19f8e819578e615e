"""Where a file begins, and the object headers that say what each group and data set is.

After the HDF5 File Format Specification 3.0: superblock 0 to 3, object headers of versions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct

from mpsl_runtime.hdf5.source import Cursor, Source

__all__ = [
    "DATASPACE",
    "DATATYPE",
    "EXTERNAL_FILES",
    "FILTERS",
    "LAYOUT",
    "LINK_INFO",
    "SIGNATURE",
    "SYMBOL_TABLE",
    "UNDEFINED",
    "Header",
    "header",
    "root",
]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 0xFFFFFFFFFFFFFFFF
"""An address that says: nothing is there."""

# Message types of object headers.
DATASPACE, DATATYPE, EXTERNAL_FILES, LAYOUT, FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
LINK_INFO, _LINK, _CONTINUATION, SYMBOL_TABLE = 0x02, 0x06, 0x10, 0x11
_SHARED = 0x02
_MOST_MESSAGES = 1000
_LARGEST_BLOCK = 1 << 20
_CHECKSUM = 4
_MESSAGE = Struct("<HHB3x")  # of the older kind: type, length, flags


@dataclass(frozen=True)
class Header:
    """What an object header says.

    Attributes:
        messages: by type, of each the first. links: messages that each hold one item of a group.
    """

    messages: dict[int, bytes] = field(default_factory=dict)
    links: list[bytes] = field(default_factory=list)

    @property
    def is_group(self) -> bool:
        """It has names of other objects."""
        return bool(self.links) or not self.messages.keys().isdisjoint((SYMBOL_TABLE, LINK_INFO))


def root(source: Source) -> int:
    """The address of the root group's object header.

    Raises:
        MpslError: not HDF5, of a version that is not read, or shorter than it says.
    """
    if source.size < 96 or source.read(0, 8, "superblock") != SIGNATURE:
        raise source.refused("not HDF5", expected=f"a {source.noun}")
    head = source.cursor(0, 96, "superblock")
    head.take(8)
    version = head.number(1)
    if version > 3:
        raise source.refused("HDF5 of this version is not read", got=f"superblock {version}")
    head.take(4 if version < 2 else 0)
    sizes = head.number(1), head.number(1)
    if sizes != (8, 8):
        raise source.refused(
            "HDF5 with other addresses than usual", got=f"{sizes} bytes", expected="8"
        )
    head.take((9, 13, 1, 1)[version])
    base = head.number(8)
    head.take(8)
    end = head.number(8)
    if base != 0 or (version < 2 and head.number(8) != UNDEFINED):
        raise source.refused("HDF5 in another file or spread over several is not read")
    if end > source.size:
        raise source.damaged(f"{source.size} bytes of {end}: the end of the file is missing")
    head.take(8 if version < 2 else 0)  # the name of the root, which has none
    return head.number(8)


def header(source: Source, address: int, where: str) -> Header:
    """The object header at `address`.

    Raises:
        MpslError: damaged, or parts of it are kept elsewhere.
    """
    source.once(address, f"object {where}")
    found = Header()
    for count, (kind, flags, data) in enumerate(_messages(source, address, where)):
        source.spend("reads", 1, where)
        if count > _MOST_MESSAGES:
            raise source.damaged("object header without an end", where)
        if kind and flags & _SHARED:
            raise source.refused("shared parts are not read", where=where)
        if kind == _LINK:
            found.links.append(data)
        else:
            found.messages.setdefault(kind, data)
    return found


def _messages(source: Source, address: int, where: str) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and content of each message."""
    head = source.cursor(address, min(64, source.size - address), "object header")
    newer = head.data[:4] == b"OHDR"
    ordered = False
    if newer:
        head.take(4)
        version, flags = head.number(1), head.number(1)
        head.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
        ordered = bool(flags & 0x04)
        size = head.number(1 << (flags & 3))
        blocks = [(address + head.at, size, 0)]
    else:
        version = head.number(1) + 1
        head.take(7)
        blocks = [(address + 16, head.number(4), 0)]
    if version != 2:
        raise source.damaged("object header of an unknown version", where)
    while blocks:
        start, size, skipped = blocks.pop()
        if size > _LARGEST_BLOCK:
            raise source.damaged(f"object header of {size} bytes", where)
        block = source.cursor(start, size, "object header")
        block.take(skipped)
        while block.left >= (4 + 2 * ordered if newer else 8):
            if newer:
                kind, length, flags = block.number(1), block.number(2), block.number(1)
                block.take(2 if ordered else 0)
            else:
                kind, length, flags = block.numbers(_MESSAGE)
            data = block.take(length)
            if kind != _CONTINUATION:
                yield kind, flags, data
                continue
            part = Cursor(data, source, "continuation of an object header")
            at, size = part.number(8), part.number(8)
            # Blocks of the newer kind begin with a signature and end with a checksum.
            blocks.append((at, size - _CHECKSUM, 4) if newer else (at, size, 0))
            if size < 2 * _CHECKSUM:
                raise source.damaged("object header of no length", where)
            source.once(at, f"header of {where}")
