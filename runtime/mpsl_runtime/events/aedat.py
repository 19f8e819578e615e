"""AEDAT 2.0 (DVS128, DAVIS) and AEDAT 3.1, the formats of jAER and cAER. Headers; words are native.

AEDAT 2.0 (inivation, "AEDAT 2.0"): lines that start with # are the header; then 8 bytes an event,
big-endian: uint32 address, uint32 time in µs. On the DVS128 the address is bit 0 polarity (0 = ON),
bits 1–7 x counted from the right, bits 8–14 y counted from the bottom, bit 15 an external event. On
the DAVIS: bit 31 a sample of the picture or the IMU, bit 10 an external event, bit 11 polarity
(1 = ON), bits 12–21 x counted from the right, bits 22–30 y counted from the bottom.

AEDAT 3.1 (inivation, "AEDAT 3.1"): a header that ends with `#!END-HEADER`; then packets, little-
endian: 28 bytes (int16 type, int16 source, int32 event size, int32 offset of the time, int32
overflows of time, int32 capacity, int32 number, int32 valid) and the events. Type 1 is polarity:
uint32 data (bit 0 valid, bit 1 ON, bits 2–16 y, bits 17–31 x) and int32 time in µs; y is 0 at the
top. Other types are passed over.
"""

from __future__ import annotations

import numpy as np

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.parser import Parser, WordParser, is_text
from mpsl_runtime.events.trouble import Trouble

__all__ = ["aedat2_parser", "aedat3_parser", "encode_aedat3"]

_EVENTS_A_PACKET = 4096
_LARGEST_HEADER = 1 << 20
_END_2 = b"#end of ascii header"
_END_3 = b"#!END-HEADER"
# (width, height) by the last part of jAER's name of the chip, in small letters.
_SENSORS = {
    "dvs128": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240a": (240, 180),
    "davis240b": (240, 180),
    "davis240c": (240, 180),
    "davis346": (346, 260),
    "davis346b": (346, 260),
    "davis346mini": (346, 260),
    "davis640": (640, 480),
}

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


# Where an address holds x, y and polarity, and what marks a word that is no event.
_OF_DVS128: dict[str, int] = {
    "x_shift": 1, "x_mask": 0x7F, "y_shift": 8, "y_mask": 0x7F, "p_shift": 0, "p_mask": 1,
    "other_mask": 0x8000,
}  # fmt: skip
_OF_DAVIS: dict[str, int] = {
    "x_shift": 12, "x_mask": 0x3FF, "y_shift": 22, "y_mask": 0x1FF, "p_shift": 11, "p_mask": 1,
    "other_mask": 1 << 31 | 1 << 10,
}  # fmt: skip


def aedat2_parser(
    begin: bytes, trouble: Trouble, where: object, *, is_whole: bool
) -> Parser | None:
    """The parser of an AEDAT 2.0 file; None when more bytes are needed to see its header.

    Raises:
        DataError: a chip that is not known, or a header without an end.
    """
    start = 0
    chip = ""
    while begin[start : start + 1] == b"#":
        end = begin.find(b"\n", start)
        if end < 0:
            _check_can_grow(begin, where, is_whole=is_whole)
            return None
        line = begin[start:end]
        if not is_text(line):
            break  # an address that happens to begin like a line
        if b"AEChip:" in line:
            chip = line.split(b":", 1)[1].decode("ascii").strip()
        start = end + 1
        if line.strip().lower() == _END_2:
            break
    if start == len(begin) and not is_whole:
        return None
    name = chip.rpartition(".")[2].lower()
    if name and name not in _SENSORS:
        raise DataError(
            "AEDAT 2.0 of a camera that is not known",
            got=repr(chip[:80]),
            expected=" ".join(_SENSORS),
            where=where,
        )
    width, height = _SENSORS[name or "dvs128"]
    old = name in ("", "dvs128")
    decoder = _native.Addresses(
        **(_OF_DVS128 if old else _OF_DAVIS),
        flip_x=width - 1,
        flip_y=height - 1,
        on_is_zero=old,
        is_big=True,
    )
    return WordParser(
        "AEDAT 2.0",
        decoder,
        trouble,
        where,
        header_bytes=start,
        unit="an event",
        sensor_size=(width, height),
    )


def aedat3_parser(
    begin: bytes, trouble: Trouble, where: object, *, is_whole: bool
) -> Parser | None:
    """The parser of an AEDAT 3.1 file; None when more bytes are needed to see its header.

    Raises:
        DataError: the events are packed in a way that is not read, or a header without an end.
    """
    mark = begin.find(_END_3)
    end = begin.find(b"\n", mark) + 1 if mark >= 0 else 0
    if not end:
        _check_can_grow(begin, where, is_whole=is_whole)
        return None
    lines = begin[:end].decode("latin-1").splitlines()
    for line in lines:
        if line.startswith("#Format:") and line.split(":", 1)[1].strip().upper() != "RAW":
            raise DataError(
                "AEDAT 3.1 of a packing that is not read",
                got=repr(line.split(":", 1)[1].strip()[:40]),
                expected="RAW",
                where=where,
            )
    sources = [
        line.split(":", 1)[1] for line in lines if line.startswith("#Source") and ":" in line
    ]
    known = {_SENSORS.get(source.strip().lower()) for source in sources}
    return WordParser(
        "AEDAT 3.1",
        _native.Aedat3(),
        trouble,
        where,
        header_bytes=end,
        unit="a packet",
        sensor_size=known.pop() if len(known) == 1 else None,
    )


def _check_can_grow(begin: bytes, where: object, *, is_whole: bool) -> None:
    if is_whole or len(begin) > _LARGEST_HEADER:
        raise DataError(
            "header of the AEDAT file does not end", got=f"{len(begin)} bytes", where=where
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
    fits = not len(events) or int(max(events.x.max(), events.y.max())) < 128
    camera = b"DVS128" if fits else b"unknown"
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: " + camera + b"\r\n#!END-HEADER\r\n"]
    for start in range(0, len(pairs), _EVENTS_A_PACKET):
        part = pairs[start : start + _EVENTS_A_PACKET]
        header = np.array([(1, 1, 8, 4, 0, len(part), len(part), len(part))], _PACKET)
        parts += [header.tobytes(), part.tobytes()]
    return b"".join(parts)
