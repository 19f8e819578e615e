"""B-trees: the index of a group's names and of a data set's chunks.

Each node is read once, and its level must be one below its parent's: no file makes them endless.
"""

from __future__ import annotations

from collections.abc import Iterator

from mpsl_runtime.hdf5.source import Source

__all__ = ["leaves", "records"]

_DEEPEST = 16


def leaves(
    source: Source, address: int, *, kind: int, key_size: int
) -> Iterator[tuple[bytes, int]]:
    """Keys and addresses of the leaves of a tree of version 1, from left to right.

    Args:
        kind: 0 for groups, 1 for chunks of data. key_size: bytes of a key.
    """
    waiting: list[tuple[int, int | None]] = [(address, None)]
    while waiting:
        at, expected = waiting.pop()
        source.once(at, "tree node")
        head = source.cursor(at, 24, "tree node")
        head.expect(b"TREE" + bytes([kind]))
        level, count = head.number(1), head.number(2)
        if expected is not None and level != expected:
            raise source.damaged(f"tree of level {level} where {expected} belongs")
        # Nodes may overlap: each counts with all that it holds.
        source.spend("reads", count)
        node = source.cursor(at + 24, count * (key_size + 8), "tree node")
        children = [(node.take(key_size), node.number(8)) for _ in range(count)]
        if level == 0:
            yield from children
        else:
            waiting.extend((child, level - 1) for _, child in reversed(children))


def records(source: Source, address: int, *, kind: int, record_size: int) -> Iterator[bytes]:
    """The records of a tree of version 2, in no order that matters.

    Args:
        kind: 5 for the names of a group. record_size: bytes of a record.
    """
    source.once(address, "tree")
    head = source.cursor(address, 34, "tree")
    head.expect(b"BTHD\0" + bytes([kind]))
    node_size, size, depth = head.number(4), head.number(2), head.number(2)
    head.take(2)
    top, count = head.number(8), head.number(2)
    if size != record_size or depth > _DEEPEST or node_size > 1 << 20 or count == 0:
        if count == 0:
            return
        raise source.damaged("tree of another form than its group needs")
    # Bytes of the counts beside each child: of its records, and of all below it.
    most = (node_size - 10) // record_size
    counting, total, totals = _width(most), most, [0]
    for _ in range(depth):
        pointer = 8 + counting + totals[-1]
        here = (node_size - 10 - pointer) // (record_size + pointer)
        total = (here + 1) * total + here
        totals.append(_width(total))
    waiting = [(top, count, depth)]
    while waiting:
        at, count, level = waiting.pop()
        source.once(at, "tree node")
        source.spend("reads", count)
        node = source.cursor(at, node_size, "tree node")
        node.expect((b"BTIN\0" if level else b"BTLF\0") + bytes([kind]))
        for _ in range(count):
            yield node.take(record_size)
        for _ in range(count + 1 if level else 0):
            child, below = node.number(8), node.number(counting)
            node.take(totals[level - 1])
            waiting.append((child, below, level - 1))


def _width(largest: int) -> int:
    """Bytes that hold whole numbers up to `largest`."""
    return (max(largest, 1).bit_length() + 7) // 8
