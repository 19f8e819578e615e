"""`mpsl replay`: sends recordings to a live address, in the rhythm in which the camera saw them.

| address | what is sent |
|---|---|
| `udp://host:port` | our datagrams, recording after recording |
| `udp+spif://host:port` | SPIF's words with times, at most 32 events a datagram |
| `tcp://host:port` | the bytes of one file: we listen there, the first who connects gets them |
"""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_runtime.events.decoder import Decoder
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import is_trial, read_events
from mpsl_runtime.live.address import Address, parse_address
from mpsl_runtime.live.datagram import END, LARGEST_COUNT, LAST, ORIGIN, TRIAL, Datagram, encode

__all__ = ["Sent", "datagrams", "replay", "spif_datagrams"]

SLICE_US = 1000
SLOWEST, FASTEST = 1e-3, 1e6
_SILENCE_US = 10_000
_REPEAT_END = 3
_SPIF_EVENTS = 32
_PIECE_BYTES = 1 << 14
_CLIENT_S = 60.0


@dataclass(frozen=True)
class Sent:
    """What a replay has sent; over TCP, pieces of a file are counted as datagrams."""

    recordings: int
    events: int
    datagrams: int


class _Pace:
    """Waits until the time of a recording has come."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start_s = time.perf_counter()
        self._begin_us: int | None = None

    def wait(self, t_us: int) -> None:
        """Until `t_us` after the first time that was asked for."""
        if self._begin_us is None:
            self._begin_us = t_us
        due_s = self._start_s + (t_us - self._begin_us) / self._speed / 1e6
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)


def datagrams(
    events: Events, recording: int, *, trial: bool, last: bool = True
) -> Iterator[Datagram]:
    """One recording as datagrams, each with at most 1 ms of events.

    Stretches without events still give a datagram every 10 ms, so that the receiver's time goes
    on. The last datagram is END.

    Args:
        trial: time 0 is the start and the receiver takes one sample (N-MNIST).
        last: nothing follows this recording.
    """
    flags = TRIAL | ORIGIN if trial else 0
    width, height = events.sensor_size or (0, 0)
    begin_us = 0 if trial or not len(events) else int(events.t[0])
    sequence = position = 0

    def datagram(time_us: int, stop: int, more_flags: int = 0) -> Datagram:
        return Datagram(
            flags | more_flags,
            recording,
            sequence,
            position,
            time_us,
            0,
            width,
            height,
            events.slice(position, stop),
        )

    time_us = begin_us
    while position < len(events):
        following_us = int(events.t[position])
        if following_us - time_us > _SILENCE_US:
            time_us += _SILENCE_US
            yield datagram(time_us, position)
            sequence += 1
            continue
        end_us = following_us + SLICE_US
        stop = int(np.searchsorted(events.t, end_us))
        stop = min(stop, position + LARGEST_COUNT)
        yield datagram(following_us, stop)
        sequence += 1
        time_us = int(events.t[stop - 1])
        position = stop
    yield datagram(time_us, position, END | (LAST if last else 0))


def spif_datagrams(events: Events) -> Iterator[tuple[bytes, int]]:
    """One recording as SPIF's words with times, and the time of each datagram's last event in µs.

    Raises:
        DataError: a coordinate over 32767, for which a word has no room.
    """
    if len(events) and max(int(events.x.max()), int(events.y.max())) >= 1 << 15:
        raise DataError("event does not fit a word of SPIF", expected="x, y < 32768")
    words = np.empty((len(events), 2), "<u4")
    p = events.p.astype(np.uint32)
    words[:, 0] = events.x.astype(np.uint32) << 16 | p << 15 | events.y
    words[:, 1] = events.t & 0xFFFFFFFF
    position = 0
    while position < len(events):
        stop = int(np.searchsorted(events.t, events.t[position] + SLICE_US))
        stop = min(stop, position + _SPIF_EVENTS)
        yield words[position:stop].tobytes(), int(events.t[stop - 1])
        position = stop


def replay(files: Sequence[str | Path], address: str, *, speed: float = 1.0) -> Sent:
    """Sends recordings one after another.

    Args:
        files: recordings as for `read_events`; all are read before the first is sent.
        address: see the module.
        speed: 1 is the camera's own, 0.001 … 1,000,000; `inf` does not wait, and then datagrams
            get lost.

    Raises:
        UsageError: no such speed or address, or several recordings over TCP. DataError: a recording
            cannot be read, or is damaged; over TCP, nobody connects within a minute. OutputError:
            nothing can be sent there.
    """
    if not (SLOWEST <= speed <= FASTEST or speed == math.inf):
        raise UsageError(
            "no speed for a replay",
            got=speed,
            expected=f"{SLOWEST:g} … {FASTEST:g}; 1 is real time",
        )
    place = parse_address(address, "udp://, udp+spif:// or tcp://, then host:port")
    place.check_options("size")  # as the receiver may have it
    if not files:
        raise DataError("nothing to replay")
    if place.scheme == "tcp":
        return _serve_file(files, place, speed)
    if place.scheme not in ("udp", "udp+spif"):
        raise UsageError(
            "nothing is sent there", got=f"{place.scheme}://", expected="udp:// udp+spif:// tcp://"
        )
    recordings = [(read_events(file), is_trial(file)) for file in files]
    try:
        family, kind, protocol, _, peer = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as sending:
            sending.connect(peer)
            if place.scheme == "udp":
                return _send_datagrams(sending, recordings, speed)
            return _send_spif(sending, recordings, speed)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError("cannot send", got=why, where=address) from error


def _send_datagrams(
    sending: socket.socket, recordings: list[tuple[Events, bool]], speed: float
) -> Sent:
    number = secrets.randbits(31)
    events_sent = datagrams_sent = 0
    for index, (events, trial) in enumerate(recordings):
        last = index == len(recordings) - 1
        pace = _Pace(speed)
        for datagram in datagrams(events, number + index, trial=trial, last=last):
            inside = datagram.events
            pace.wait(int(inside.t[-1]) if len(inside) else datagram.time_us)
            for _ in range(_REPEAT_END if datagram.flags & END else 1):
                _send(sending, encode(datagram))
            events_sent += len(inside)
            datagrams_sent += 1
    return Sent(len(recordings), events_sent, datagrams_sent)


def _send_spif(sending: socket.socket, recordings: list[tuple[Events, bool]], speed: float) -> Sent:
    datagrams_sent = 0
    for events, _ in recordings:
        pace = _Pace(speed)
        for words, last_us in spif_datagrams(events):
            pace.wait(last_us)
            _send(sending, words)
            datagrams_sent += 1
    return Sent(len(recordings), sum(len(events) for events, _ in recordings), datagrams_sent)


def _send(sending: socket.socket, data: bytes) -> None:
    try:
        sending.send(data)
    except ConnectionRefusedError:
        return  # of an earlier datagram: nobody listens yet, or any more


def _serve_file(files: Sequence[str | Path], place: Address, speed: float) -> Sent:
    """The bytes of a file, decoded meanwhile to know their time."""
    if len(files) != 1:
        raise UsageError("a connection carries one recording", got=f"{len(files)} files")
    path = Path(files[0])
    decoder, pace = Decoder(path), _Pace(speed)
    events_sent = pieces = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror or error, where=path) from None
    try:
        with file, socket.create_server((place.host, place.port)) as listening:
            listening.settimeout(_CLIENT_S)
            try:
                client, _ = listening.accept()
            except TimeoutError:
                raise DataError("nobody connected", got="60 s", where=place.text) from None
            with client:
                client.settimeout(None)
                while piece := file.read(_PIECE_BYTES):
                    events = decoder.feed(piece)
                    if len(events):
                        pace.wait(int(events.t[-1]))
                    client.sendall(piece)
                    events_sent += len(events)
                    pieces += 1
                events_sent += len(decoder.finish())
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError("cannot send", got=why, where=place.text) from error
    return Sent(1, events_sent, pieces)
