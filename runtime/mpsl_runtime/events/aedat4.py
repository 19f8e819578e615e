"""AEDAT 4.0, the format of DV and dv-processing, files and streams alike.

Source: inivation, "AEDAT 4.0". A first line; a table of FlatBuffers with the packing, the place of
the index at the end (-1 while a file is written, and in streams) and an XML text that says what the
streams are; then packets: int32 stream, int32 size, and that many bytes, packed. An unpacked packet
of a stream of the type EVTS is a table with one vector of events, 16 bytes each: int64 time in µs,
int16 x, int16 y, bool ON.

It is read by hand, with every size held to what is there: of the libraries that read it, one ends
the process on a flipped bit and both take a path only, no bytes as they arrive.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.parsers import expat

import numpy as np

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.compression import PackedError, Packing, unpack
from mpsl_runtime.events.flatbuffer import DamagedBufferError, Table
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.trouble import Trouble

__all__ = ["Aedat4Parser", "Stream", "described_streams"]

_LINE = b"#!AER-DAT4.0\r\n"
_LARGEST_HEADER = 1 << 24
# DV writes packets of at most some MB; more is a damaged size, and nothing after it can be found.
_LARGEST_PACKET = 1 << 26
_LARGEST_UNPACKED = 1 << 28
_PACKINGS: dict[int, Packing | None] = {0: None, 1: "lz4", 2: "lz4", 3: "zstd", 4: "zstd"}
_PACKET = struct.Struct("<ii")
_EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "p"],
        "formats": ["<i8", "<u2", "<u2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)


@dataclass
class Stream:
    """A stream as the header describes it.

    Attributes:
        number: as its packets say it; type: such as `EVTS`; name: of the output that wrote it.
        width, height: of the sensor, 0 where it is not said.
    """

    number: int
    type: str = ""
    name: str = ""
    width: int = 0
    height: int = 0


def described_streams(text: str) -> list[Stream]:
    """The streams that the XML of a header describes.

    Raises:
        DamagedBufferError: it is no XML, or one with entities, which could unfold without end.
    """
    found: dict[int, Stream] = {}
    path: list[str] = []
    words: list[str] = []
    key = ""

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal key
        if tag == "node":
            path.append(attributes.get("name", ""))
        elif tag == "attr":
            key = attributes.get("key", "")
            words.clear()

    def end(tag: str) -> None:
        nonlocal key
        if tag == "node":
            path.pop()
        elif tag == "attr":
            _describe(found, path, key, "".join(words).strip())
            key = ""

    def refuse(*_: object) -> None:
        raise DamagedBufferError("entities in the XML of the header")

    reader = expat.ParserCreate()
    reader.StartElementHandler, reader.EndElementHandler = begin, end
    reader.CharacterDataHandler = words.append
    reader.EntityDeclHandler = refuse
    try:
        reader.Parse(text, True)
    except (expat.ExpatError, ValueError, IndexError) as error:
        raise DamagedBufferError(f"XML of the header: {error}") from None
    return list(found.values())


def _describe(found: dict[int, Stream], path: list[str], key: str, value: str) -> None:
    """Takes in one attribute; `path` is the names of the nodes around it."""
    if "outInfo" not in path:
        return
    place = path[path.index("outInfo") + 1 :]
    if not place or not (place[0].isascii() and place[0].isdigit() and len(place[0]) < 10):
        return
    stream = found.setdefault(int(place[0]), Stream(int(place[0])))
    if len(place) == 1 and key == "typeIdentifier":
        stream.type = value
    elif len(place) == 1 and key == "originalOutputName":
        stream.name = value
    elif place[1:] == ["info"] and key in ("sizeX", "sizeY"):
        if not (value.isascii() and value.isdigit() and 0 < int(value[:6]) < 1 << 16):
            raise DamagedBufferError(f"{key} {value[:20]!r}")
        if key == "sizeX":
            stream.width = int(value[:6])
        else:
            stream.height = int(value[:6])


class Aedat4Parser:
    """See `parser.Parser`.

    Raises:
        DataError: from `feed` and `finish`: a damaged header, no stream of events, or several of
            which the options name none.
    """

    format = "AEDAT 4.0"

    def __init__(self, options: ReadOptions, trouble: Trouble, where: str | Path) -> None:
        self.sensor_size: tuple[int, int] | None = None
        self._options, self._trouble, self._where = options, trouble, where
        self._kept = bytearray()
        self._position = 0  # of the first kept byte, in the file
        self._end = -1  # where the packets end, by the header
        self._packing: Packing | None = None
        self._numbers: set[int] = set()
        self._stream = -1
        self._skip = 0
        self._state: Literal["header", "packets", "lost", "index"] = "header"

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        if self._state == "lost":
            self._trouble.add("lost_bytes", len(data))
        if self._state in ("lost", "index"):
            return concatenated([])
        self._kept += data
        if self._state == "header" and not self._header():
            return concatenated([])
        return self._packets()

    def finish(self) -> Columns:
        """See `Parser`."""
        if self._state == "header":
            raise DataError("header of the AEDAT file is not whole", where=self._where)
        if self._state == "packets" and (self._kept or self._skip):
            self._trouble.add("cut", 1, "a packet")
        return concatenated([])

    def _header(self) -> bool:
        """Takes the header in once it is whole."""
        start = len(_LINE) + 4
        if len(self._kept) < start:
            return False
        size = int.from_bytes(self._kept[len(_LINE) : start], "little")
        if size > _LARGEST_HEADER:
            raise self._damaged_header(f"a header of {size} bytes")
        if len(self._kept) < start + size:
            return False
        try:
            table = Table(bytes(self._kept[start : start + size]), b"IOHE")
            packing = table.int32(0, 0)
            self._end = table.int64(1, -1)
            at, length = table.vector(2, 1)
            text = table.buffer[at : at + length].decode("utf-8", "replace")
            streams = described_streams(text)
        except DamagedBufferError as error:
            raise self._damaged_header(str(error)) from None
        if packing not in _PACKINGS:
            raise self._damaged_header(f"packing {packing}")
        self._packing = _PACKINGS[packing]
        self._choose(streams)
        self._take(start + size)
        self._state = "packets"
        return True

    def _choose(self, streams: list[Stream]) -> None:
        self._numbers = {stream.number for stream in streams}
        events = [stream for stream in streams if stream.type == "EVTS"]
        names = ", ".join(f"{stream.number} ({stream.name or 'no name'})" for stream in events)
        wanted = self._options.stream
        if wanted is not None:
            events = [stream for stream in events if wanted in (str(stream.number), stream.name)]
        if not events:
            raise DataError(
                "recording has no such stream of events" if wanted else "recording has no events",
                got=repr(wanted) if wanted else [stream.type for stream in streams],
                expected=names or "a stream of type EVTS",
                where=self._where,
            )
        if len(events) > 1:
            raise DataError(
                "recording has several streams of events",
                got=names,
                expected="one of them by --stream",
                where=self._where,
            )
        self._stream = events[0].number
        if events[0].width and events[0].height:
            self.sensor_size = events[0].width, events[0].height

    def _packets(self) -> Columns:
        pieces: list[Columns] = []
        kept = self._kept
        at = 0
        while self._state == "packets":
            if self._skip:
                passed = min(self._skip, len(kept) - at)
                self._skip -= passed
                at += passed
                if self._skip:
                    break
            if self._end > 0 and self._position + at >= self._end:
                self._state = "index"
                break
            if len(kept) - at < _PACKET.size:
                break
            stream, size = _PACKET.unpack_from(kept, at)
            if stream not in self._numbers or not 0 <= size <= _LARGEST_PACKET:
                self._trouble.add("damaged", 1, "packet")
                self._trouble.add("lost_bytes", len(kept) - at)
                self._state = "lost"
                break
            if stream != self._stream:
                at += _PACKET.size
                self._skip = size
                continue
            if len(kept) - at - _PACKET.size < size:
                break
            at += _PACKET.size
            pieces.append(self._events(bytes(memoryview(kept)[at : at + size])))
            at += size
        if self._state == "packets":
            self._take(at)
        else:
            kept.clear()
        return concatenated(pieces)

    def _events(self, packet: bytes) -> Columns:
        """The events of one packet; none, and a count, where it is damaged."""
        try:
            if self._packing is not None:
                packet = unpack(self._packing, packet, _LARGEST_UNPACKED)
            table = Table(packet[4:], b"EVTS")
            at, number = table.vector(0, _EVENT.itemsize)
        except (DamagedBufferError, PackedError):
            self._trouble.add("damaged", 1, "packet")
            return concatenated([])
        events = np.frombuffer(table.buffer, _EVENT, number, at)
        return (
            events["t"].astype(np.int64),
            events["x"].astype(np.uint16),
            events["y"].astype(np.uint16),
            (events["p"] != 0).astype(np.uint8),
        )

    def _take(self, size: int) -> None:
        del self._kept[:size]
        self._position += size

    def _damaged_header(self, got: str) -> DataError:
        return DataError("damaged header of the AEDAT file", got=got, where=self._where)
