"""Our datagrams: they come back as they were sent, and a stranger's bytes are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime import Events
from mpsl_runtime.errors import DataError
from mpsl_runtime.live.datagram import (
    END,
    HEADER,
    LAST,
    ORIGIN,
    TRIAL,
    Datagram,
    decode,
    encode,
    faults,
    read_headers,
)
from mpsl_runtime.live.replay import datagrams

MakeEvents = Callable[..., Events]


def one(sequence: int, t_us: int = 0) -> Datagram:
    events = Events.from_columns([t_us], [0], [0], [1])
    return Datagram(0, 7, sequence, sequence, t_us, 0, 12, 10, events)


@given(
    st.integers(0, 15),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**40),
    st.integers(0, 2**50),
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1),
            st.integers(0, 65535),
            st.integers(0, 32767),
            st.integers(0, 1),
        ),
        max_size=170,
    ),
)
def test_a_datagram_comes_back_as_it_was_sent(
    flags: int, number: int, first: int, time_us: int, rows: list[tuple[int, int, int, int]]
) -> None:
    table = np.array(sorted(rows), np.int64).reshape(-1, 4)
    events = Events.from_columns(table[:, 0] + time_us, *table[:, 1:].T)
    sent = Datagram(flags, number, number, first, time_us, time_us, 640, 480, events)
    data = encode(sent)
    assert len(data) <= 1408
    got = decode(data)
    for name in sent.__dataclass_fields__:
        if name != "events":
            assert getattr(got, name) == getattr(sent, name)
    assert all(np.array_equal(getattr(got.events, c), getattr(events, c)) for c in "txyp")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_many_are_judged_as_each_is_alone(data: st.DataObject) -> None:
    contents = []
    for _ in range(data.draw(st.integers(1, 5))):
        good = bytearray(encode(one(3, 500)))
        if data.draw(st.booleans()):
            for _ in range(data.draw(st.integers(0, 6))):
                good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
            contents.append(bytes(good[: data.draw(st.integers(0, len(good)))]))
        else:
            contents.append(data.draw(st.binary(max_size=100)))
    sizes = np.array([len(content) for content in contents])
    joined = np.frombuffer(b"".join(contents) + bytes(64), np.uint8)
    headers = read_headers(joined, np.concatenate([[0], np.cumsum(sizes)]))
    found: list[Any] = [None] * len(contents)
    for reason, which in faults(headers, sizes):
        for k in np.flatnonzero(which):
            assert found[k] is None
            found[k] = reason
    for content, reason in zip(contents, found, strict=True):
        try:
            decode(content)
            alone = None
        except DataError as error:
            alone = error.what
        # Events out of order are a matter of each event, not of the datagram.
        assert reason == alone or (reason, alone) == (
            None,
            "events of the datagram run backwards in time",
        )


def test_the_header_has_the_bytes_of_the_table() -> None:
    assert HEADER.itemsize == 44
    data = np.frombuffer(encode(one(9, 70)) + bytes(64), np.uint8)
    (header,) = read_headers(data, np.array([0, 52]))
    assert (int(header["sequence"]), int(header["time_us"]), int(header["count"])) == (9, 70, 1)


def test_datagrams_of_a_recording_hold_all_its_events_in_time_order(
    make_events: MakeEvents,
) -> None:
    events = make_events(1, 3000, last_us=90_000).slice(0, 3000)
    quiet = events.t < 30_000
    events = Events(
        *(
            np.concatenate([c[quiet], c[events.t > 80_000]])
            for c in (events.t, events.x, events.y, events.p)
        )
    )
    sent = list(datagrams(events, 5, trial=True))
    assert [d.sequence for d in sent] == list(range(len(sent)))
    assert sum(len(d.events) for d in sent) == len(events)
    times = [d.time_us for d in sent]
    assert times == sorted(times)
    assert max(np.diff(times)) <= 11_000  # silence, too, is told
    assert sent[-1].flags == END | LAST | TRIAL | ORIGIN
