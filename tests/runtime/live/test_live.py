"""Live events over UDP: the same decisions as from the file, and strangers' datagrams ignored."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.live.datagram import END, LAST, ORIGIN, TRIAL, Datagram, decode, encode
from mpsl_runtime.live.live import UdpSource, parse_address
from mpsl_runtime.live.replay import datagrams, replay
from mpsl_runtime.run.model import load

SIZE = (12, 10)
MakeEvents = Callable[..., Events]


@pytest.fixture
def source() -> Iterator[UdpSource]:
    with UdpSource("udp://127.0.0.1:0", sensor_size=SIZE, timeout_s=5.0) as listening:
        yield listening


@pytest.fixture
def send(source: UdpSource) -> Iterator[Callable[[bytes], None]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        yield lambda data: (sending.sendto(data, ("127.0.0.1", source.port)), None)[1]


def one(sequence: int, t_us: int = 0, x: int = 0, **changes: Any) -> Datagram:
    events = Events.from_columns([t_us], [x], [0], [1])
    return replace(Datagram(0, 7, sequence, sequence, t_us, 0, 12, 10, events), **changes)


def end(sequence: int, t_us: int, flags: int = LAST) -> Datagram:
    return Datagram(END | flags, 7, sequence, sequence, t_us, 0, 12, 10, Events.empty())


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
def test_bytes_from_a_stranger_are_a_datagram_or_a_data_error(data: st.DataObject) -> None:
    good = bytearray(encode(one(3, 500)))
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 6))):
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(good[: data.draw(st.integers(0, len(good)))])
    else:
        content = data.draw(st.binary(max_size=100))
    try:
        line = encode(decode(content))
    except DataError as error:
        line = str(error).encode()
        assert b"\n" not in line
    assert line


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


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_live_predictions_are_those_of_the_files(
    tmp_path: Path, model_file: Path, make_events: MakeEvents, engine: Any
) -> None:
    files = [tmp_path / f"{seed}.bin" for seed in range(4)]
    for seed, file in enumerate(files):
        write_nmnist_bin(file, make_events(seed, 400, last_us=6_000 + 3_000 * seed))
    (tmp_path / "cam.csv").write_text(
        "t,x,y,p\n" + "".join(f"{10**9 + 40 * i},{i % 12},{i % 7},{i % 2}\n" for i in range(500))
    )
    files.append(tmp_path / "cam.csv")
    model = load(model_file, engine=engine)
    expected = [item for file in files for item in model.stream(file)]
    source = UdpSource("udp://127.0.0.1:0", sensor_size=SIZE, timeout_s=10.0)
    with source:
        sender = threading.Thread(target=replay, args=(files, source.address))
        sender.start()
        stream = model.stream(source.recordings())
        live = list(stream)
        sender.join(timeout=10)
    assert (source.lost, source.dropped, sum(source.ignored.values())) == (0, 0, 0)
    for kind in (Step, Prediction):
        a = [item for item in expected if isinstance(item, kind)]
        b = [item for item in live if isinstance(item, kind)]
        assert len(a) == len(b) >= 8
        assert np.array_equal([i.scores for i in a], [i.scores for i in b])
        assert [i.label for i in a] == [i.label for i in b]
    assert stream.summary.truncated > 0


def test_hostile_datagrams_are_counted_by_reason_and_change_nothing(
    source: UdpSource, send: Callable[[bytes], None]
) -> None:
    bad = [
        (b"hello", "not an mpsl datagram"),
        (encode(one(1))[:-1], "truncated datagram"),
        (b"MPSL\x09" + encode(one(1))[5:], "another version"),
        (encode(one(1, x=12)), "outside the sensor"),
        (encode(one(1, width=640, height=480)), "from another sensor; got 640x480"),
        (encode(one(1, 10**12)), "out of time"),
        (encode(one(0)), "late or repeated"),
    ]
    send(encode(one(0)))
    for data, _ in bad:
        send(data)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(encode(one(1)), ("127.0.0.1", source.port))
    for data in (encode(one(1, 2_000)), encode(end(2, 2_000)), encode(end(2, 2_000))):
        send(data)
    (chunks,) = [list(recording.chunks) for recording in source.recordings()]
    assert [len(chunk.events) for chunk in chunks] == [1, 1, 0]
    for reason in [*(reason for _, reason in bad), "another sender during a recording"]:
        matching = [count for text, count in source.ignored.items() if reason in text]
        assert matching == [1], reason
    assert (source.lost, source.dropped) == (0, 0)


def test_lost_datagrams_and_their_events_are_counted(
    source: UdpSource, send: Callable[[bytes], None]
) -> None:
    send(encode(one(0)))
    send(encode(one(4, 1_500, first_event=90)))
    send(encode(end(5, 1_500)))
    (chunks,) = [list(recording.chunks) for recording in source.recordings()]
    assert [chunk.dropped for chunk in chunks] == [0, 89, 0]
    assert (source.lost, source.dropped) == (3, 89)


def test_a_full_queue_drops_its_oldest_events_and_counts_them() -> None:
    with UdpSource(
        "udp://127.0.0.1:0", sensor_size=SIZE, largest_queue=10, timeout_s=5.0
    ) as source:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for number in range(30):
                sending.sendto(encode(one(number, 10 * number)), ("127.0.0.1", source.port))
            sending.sendto(encode(end(30, 300)), ("127.0.0.1", source.port))
        for _ in range(500):
            if source.received == 31:
                break
            threading.Event().wait(0.01)
        (chunks,) = [list(recording.chunks) for recording in source.recordings()]
    kept = [int(chunk.events.t[0]) for chunk in chunks if len(chunk.events)]
    assert kept == [10 * n for n in range(30 - len(kept), 30)]  # the newest
    assert 0 < len(kept) <= 5
    assert sum(chunk.dropped for chunk in chunks) == source.dropped == 30 - len(kept)


def test_another_recording_ends_one_whose_end_was_lost(
    source: UdpSource, send: Callable[[bytes], None]
) -> None:
    send(encode(one(0)))
    send(encode(one(0, recording=8)))
    send(encode(replace(end(1, 5), recording=8)))
    numbers = [[len(chunk.events) for chunk in r.chunks] for r in source.recordings()]
    assert numbers == [[1], [1, 0]]


def test_silence_ends_a_stream_that_has_a_timeout() -> None:
    source = UdpSource("udp://127.0.0.1:0", sensor_size=SIZE, timeout_s=0.2)
    assert list(source.recordings()) == []


@pytest.mark.parametrize(
    "address", ["udp://", "udp://host", "tcp://a:1", "udp://a:99999999", "udp://a:1/x", "a:1"]
)
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected udp://host:port"):
        parse_address(address)


def test_a_port_in_use_is_one_line(source: UdpSource) -> None:
    with pytest.raises(DataError, match="cannot listen"):
        UdpSource(source.address, sensor_size=SIZE).open()


def test_replay_refuses_what_it_cannot_send(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="speed must be positive"):
        replay([tmp_path / "a.bin"], "udp://localhost:1", speed=0)
    with pytest.raises(DataError, match="no such file"):
        replay([tmp_path / "a.bin"], "udp://localhost:1")
