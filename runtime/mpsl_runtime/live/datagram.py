"""Events as UDP datagrams, version 1.

Little-endian, at most 1,408 bytes, a header of 44 bytes and 8 bytes an event:

| bytes | field | meaning |
|---|---|---|
| 0–3 | magic | `MPSL` |
| 4 | version | 1 |
| 5 | flags | 1 END of the recording · 2 LAST, nothing follows · 4 TRIAL · 8 `origin_us` holds |
| 6–7 | count | events in this datagram, 0 … 170 |
| 8–11 | recording | a number; another one begins another recording |
| 12–15 | sequence | datagrams of this recording before this one |
| 16–23 | first_event | events of this recording before this datagram |
| 24–31 | time_us | int64; every event before this time is in an earlier datagram |
| 32–39 | origin_us | int64; time of step 0 (0 for N-MNIST); without flag 8 it is the first event |
| 40–43 | width, height | of the sensor in pixels; 0, 0 if not known |
| then | offset, x, y·p | uint32 µs after `time_us`, uint16, uint16 with the polarity in bit 15 |

TRIAL says that the recording is one sample: only its first T steps count. A datagram without
events moves time on; a sender sends one at least every second, as a gap of a minute is taken for
damage. END has no events and `time_us` of the last one; it is repeated, since datagrams get lost,
with the same sequence number. There is no sender authentication: listen on a network you trust.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events

__all__ = [
    "END",
    "HEADER",
    "LARGEST_COUNT",
    "LAST",
    "ORIGIN",
    "TRIAL",
    "Datagram",
    "decode",
    "encode",
    "faults",
    "read_headers",
]

END, LAST, TRIAL, ORIGIN = 1, 2, 4, 8
LARGEST_COUNT = 170
VERSION = 1
_HEADER = struct.Struct("<4sBBHIIQqqHH")
_EVENT = np.dtype([("offset", "<u4"), ("x", "<u2"), ("yp", "<u2")])
_LARGEST_TIME_US = 1 << 62

HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("version", "u1"),
        ("flags", "u1"),
        ("count", "<u2"),
        ("recording", "<u4"),
        ("sequence", "<u4"),
        ("first_event", "<u8"),
        ("time_us", "<i8"),
        ("origin_us", "<i8"),
        ("width", "<u2"),
        ("height", "<u2"),
    ]
)
"""The table's first 44 bytes."""

_MAGIC = int.from_bytes(b"MPSL", "little")


@dataclass(frozen=True, eq=False)
class Datagram:
    """The fields of the module's table; `width`, `height` are (0, 0) where unknown."""

    flags: int
    recording: int
    sequence: int
    first_event: int
    time_us: int
    origin_us: int
    width: int
    height: int
    events: Events


def encode(datagram: Datagram) -> bytes:
    """The bytes of a datagram.

    Raises:
        DataError: over 170 events, or an event that the format has no room for.
    """
    events = datagram.events
    if len(events) > LARGEST_COUNT:
        raise DataError(
            "too many events for a datagram", got=len(events), expected=f"≤ {LARGEST_COUNT}"
        )
    body = np.empty(len(events), _EVENT)
    if len(events):
        offset = events.t - datagram.time_us
        if int(offset.min()) < 0 or int(offset.max()) >= 1 << 32 or int(events.y.max()) >= 1 << 15:
            raise DataError("event does not fit a datagram", expected="y < 32768, t near time_us")
        body["offset"], body["x"] = offset, events.x
        body["yp"] = events.y | events.p.astype(np.uint16) << 15
    header = _HEADER.pack(
        b"MPSL",
        VERSION,
        datagram.flags,
        len(events),
        datagram.recording & 0xFFFFFFFF,
        datagram.sequence & 0xFFFFFFFF,
        datagram.first_event,
        datagram.time_us,
        datagram.origin_us,
        datagram.width,
        datagram.height,
    )
    return header + body.tobytes()


def decode(data: bytes) -> Datagram:
    """Reads a datagram that anyone may have sent.

    Raises:
        DataError: it is not one; `what` is the reason, short enough to count by.
    """
    if len(data) < _HEADER.size or data[:4] != b"MPSL":
        raise DataError("not an mpsl datagram")
    (
        _,
        version,
        flags,
        count,
        recording,
        sequence,
        first_event,
        time_us,
        origin_us,
        width,
        height,
    ) = _HEADER.unpack_from(data)
    if version != VERSION:
        raise DataError("another version of the datagram", got=version, expected=VERSION)
    if flags > END | LAST | TRIAL | ORIGIN or count > LARGEST_COUNT:
        raise DataError("damaged datagram")
    if len(data) != _HEADER.size + count * _EVENT.itemsize:
        raise DataError("truncated datagram")
    if not (0 <= time_us < _LARGEST_TIME_US and 0 <= origin_us < _LARGEST_TIME_US):
        raise DataError("damaged datagram")
    body = np.frombuffer(data, _EVENT, offset=_HEADER.size)
    try:
        events = Events.from_columns(
            body["offset"].astype(np.int64) + time_us,
            body["x"],
            body["yp"] & 0x7FFF,
            body["yp"] >> 15,
        )
    except DataError:
        raise DataError("events of the datagram run backwards in time") from None
    return Datagram(
        flags, recording, sequence, first_event, time_us, origin_us, width, height, events
    )


def read_headers(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.void]:
    """The headers of many datagrams, `HEADER` [n].

    Args:
        data: datagrams one behind the other, and at least 44 bytes after the last.
        offsets: int64 [n+1]. A datagram that is shorter than a header has what follows in its
            place: see `faults`.
    """
    places = offsets[:-1, None] + np.arange(HEADER.itemsize)
    return np.ascontiguousarray(data[places]).view(HEADER)[:, 0]


def faults(
    headers: NDArray[np.void], sizes: NDArray[np.int64]
) -> list[tuple[str, NDArray[np.bool_]]]:
    """What is wrong with datagrams that anyone may have sent.

    Args:
        headers: `HEADER` [n]; sizes: int64 [n], of the datagrams in bytes.

    Returns:
        pairs (reason, bool [n]), in the order in which they are to be asked; none overlap.
    """
    strange = (sizes < HEADER.itemsize) | (headers["magic"] != _MAGIC)
    other = ~strange & (headers["version"] != VERSION)
    good = ~(strange | other)
    shape = (headers["flags"] > END | LAST | TRIAL | ORIGIN) | (headers["count"] > LARGEST_COUNT)
    wanted = HEADER.itemsize + headers["count"].astype(np.int64) * _EVENT.itemsize
    cut = good & ~shape & (sizes != wanted)
    clock = np.zeros(len(headers), np.bool_)
    for name in ("time_us", "origin_us"):
        clock |= (headers[name] < 0) | (headers[name] >= _LARGEST_TIME_US)
    return [
        ("not an mpsl datagram", strange),
        ("another version of the datagram", other),
        ("damaged datagram", good & ~cut & (shape | clock)),
        ("truncated datagram", cut),
    ]
