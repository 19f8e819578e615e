"""AEDAT 2.0 (DVS128) and AEDAT 3.1, the formats of jAER and cAER.

AEDAT 2.0 (inivation, "AEDAT 2.0"): lines that start with # are the header; then 8 bytes an event,
big-endian: uint32 address, uint32 time in µs. On the DVS128 the address is bit 0 polarity (0 = ON),
bits 1–7 x counted from the right, bits 8–14 y counted from the bottom, bit 15 an external event.

AEDAT 3.1 (inivation, "AEDAT 3.1"): a header that ends with `#!END-HEADER`; then packets, little-
endian: 28 bytes (int16 type, int16 source, int32 event size, int32 offset of the time, int32
overflows of time, int32 capacity, int32 number, int32 valid) and the events. Type 1 is polarity:
uint32 data (bit 0 valid, bit 1 ON, bits 2–16 y, bits 17–31 x) and int32 time in µs; y is 0 at the
top. Other types are passed over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events

__all__ = ["decode_aedat", "encode_aedat3"]

_EVENTS_A_PACKET = 4096

_PACKET = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),
        ("offset", "<i4"),
        ("overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)


def decode_aedat(data: bytes, where: str | Path) -> Events:
    """Decodes a `.aedat` file; its first line says which version it is.

    Raises:
        DataError: another version, another camera than the DVS128 (2.0), a truncated file, or
            time that runs backwards.
    """
    first = data[:64].split(b"\n", 1)[0].strip()
    if first == b"#!AER-DAT2.0":
        return _decode_2(data, where)
    if first.startswith(b"#!AER-DAT3.1"):
        return _decode_3(data, where)
    raise DataError(
        "not an AEDAT 2.0 or 3.1 file",
        got=repr(first.decode("latin-1")[:20]),
        expected="#!AER-DAT2.0 or #!AER-DAT3.1",
        where=where,
    )


def _unwrapped(t: NDArray[np.int64]) -> NDArray[np.int64]:
    """Unwraps 32-bit times: a fall by more than half the range is an overflow."""
    fall = np.diff(t, prepend=t[:1]) < -(1 << 31)
    return t + (np.cumsum(fall).astype(np.int64) << 32)


def _decode_2(data: bytes, where: str | Path) -> Events:
    start = 0
    chip = b""
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise DataError("header of the AEDAT file does not end", where=where)
        line = data[start:end]
        if b"AEChip:" in line:
            chip = line.split(b":", 1)[1].strip()
        start = end + 1
    if chip and b"DVS128" not in chip:
        raise DataError(
            "AEDAT 2.0 of another camera",
            got=chip.decode("latin-1"),
            expected="DVS128",
            where=where,
        )
    body = data[start:]
    if len(body) % 8:
        raise DataError(
            "truncated recording",
            got=f"{len(body)} bytes of events",
            expected="8 bytes an event",
            where=where,
        )
    words = np.frombuffer(body, ">u4").reshape(-1, 2)
    address = words[:, 0]
    t = _unwrapped(words[:, 1].astype(np.int64))
    pixel = address & 0x8000 == 0
    address = address[pixel]
    if address.size and int(address.max()) > 0x7FFF:
        raise DataError(
            "address outside the DVS128",
            got=hex(int(address.max())),
            expected="15 bits",
            where=where,
        )
    return Events.from_columns(
        t[pixel],
        127 - (address >> 1 & 0x7F),
        127 - (address >> 8 & 0x7F),
        1 - (address & 1),
        sensor_size=(128, 128),
        where=where,
    )


def _decode_3(data: bytes, where: str | Path) -> Events:
    mark = data.find(b"#!END-HEADER\r\n")
    if mark < 0:
        raise DataError(
            "header of the AEDAT file does not end", expected="#!END-HEADER", where=where
        )
    position = mark + len(b"#!END-HEADER\r\n")
    times: list[NDArray[np.int64]] = []
    words: list[NDArray[np.uint32]] = []
    while position < len(data):
        if position + _PACKET.itemsize > len(data):
            raise DataError(
                "truncated recording",
                got=f"{len(data) - position} bytes",
                expected="a packet header of 28",
                where=where,
            )
        header = np.frombuffer(data, _PACKET, count=1, offset=position)[0]
        position += _PACKET.itemsize
        size, number = int(header["size"]), int(header["number"])
        if size < 1 or number < 0 or position + size * number > len(data):
            raise DataError(
                "truncated recording",
                got=f"{len(data) - position} bytes",
                expected=f"a packet of {number} events of {size} bytes",
                where=where,
            )
        if header["type"] == 1:
            if size != 8:
                raise DataError(
                    "polarity events have another size", got=size, expected=8, where=where
                )
            pairs = np.frombuffer(data, "<u4", count=2 * number, offset=position).reshape(-1, 2)
            # Writers exist that count every event as valid and leave the bits at 0.
            valid = (pairs[:, 0] & 1 == 1) | (int(header["valid"]) == number)
            words.append(pairs[valid, 0])
            times.append(pairs[valid, 1].astype(np.int64) + (int(header["overflow"]) << 31))
        position += size * number
    if not words:
        return Events.empty()
    word = np.concatenate(words)
    return Events.from_columns(
        np.concatenate(times),
        word >> 17 & 0x7FFF,
        word >> 2 & 0x7FFF,
        word >> 1 & 1,
        where=where,
    )


def encode_aedat3(events: Events) -> bytes:
    """An AEDAT 3.1 file with these events, as packets of polarity events of source 1.

    Raises:
        DataError: a coordinate or a time is outside what the format holds.
    """
    if len(events) and (
        int(max(events.x.max(), events.y.max())) > 0x7FFF
        or int(events.t[0]) < 0
        or int(events.t[-1]) >= 1 << 31
    ):
        raise DataError("events do not fit AEDAT 3.1", expected="x and y < 32768, 0 ≤ t < 2^31 µs")
    word = events.x.astype("<u4") << 17 | events.y.astype("<u4") << 2
    word |= events.p.astype("<u4") << 1 | 1
    pairs = np.stack([word, events.t.astype("<u4")], axis=1).astype("<u4")
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for start in range(0, len(pairs), _EVENTS_A_PACKET):
        part = pairs[start : start + _EVENTS_A_PACKET]
        header = np.array([(1, 1, 8, 4, 0, len(part), len(part), len(part))], _PACKET)
        parts += [header.tobytes(), part.tobytes()]
    return b"".join(parts)
