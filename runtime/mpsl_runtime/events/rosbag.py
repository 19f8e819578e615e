"""Events in bags of ROS 1: messages `dvs_msgs/EventArray`, and others of that layout.

Source: ROS wiki, "Bags/Format/2.0" and "dvs_msgs/EventArray". A bag is records: uint32 length,
header fields `name=value`, uint32 length, data. A chunk holds connections (which topic, which type)
and messages, packed by bz2 or LZ4 or not at all; an index at the end, which a bag that was killed
does not have and which is not needed here. A message: a header, uint32 height and width, and the
events, 13 bytes each: uint16 x and y, uint32 seconds and nanoseconds, bool polarity.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.compression import PackedError, errors, unpack
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.trouble import Trouble

__all__ = ["MARK", "RosbagParser"]

MARK = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_LARGEST_HEADER = 1 << 20
_LARGEST_CHUNK = 1 << 28
_EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])


class _DamagedRecordError(Exception):
    """A length or a field that leads out of its record."""


def _u32(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise _DamagedRecordError(f"{len(data)} bytes")
    return int.from_bytes(data[at : at + 4], "little")


def _part(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise _DamagedRecordError(f"{size} bytes of {len(data) - at}")
    return data[at : at + size]


def _fields(header: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at < len(header):
        size = _u32(header, at)
        name, _, value = _part(header, at + 4, size).partition(b"=")
        found[name] = value
        at += 4 + size
    return found


def _records(data: bytes) -> Iterator[tuple[dict[bytes, bytes], bytes]]:
    """(header, data) of each record of a chunk."""
    at = 0
    while at < len(data):
        header = _part(data, at + 4, _u32(data, at))
        at += 4 + len(header)
        content = _part(data, at + 4, _u32(data, at))
        at += 4 + len(content)
        yield _fields(header), content


class RosbagParser:
    """See `parser.Parser`.

    Raises:
        DataError: from `feed` and `finish`: no topic of events, or several of which the options
            name none.
    """

    format = "ROS bag"

    def __init__(self, options: ReadOptions, trouble: Trouble, where: str | Path) -> None:
        self.sensor_size: tuple[int, int] | None = None
        self._options, self._trouble, self._where = options, trouble, where
        self._kept = bytearray()
        self._skip = len(MARK)
        self._is_lost = False
        self._topics: dict[bytes, str] = {}  # of events, by the number of their connection
        self._others: dict[str, str] = {}  # types of the other topics

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        if self._is_lost:
            self._trouble.add("lost_bytes", len(data))
            return concatenated([])
        self._kept += data
        pieces: list[Columns] = []
        at = 0
        try:
            while True:
                passed = min(self._skip, len(self._kept) - at)
                self._skip -= passed
                at += passed
                if self._skip:
                    break
                used = self._record(at, pieces)
                if not used:
                    break
                at += used
        except _DamagedRecordError:
            self._is_lost = True
            self._trouble.add("damaged", 1, "record")
            self._trouble.add("lost_bytes", len(self._kept) - at)
            at = len(self._kept)
        del self._kept[:at]
        return concatenated(pieces)

    def finish(self) -> Columns:
        """See `Parser`."""
        if self._kept or self._skip:
            self._trouble.add("cut", 1, "a record")
        if not self._topics and not self._is_lost:
            others = ", ".join(f"{topic} ({kind})" for topic, kind in self._others.items())
            raise DataError(
                "bag has no such topic of events" if self._options.stream else "bag has no events",
                got=others[:200] or "no topics",
                expected=repr(self._options.stream or "dvs_msgs/EventArray"),
                where=self._where,
            )
        return concatenated([])

    def _record(self, at: int, pieces: list[Columns]) -> int:
        """Takes in the record at a place; how many bytes it was, 0 where it is not whole yet."""
        kept = self._kept
        if len(kept) - at < 4:
            return 0
        header_size = int.from_bytes(kept[at : at + 4], "little")
        if header_size > _LARGEST_HEADER:
            raise _DamagedRecordError(f"a header of {header_size} bytes")
        start = at + 8 + header_size
        if len(kept) < start:
            return 0
        fields = _fields(bytes(kept[at + 4 : start - 4]))
        size = int.from_bytes(kept[start - 4 : start], "little")
        kind = fields.get(b"op", b"\0")[:1]
        if kind not in (b"\x02", b"\x05", b"\x07"):
            self._skip = size
            return start - at
        if size > _LARGEST_CHUNK:
            raise _DamagedRecordError(f"a record of {size} bytes")
        if len(kept) < start + size:
            return 0
        content = bytes(memoryview(kept)[start : start + size])
        if kind[0] == _CHUNK:
            self._chunk(fields, content, pieces)
        else:
            self._take(kind[0], fields, content, pieces)
        return start - at + size

    def _chunk(self, fields: dict[bytes, bytes], content: bytes, pieces: list[Columns]) -> None:
        """The records of a chunk; a damaged one is counted, and the next is as good as any."""
        try:
            for inner, data in _records(self._unpacked(fields, content)):
                kind = inner.get(b"op", b"\0")[:1]
                if kind in (b"\x02", b"\x07"):
                    self._take(kind[0], inner, data, pieces)
        except (_DamagedRecordError, PackedError):
            self._trouble.add("damaged", 1, "chunk")

    def _unpacked(self, fields: dict[bytes, bytes], content: bytes) -> bytes:
        packing = fields.get(b"compression", b"none")
        if packing == b"none":
            return content
        size = _u32(fields.get(b"size", b""), 0)
        if size > _LARGEST_CHUNK:
            raise PackedError(f"{size} bytes")
        if packing == b"lz4":
            return unpack("lz4", content, size)
        if packing != b"bz2":
            raise PackedError(f"packing {packing!r}")
        try:
            return bz2.BZ2Decompressor().decompress(content, size)
        except errors() as error:
            raise PackedError(str(error)) from error
        except OSError as error:
            raise PackedError(str(error)) from error

    def _take(
        self, kind: int, fields: dict[bytes, bytes], content: bytes, pieces: list[Columns]
    ) -> None:
        number = fields.get(b"conn", b"")
        if kind == _CONNECTION:
            self._connection(number, fields, content)
        elif kind == _MESSAGE and number in self._topics:
            pieces.append(self._message(content))

    def _connection(self, number: bytes, fields: dict[bytes, bytes], content: bytes) -> None:
        topic = fields.get(b"topic", b"").decode("utf-8", "replace")
        kind = _fields(content).get(b"type", b"").decode("utf-8", "replace")
        wanted = self._options.stream
        if not kind.endswith("/EventArray") or (wanted is not None and wanted != topic):
            self._others[topic] = kind
            return
        self._topics[number] = topic
        if len(set(self._topics.values())) > 1:
            raise DataError(
                "recording has several streams of events",
                got=", ".join(sorted(set(self._topics.values()))),
                expected="one of them by --stream",
                where=self._where,
            )

    def _message(self, content: bytes) -> Columns:
        """The events of one message; none, and a count, where it is damaged."""
        try:
            at = 16 + _u32(content, 12)  # sequence, time, and the name of the frame
            height, width, number = (_u32(content, at + 4 * i) for i in range(3))
            body = _part(content, at + 12, number * _EVENT.itemsize)
        except _DamagedRecordError:
            self._trouble.add("damaged", 1, "message")
            return concatenated([])
        if self.sensor_size is None and 0 < width < 1 << 16 and 0 < height < 1 << 16:
            self.sensor_size = width, height
        events = np.frombuffer(body, _EVENT, number)
        return (
            events["s"].astype(np.int64) * 1_000_000
            + (events["ns"].astype(np.int64) + 500) // 1000,
            events["x"].copy(),
            events["y"].copy(),
            (events["p"] != 0).astype(np.uint8),
        )
