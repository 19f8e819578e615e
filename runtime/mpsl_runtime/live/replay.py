"""`mpsl replay`: sends recordings as datagrams, in the rhythm in which the camera saw them."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import is_trial, read_events
from mpsl_runtime.live.datagram import END, LARGEST_COUNT, LAST, ORIGIN, TRIAL, Datagram, encode
from mpsl_runtime.live.live import parse_address

__all__ = ["Sent", "datagrams", "replay"]

SLICE_US = 1000
_SILENCE_US = 10_000
_REPEAT_END = 3


@dataclass(frozen=True)
class Sent:
    """What a replay has sent."""

    recordings: int
    events: int
    datagrams: int


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


def replay(files: Sequence[str | Path], address: str, *, speed: float = 1.0) -> Sent:
    """Sends recordings one after another.

    Args:
        files: recordings as for `read_events`; all are read before the first is sent.
        address: `udp://host:port`.
        speed: 1 is the camera's own; `inf` does not wait, and then datagrams get lost.

    Raises:
        UsageError: no positive speed, or no address. DataError: a recording cannot be read, or is
            damaged. OutputError: nothing can be sent there.
    """
    if not speed > 0:
        raise UsageError("speed must be positive", got=speed, expected="> 0; 1 is real time")
    host, port = parse_address(address)
    if not files:
        raise DataError("nothing to replay")
    recordings = [(read_events(file), is_trial(file)) for file in files]
    number = secrets.randbits(31)
    events_sent = datagrams_sent = 0
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sending:
            for index, (events, trial) in enumerate(recordings):
                last = index == len(recordings) - 1
                start_s = time.perf_counter()
                begin_us: int | None = None
                for datagram in datagrams(events, number + index, trial=trial, last=last):
                    begin_us = datagram.time_us if begin_us is None else begin_us
                    reached_us = (
                        int(datagram.events.t[-1]) if len(datagram.events) else (datagram.time_us)
                    )
                    wait_s = start_s + (reached_us - begin_us) / speed / 1e6 - time.perf_counter()
                    if wait_s > 0:
                        time.sleep(wait_s)
                    for _ in range(_REPEAT_END if datagram.flags & END else 1):
                        sending.sendto(encode(datagram), place)
                    events_sent += len(datagram.events)
                    datagrams_sent += 1
    except OSError as error:
        raise OutputError("cannot send", got=error.strerror or error, where=address) from error
    return Sent(len(recordings), events_sent, datagrams_sent)
