"""Encoders of every format, plain and slow, for tests where no other program is at hand."""

from __future__ import annotations

import bz2
import gzip
import struct
from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

from mpsl_runtime.events.aedat import encode_aedat3
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import encode_nmnist_bin

Encode = Callable[..., bytes]
WIDTH, HEIGHT = 34, 30


def rows_of(events: Events) -> list[tuple[int, int, int, int]]:
    """(t, x, y, p) as plain numbers."""
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def percent(*lines: str) -> bytes:
    return "".join(f"% {line}\n" for line in lines).encode()


def evt2(events: Events) -> bytes:
    words, high = [], None
    for t, x, y, p in rows_of(events):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    head = percent("evt 2.0", f"format EVT2;height={HEIGHT};width={WIDTH}", "end")
    return head + struct.pack(f"<{len(words)}I", *words)


def evt21(events: Events, *, swapped: bool = False) -> bytes:
    words: list[tuple[int, int]] = []
    high = None
    for (t, y, p, group), rows in groupby(
        rows_of(events), key=lambda row: (row[0], row[2], row[3], row[1] // 32)
    ):
        if t >> 6 != high:
            high = t >> 6
            words.append((8 << 28 | high & 0xFFFFFFF, 0))
        for row in rows:  # one pixel a word keeps the order of the events
            pixel = row[1] - 32 * group
            words.append((p << 28 | (t & 63) << 22 | 32 * group << 11 | y, 1 << pixel))
    endianness = "legacy" if swapped else "little"
    head = percent(f"endianness {endianness}", f"format EVT21;height={HEIGHT};width={WIDTH}")
    pairs = [word if swapped else word[::-1] for word in words]
    return head + b"".join(struct.pack("<II", *pair) for pair in pairs)


def evt3(events: Events) -> bytes:
    words: list[int] = []
    high = low = row = None
    for t, x, y, p in rows_of(events):
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(0x8000 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6000 | low)
        if y != row:
            row = y
            words.append(y)
        if x % 3 == 0:  # some as vectors of one
            words += [0x3000 | p << 11 | x, 0x4001]
        else:
            words.append(0x2000 | p << 11 | x)
    head = percent("evt 3.0", f"geometry {WIDTH}x{HEIGHT}")
    return head + struct.pack(f"<{len(words)}H", *words)


def dat(events: Events, *, version: int = 2) -> bytes:
    shift_y, shift_p = (14, 28) if version == 2 else (9, 17)
    head = percent(f"Version {version}", f"Width {WIDTH}", f"Height {HEIGHT}") + b"\x0c\x08"
    return head + b"".join(
        struct.pack("<II", t & 0xFFFFFFFF, x | y << shift_y | p << shift_p)
        for t, x, y, p in rows_of(events)
    )


def es(events: Events, *, atis: bool = False) -> bytes:
    parts = [b"Event Stream\x02\x00\x00", bytes([1 + atis]), struct.pack("<HH", WIDTH, HEIGHT)]
    last = 0
    for t, x, y, p in rows_of(events):
        gap, last = t - last, t
        if atis:
            parts.append(b"\xff" * (gap // 189))
            gap %= 189
            parts.append(bytes([0xFC | gap // 63]) if gap >= 63 else b"")
            first = gap % 63 << 2 | p << 1
            # A measurement between the events, which is none of them.
            parts.append(struct.pack("<BHH", 1, x, y))
        else:
            parts.append(b"\xff" * (gap // 127) + b"\xfe")
            first = gap % 127 << 1 | p
        parts.append(struct.pack("<BHH", first, x, HEIGHT - 1 - y))
    return b"".join(parts)


def aedat2(events: Events, *, davis: bool = False, plain: bool = False) -> bytes:
    """`plain` leaves out what is no change of brightness."""
    chip = b"eu.seebetter.ini.chips.davis.Davis346mini" if davis else b"retina.DVS128"
    parts = [b"#!AER-DAT2.0\r\n# AEChip: " + chip + b"\r\n"]
    for t, x, y, p in rows_of(events):
        address = (127 - y) << 8 | (127 - x) << 1 | 1 - p
        other = 1 << 15
        if davis:
            address = (259 - y) << 22 | (345 - x) << 12 | p << 11
            other = 1 << 31
        parts.append(struct.pack(">II", address, t & 0xFFFFFFFF))
        if not plain:
            parts.append(struct.pack(">II", other, t & 0xFFFFFFFF))
    return b"".join(parts)


def text(events: Events) -> bytes:
    return "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in rows_of(events)).encode()


def flat_table(mark: bytes, *fields: bytes, vector: bytes, items: int) -> bytes:
    """A FlatBuffer whose root has scalar fields and, after them, one vector or string; aligned as
    a verifier wants it, behind its length."""
    offsets, inline = [], b""
    for field in fields:
        inline += bytes(-(4 + len(inline)) % len(field))
        offsets.append(4 + len(inline))
        inline += field
    offsets.append(4 + len(inline))
    size = 4 + len(inline) + 4
    vtable = struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), size, *offsets)
    distance = len(vtable)
    vtable = bytes(-(8 + len(vtable)) % 8) + vtable
    at = 8 + len(vtable)
    gap = -(at + size + 4) % 8  # the items begin at a multiple of 8
    table = struct.pack("<i", distance) + inline + struct.pack("<I", 4 + gap) + bytes(gap)
    start = struct.pack("<I4s", at, mark) + vtable + table
    return start + struct.pack("<I", items) + vector + bytes(1 + -(1 + len(vector)) % 8)


def packed(data: bytes, packing: str) -> bytes:
    if packing == "lz4":
        import lz4.frame

        return bytes(lz4.frame.compress(data))
    if packing == "zstd":
        from mpsl_runtime.events.compression import zstandard

        return bytes(zstandard().compress(data))
    return data


def aedat4(
    events: Events,
    *,
    packing: str = "lz4",
    streams: tuple[str, ...] = ("EVTS", "IMUS"),
    index: bool = True,
    events_a_packet: int = 50,
) -> bytes:
    nodes = "".join(
        f'<node name="{number}"><attr key="typeIdentifier" type="string">{kind}</attr>'
        f'<attr key="originalOutputName" type="string">{number or "events"}</attr>'
        f'<attr key="compression" type="string">{packing.upper()}</attr>'
        f'<node name="info"><attr key="sizeX" type="int">{WIDTH}</attr>'
        f'<attr key="sizeY" type="int">{HEIGHT}</attr>'
        f'<attr key="source" type="string">made</attr></node></node>'
        for number, kind in enumerate(streams)
    )
    xml = f'<dv version="2.0"><node name="outInfo">{nodes}</node></dv>'.encode()
    body = b""
    rows = rows_of(events)
    for start in range(0, len(rows), events_a_packet):
        part = rows[start : start + events_a_packet]
        vector = b"".join(struct.pack("<qhhBxxx", *row) for row in part)
        buffer = flat_table(b"EVTS", vector=vector, items=len(part))
        whole = packed(struct.pack("<I", len(buffer)) + buffer, packing)
        for number in range(len(streams)):
            body += struct.pack("<ii", number, len(whole)) + whole
    code = {"none": 0, "lz4": 1, "zstd": 3}[packing]

    def header(end: int) -> bytes:
        fields = struct.pack("<i", code), struct.pack("<q", end)
        table = flat_table(b"IOHE", *fields, vector=xml, items=len(xml))
        return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(table)) + table

    end = len(header(0)) + len(body) if index else -1
    return header(end) + body + (packed(b"index" * 20, packing) if index else b"")


def record(data: bytes, **fields: bytes) -> bytes:
    """A record of a ROS bag."""
    parts = [name.encode() + b"=" + value for name, value in fields.items()]
    header = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data)) + data


def bag(
    events: Events,
    *,
    packing: str = "none",
    topics: tuple[str, ...] = ("/dvs/events",),
    index: bool = True,
) -> bytes:
    out = b"#ROSBAG V2.0\n" + record(b" " * 100, op=b"\x03")
    rows = rows_of(events)
    inner = record(b"", op=b"\x07", conn=b"\7\0\0\0", topic=b"/imu")
    kind = struct.pack("<I", 24) + b"type=dvs_msgs/EventArray"
    for number, topic in enumerate(topics):
        conn = struct.pack("<I", number)
        inner += record(kind, op=b"\x07", conn=conn, topic=topic.encode())
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        body = b"".join(
            struct.pack("<HHIIB", x, y, t // 10**6, t % 10**6 * 1000, p) for t, x, y, p in part
        )
        head = struct.pack("<IIII", start, 1, 2, 3) + b"dvs"
        message = head + struct.pack("<III", HEIGHT, WIDTH, len(part)) + body
        for number in range(len(topics)):
            inner += record(message, op=b"\x02", conn=struct.pack("<I", number), time=bytes(8))
        inner += record(b"?", op=b"\x02", conn=b"\7\0\0\0", time=bytes(8))
        size = struct.pack("<I", len(inner))
        squeezed = bz2.compress(inner) if packing == "bz2" else packed(inner, packing)
        out += record(squeezed, op=b"\x05", compression=packing.encode(), size=size)
        out += record(b"12345678", op=b"\x04", ver=b"\1\0\0\0", conn=bytes(4))
        inner = b""
    return out + (record(b"index", op=b"\x06") if index else b"")


def in_parts(data: bytes) -> bytes:
    """Two parts of gzip, one after the other, as `cat a.gz b.gz` makes them."""
    return gzip.compress(data[:100]) + gzip.compress(data[100:])


ENCODERS: dict[str, Encode] = {
    "evt2": evt2,
    "evt21": evt21,
    "evt21-legacy": lambda events: evt21(events, swapped=True),
    "evt3": evt3,
    "dat": dat,
    "dat-1": lambda events: dat(events, version=1),
    "es": es,
    "es-atis": lambda events: es(events, atis=True),
    "nmnist.bin": encode_nmnist_bin,
    "aedat2": aedat2,
    "aedat2-davis": lambda events: aedat2(events, davis=True),
    "aedat3": encode_aedat3,
    "aedat4": aedat4,
    "aedat2-plain": lambda events: aedat2(events, plain=True),
    "aedat2-davis-plain": lambda events: aedat2(events, davis=True, plain=True),
    "aedat4-one": lambda events: aedat4(events, streams=("EVTS",), index=False),
    "aedat4-none": lambda events: aedat4(events, packing="none"),
    "aedat4-zstd": lambda events: aedat4(events, packing="zstd", index=False),
    "text": text,
    "bag": bag,
    "bag-bz2": lambda events: bag(events, packing="bz2"),
    "bag-lz4": lambda events: bag(events, packing="lz4", index=False),
    "evt3.gz": lambda events: in_parts(evt3(events)),
    "nmnist.bin.gz": lambda events: gzip.compress(encode_nmnist_bin(events)) + bytes(512),
    "es.zst": lambda events: packed(es(events), "zstd"),
    "dat.lz4": lambda events: packed(dat(events), "lz4"),
}


@pytest.fixture(params=ENCODERS)
def format_name(request: pytest.FixtureRequest) -> str:
    """Each format that is read as a stream of bytes."""
    return str(request.param)


@pytest.fixture
def encode() -> Encode:
    """`encode(format name, events, **options)` → bytes of a file."""

    def encoded(name: str, events: Events, **options: object) -> bytes:
        plain = {"aedat4": aedat4, "bag": bag}
        return (plain[name] if options else ENCODERS[name])(events, **options)

    return encoded


@pytest.fixture
def some_events() -> Callable[..., Events]:
    """`some_events(seed, number=200, last_us=200_000)`: of a sensor of 34x30 pixels."""

    def events(seed: int, number: int = 200, last_us: int = 200_000) -> Events:
        rng = np.random.default_rng(seed)
        return Events.from_columns(
            np.sort(rng.integers(0, last_us + 1, number)),
            rng.integers(0, WIDTH, number),
            rng.integers(0, HEIGHT, number),
            rng.integers(0, 2, number),
        )

    return events
