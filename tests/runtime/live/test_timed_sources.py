"""SPIF's words and faery's events over UDP: formats without numbers, ordered by their times."""

from __future__ import annotations

import gc
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, Prediction
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.live.flow import FlowingSource, Piece
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.replay import replay, spif_datagrams
from mpsl_runtime.live.source import LiveSource, open_source
from mpsl_runtime.live.timed_source import unwrapped
from mpsl_runtime.live.timeline import Arrival, Timeline
from mpsl_runtime.run.opening import load

RECORDINGS = Path(__file__).parents[2] / "recordings"
Listen = Callable[..., Any]
Send = Callable[[LiveSource, bytes], None]
SPIF, FAERY = "udp+spif://127.0.0.1:0", "udp+faery://127.0.0.1:0"


def joined(source: LiveSource) -> list[list[int]]:
    chunks = [chunk.events for chunk in source]
    return [np.concatenate([getattr(e, n) for e in chunks]).tolist() for n in "txyp"]


def columns(events: Events) -> list[list[int]]:
    return [getattr(events, name).tolist() for name in "txyp"]


def test_words_of_spif_with_times_are_what_aestream_writes(listening: Listen, send: Send) -> None:
    source = listening(SPIF, timeout_s=0.3)
    words = np.array(
        [1 << 16 | 1 << 15 | 2, 700, 639 << 16 | 479, 701, 3 << 16 | 4, 0xFFFFFF00], "<u4"
    )
    send(source, words[:4].tobytes())
    assert joined(source) == [[700, 701], [1, 639], [2, 479], [1, 0]]


def test_words_without_times_have_that_of_their_arrival(listening: Listen, send: Send) -> None:
    source = listening(SPIF, timeout_s=0.4)
    word = np.array([1 << 31 | 5 << 16 | 1 << 15 | 6, 1 << 31 | 7 << 16 | 8], "<u4")
    send(source, word.tobytes())
    time.sleep(0.05)
    send(source, word[:1].tobytes() + b"\0")
    t, x, y, p = joined(source)
    assert (x, y, p) == ([5, 7, 5], [6, 8, 6], [1, 0, 1])
    assert t[0] == t[1] == 0
    assert 0 < t[2] < 2_000_000
    assert dict(source.ignored) == {"truncated datagram": 1}


@pytest.mark.parametrize("address", [SPIF, FAERY + "?format=t32"])
def test_a_clock_of_32_bits_goes_on_when_it_wraps(
    listening: Listen, send: Send, address: str
) -> None:
    source = listening(address, timeout_s=0.3)
    t = np.array([0xFFFFFF00, 0xFFFFFFFF, 3, 900], np.uint64)
    if address == SPIF:
        whole = np.stack([np.full(4, 1 << 16 | 1), t], 1).astype("<u4")
    else:
        whole = np.stack([t, np.full(4, 1 | 3 << 16)], 1).astype("<u4")
    for k in (0, 2, 1, 3):  # the wrap is overtaken too
        send(source, whole[k].tobytes())
    got = joined(source)
    assert got[0] == [0xFFFFFF00, 0xFFFFFFFF, (1 << 32) + 3, (1 << 32) + 900]
    assert source.resynchronised == 0


def test_the_shorter_way_around_the_clock() -> None:
    t, last = unwrapped(np.array([10, 2**32 - 5, 7]), None)
    assert (t.tolist(), last) == ([10, -5, 7], 7)
    t, last = unwrapped(np.array([2**31]), 2**33)
    assert unwrapped(np.empty(0, np.int64), 5)[1] == 5
    assert last == int(t[0])


@pytest.mark.skipif(importlib.util.find_spec("faery") is None, reason="`make peers` brings faery")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its open socket
@pytest.mark.parametrize("format", ["t64_x16_y16_on8", "t32_x16_y15_on1"])
def test_a_real_faery_sender_gives_the_answers_of_the_file(listening: Listen, format: Any) -> None:
    import faery

    path = RECORDINGS / "gesture.es"
    source = listening(f"{FAERY}?format={format}&size=128x128", timeout_s=0.5)

    def send_all() -> None:
        stream = faery.events_stream_from_file(path)
        stream.to_udp(address=("127.0.0.1", source.port), format=format)

    sender = threading.Thread(target=send_all)
    sender.start()
    model = load("nmnist8-small", fit=True)
    live = [i for i in model.stream(source, "tumbling") if isinstance(i, Prediction)]
    sender.join(timeout=10)
    gc.collect()
    wanted = [i for i in model.stream(path, "tumbling") if isinstance(i, Prediction)]
    assert [i.scores.tolist() for i in live] == [i.scores.tolist() for i in wanted] != []
    assert (source.dropped, source.ignored.total()) == (0, 0)


def test_replay_of_spif_gives_the_answers_of_the_file(listening: Listen) -> None:
    path = RECORDINGS / "gesture.es"
    source = listening(f"{SPIF}?size=128x128", timeout_s=0.5)
    sender = threading.Thread(target=replay, args=([path], source.address), kwargs={"speed": 5.0})
    sender.start()
    model = load("nmnist8-small", fit=True)
    live = [i for i in model.stream(source, "tumbling") if isinstance(i, Prediction)]
    sender.join(timeout=10)
    wanted = [i for i in model.stream(path, "tumbling") if isinstance(i, Prediction)]
    assert [i.scores.tolist() for i in live] == [i.scores.tolist() for i in wanted] != []


def test_spif_datagrams_hold_all_events() -> None:
    events = read_events(RECORDINGS / "gesture.es")
    words = np.frombuffer(b"".join(data for data, _ in spif_datagrams(events)), "<u4")
    assert (words[1::2] == events.t).all()
    assert ((words[::2] >> 16) == events.x).all()
    assert max(len(data) for data, _ in spif_datagrams(events)) <= 256


class Silent(FlowingSource):
    """A source of arrivals that are made up."""

    arrivals: list[Arrival]

    def open(self) -> None:
        self.timeline = Timeline(self, reorder_s=0.005, gap_us=60_000_000)

    def begin(self) -> None: ...

    def arrived(self) -> Iterator[Piece] | None:
        return self.timeline.take(self.arrivals.pop(0)) if self.arrivals else None

    def rest(self) -> Iterator[Piece]:
        return self.timeline.finish()


def silent(*arrivals: tuple[list[int], float]) -> Silent:
    source = Silent(open_source(FAERY)._address, SourceOptions())
    source.arrivals = [
        Arrival(Events.from_columns(t, *([0] * len(t) for _ in range(3))), seconds)
        for t, seconds in arrivals
    ]
    return source


def times(source: LiveSource) -> list[list[int]]:
    return [[t for c in r.chunks for t in c.events.t.tolist()] for r in source.recordings()]


def test_pieces_that_overtook_others_find_their_place_and_later_ones_are_counted() -> None:
    source = silent(
        ([30, 40], 1.0), ([10, 20], 1.001), ([70, 80], 1.002), ([50, 60], 1.003), ([], 1.1),
        ([65, 90], 1.2),
    )  # fmt: skip
    assert times(source) == [[10, 20, 30, 40, 50, 60, 70, 80, 90]]
    assert dict(source.losses) == {"later than those after them": 1}


def test_shuffled_in_fours_nothing_is_lost() -> None:
    t = np.arange(0, 4000, 10).reshape(-1, 10)
    order = [i + k for i in range(0, len(t), 4) for k in (2, 0, 3, 1)]
    source = silent(*((t[k].tolist(), 1 + i / 10_000) for i, k in enumerate(order)))
    assert times(source) == [t.reshape(-1).tolist()]
    assert source.dropped == 0


@pytest.mark.parametrize("jump_us", [-5_000_000, 61_000_000, 10**15])
def test_a_clock_that_jumps_begins_another_recording(jump_us: int) -> None:
    begin = 10**10
    source = silent(
        ([begin, begin + 5], 1.0), ([begin + jump_us], 1.01), ([begin + jump_us + 3], 2.0)
    )
    assert times(source) == [[begin, begin + 5], [begin + jump_us, begin + jump_us + 3]]
    assert (source.resynchronised, source.dropped) == (1, 0)


def test_another_sender_is_ignored_while_the_first_speaks(listening: Listen, send: Send) -> None:
    import socket

    source = listening(FAERY, timeout_s=0.3)
    event = np.array([(5, 1, 1, 1)], "<u8,<u2,<u2,u1").tobytes()
    send(source, event)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(event, ("127.0.0.1", source.port))
    send(source, event)
    assert joined(source)[0] == [5, 5]
    assert dict(source.ignored) == {"another sender": 1}


def test_bytes_that_are_no_events_change_nothing(listening: Listen, send: Send) -> None:
    source = listening(FAERY, timeout_s=0.3)
    send(source, np.array([(5, 1, 1, 1)], "<u8,<u2,<u2,u1").tobytes())
    for data in (b"", b"abc", b"\xff" * 26):
        send(source, data)
    assert joined(source)[0] == [5]
    assert set(source.ignored) == {"truncated datagram", "datagram with impossible times"}


def test_options_that_there_are_not_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown format; got 't16'; expected t64 or t32"):
        open_source(FAERY + "?format=t16")
    with pytest.raises(UsageError, match="unknown option of an address; got 'sise'"):
        open_source(SPIF + "?sise=1x1")
    with pytest.raises(UsageError, match="no size of a sensor"):
        open_source(SPIF + "?size=0x1")
