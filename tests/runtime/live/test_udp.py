"""Our datagrams on the loopback: the same decisions as from the file, and nothing lost unsaid."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.live.datagram import END, LAST, Datagram, encode
from mpsl_runtime.live.replay import replay
from mpsl_runtime.live.source import LiveSource, open_source, schemes
from mpsl_runtime.run.opening import load

Listen = Callable[..., Any]
Send = Callable[[LiveSource, bytes], None]
MakeEvents = Callable[..., Events]
ADDRESS = "udp://127.0.0.1:0"


def one(sequence: int, t_us: int = 0, x: int = 0, **changes: Any) -> Datagram:
    events = Events.from_columns([t_us], [x], [0], [1])
    return replace(Datagram(0, 7, sequence, sequence, t_us, 0, 12, 10, events), **changes)


def end(sequence: int, t_us: int, flags: int = LAST) -> Datagram:
    return Datagram(END | flags, 7, sequence, sequence, t_us, 0, 12, 10, Events.empty())


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_live_predictions_are_those_of_the_files(
    tmp_path: Path, model_file: Path, make_events: MakeEvents, listening: Listen, engine: Any
) -> None:
    files = [tmp_path / f"{seed}.bin" for seed in range(4)]
    for seed, file in enumerate(files):
        write_nmnist_bin(file, make_events(seed, 400, last_us=6_000 + 3_000 * seed))
    (tmp_path / "cam.csv").write_text(
        "t,x,y,p\n" + "".join(f"{10**9 + 40 * i},{i % 12},{i % 7},{i % 2}\n" for i in range(500))
    )
    files.append(tmp_path / "cam.csv")
    model = load(model_file, engine=engine)
    expected = [item for file in files for item in model.stream(file, "tumbling")]
    source = listening(ADDRESS, timeout_s=10.0)
    sender = threading.Thread(target=replay, args=(files, source.address))
    sender.start()
    stream = model.stream(source, "tumbling")
    live = list(stream)
    sender.join(timeout=10)
    assert (source.lost, source.dropped, source.ignored.total()) == (0, 0, 0)
    for kind in (Step, Prediction):
        a = [item for item in expected if isinstance(item, kind)]
        b = [item for item in live if isinstance(item, kind)]
        assert len(a) == len(b) >= 8
        assert np.array_equal([i.scores for i in a], [i.scores for i in b])
        assert [i.label for i in a] == [i.label for i in b]
    assert stream.summary.truncated > 0


def test_hostile_datagrams_are_counted_by_reason_and_change_nothing(
    listening: Listen, send: Send
) -> None:
    said: list[str] = []
    source = listening(ADDRESS)
    source._say = said.append
    bad = [
        (b"hello", "not an mpsl datagram"),
        (b"", "not an mpsl datagram"),
        (encode(one(1))[:-1], "truncated datagram"),
        (b"MPSL\x09" + encode(one(1))[5:], "another version of the datagram"),
        (encode(one(0)), "late or repeated datagram"),
    ]
    send(source, encode(one(0)))
    for data, _ in bad:
        send(source, data)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(encode(one(1)), ("127.0.0.1", source.port))
    for data in (encode(one(1, 2_000)), encode(end(2, 2_000)), encode(end(2, 2_000))):
        send(source, data)
    (events,) = [[c.events for c in recording.chunks] for recording in source.recordings()]
    assert np.concatenate([e.t for e in events]).tolist() == [0, 2_000]
    reasons = {reason for _, reason in bad} | {"another sender during a recording"}
    assert set(source.ignored) == reasons
    assert source.ignored["not an mpsl datagram"] == 2
    assert sorted(said) == sorted(f"ignored: {reason}" for reason in reasons)  # each once
    assert (source.lost, source.dropped) == (0, 0)


def test_one_event_outside_or_out_of_order_loses_that_event_and_not_the_datagram(
    listening: Listen, send: Send
) -> None:
    source = listening(ADDRESS)
    events = Events(
        t=np.array([10, 20, 15, 30, 40]),
        x=np.array([1, 12, 2, 3, 4], np.uint16),
        y=np.array([1, 1, 2, 3, 9], np.uint16),
        p=np.ones(5, np.uint8),
    )
    mixed = replace(one(0, 10), events=replace(events, t=np.sort(events.t)))
    data = bytearray(encode(mixed))
    data[44 + 16 : 44 + 20] = (0).to_bytes(4, "little")  # the third is at 10 again, after 15
    data[44 + 8 : 44 + 12] = (8).to_bytes(4, "little")
    send(source, bytes(data))
    send(source, encode(replace(end(1, 40), first_event=5)))
    chunks = [chunk for recording in source.recordings() for chunk in recording.chunks]
    assert [x for chunk in chunks for x in chunk.events.x.tolist()] == [1, 2, 3, 4]
    assert dict(source.losses) == {"outside the sensor": 1}
    assert sum(chunk.dropped for chunk in chunks) == 1
    backwards = replace(
        one(0, 10), events=replace(events, x=np.minimum(events.x, 5), t=np.sort(events.t))
    )
    data = bytearray(encode(backwards))
    data[44 + 16 : 44 + 20] = (1).to_bytes(4, "little")
    again = listening(ADDRESS)
    send(again, bytes(data))
    send(again, encode(replace(end(1, 40), first_event=5)))
    assert [len(c.events) for r in again.recordings() for c in r.chunks if len(c.events)] == [4]
    assert dict(again.losses) == {"later than those after them": 1}


def test_a_full_queue_drops_its_oldest_events_and_counts_them(
    listening: Listen, send: Send
) -> None:
    source = listening(ADDRESS, largest_queue=10)
    for number in range(30):
        send(source, encode(one(number, 10 * number)))
    send(source, encode(end(30, 300)))
    for _ in range(500):
        if source._queue._queue.counters()[0] == 31:
            break
        threading.Event().wait(0.01)
    (chunks,) = [list(recording.chunks) for recording in source.recordings()]
    kept = [t for chunk in chunks for t in chunk.events.t.tolist()]
    assert kept == [10 * n for n in range(30 - len(kept), 30)]  # the newest
    assert 0 < len(kept) <= 5
    assert sum(chunk.dropped for chunk in chunks) == source.dropped == 30 - len(kept)
    assert dict(source.losses) == {"queue was full": 30 - len(kept)}


def test_a_service_stays_when_its_sender_has_finished(listening: Listen, send: Send) -> None:
    source = listening(ADDRESS, serve=True, timeout_s=0.5)
    for recording in (1, 2):
        send(source, encode(one(0, recording=recording)))
        send(source, encode(replace(end(1, 0), recording=recording)))
    events = [sum(len(c.events) for c in recording.chunks) for recording in source.recordings()]
    assert events == [1, 1]


def test_silence_ends_a_stream_that_has_a_timeout(listening: Listen) -> None:
    assert list(listening(ADDRESS, timeout_s=0.2).recordings()) == []


def test_stop_ends_it_from_another_thread_and_what_is_whole_is_given(
    listening: Listen, send: Send
) -> None:
    source = listening(ADDRESS, timeout_s=None)
    send(source, encode(one(0)))
    stopper = threading.Timer(0.3, source.stop)
    stopper.start()
    assert sum(len(chunk.events) for chunk in source) == 1
    stopper.join()


def test_a_datagram_from_another_camera_says_what_would_fit(
    model_file: Path, listening: Listen, send: Send
) -> None:
    source = listening(ADDRESS)
    send(source, encode(one(0, width=640, height=480)))
    with pytest.raises(DataError, match=r"640x480.*12x10: --fit takes the middle 576x480"):
        list(load(model_file).stream(source, "tumbling"))


def test_a_service_ignores_another_camera_and_stays(
    model_file: Path, listening: Listen, send: Send
) -> None:
    source = listening(ADDRESS, serve=True, timeout_s=0.5)
    send(source, encode(one(0, width=640, height=480)))
    send(source, encode(end(1, 0, 0)))
    send(source, encode(one(0, recording=8)))
    send(source, encode(replace(end(1, 0), recording=8)))
    stream = load(model_file, serve=True).stream(source, "tumbling")
    summary = stream.run()
    assert (summary.events, summary.lost) == (1, {"another sensor": 1})
    assert source.ignored["recordings from another sensor"] == 1


@pytest.mark.parametrize(
    "address",
    ["udp://", "udp://host", "udp://a:99999999", "udp://a:1/x", "a:1", "udp://a:1?x=1", "://a:1"],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        open_source(address)


def test_a_scheme_that_there_is_not_is_told_those_that_there_are() -> None:
    assert {"udp", "udp+spif", "udp+faery", "tcp", "dv", "camera", "stdin"} <= set(schemes())
    with pytest.raises(UsageError, match=r"expected camera:// dv:// .* udp\+spif://"):
        open_source("gopher://a:1")


def test_a_port_in_use_is_one_line(listening: Listen) -> None:
    with pytest.raises(DataError, match="cannot listen"):
        open_source(listening(ADDRESS).address).open()


def test_a_host_that_is_none_is_one_line() -> None:
    for host in ("a..b", "x" * 70 + ".example"):
        with pytest.raises((DataError, UsageError)) as error:
            open_source(f"udp://{host}:3").open()
        assert "\n" not in str(error.value)
