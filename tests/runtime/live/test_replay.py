"""`mpsl replay`: what it sends, how fast, and what it refuses."""

from __future__ import annotations

import math
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.replay import replay
from mpsl_runtime.live.source import open_source

RECORDINGS = Path(__file__).parents[2] / "recordings"


@pytest.mark.parametrize("speed", [0, -1, math.nan, 1e-300, 1e7, -math.inf])
def test_a_speed_that_cannot_be_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="no speed for a replay"):
        replay([RECORDINGS / "gesture.es"], "udp://localhost:1", speed=speed)


@pytest.mark.parametrize(
    ("files", "address", "error", "what"),
    [
        (["none.bin"], "udp://localhost:1", DataError, "no such file"),
        (["none.bin"], "tcp://localhost:1", DataError, "cannot be read"),
        ([], "udp://localhost:1", DataError, "nothing to replay"),
        (["a", "b"], "tcp://localhost:1", UsageError, "one recording"),
        (["a"], "dv://localhost:1", UsageError, "nothing is sent there"),
        (["a"], "camera://", UsageError, "nothing is sent there"),
        (["a"], "localhost:1", UsageError, "not a live address"),
    ],
)
def test_replay_refuses_what_it_cannot_send(
    tmp_path: Path, files: list[str], address: str, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        replay([tmp_path / name for name in files], address)


def test_a_host_that_is_none_is_one_line() -> None:
    with pytest.raises(OutputError, match="cannot send"):
        replay([RECORDINGS / "gesture.es"], f"udp://{'x' * 70}.example:3")


@pytest.mark.parametrize("address", ["udp://127.0.0.1:0", "udp+spif://127.0.0.1:0?size=128x128"])
def test_replay_takes_the_time_of_the_recording(address: str) -> None:
    events = read_events(RECORDINGS / "gesture.es")
    lasts_s = (int(events.t[-1]) - int(events.t[0])) / 1e6
    source = open_source(address, source_options({"timeout_s": 0.3}))
    with source:
        start = time.perf_counter()
        sent = replay([RECORDINGS / "gesture.es"], source.address, speed=2.0)
        took_s = time.perf_counter() - start
        assert sum(len(chunk.events) for chunk in source) == len(events) == sent.events
    assert lasts_s / 2 - 0.01 <= took_s < lasts_s / 2 + 5.0  # others may use the machine


def test_over_tcp_the_first_who_connects_gets_the_bytes() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    path = RECORDINGS / "gesture-evt3.raw"
    sent: list[Any] = []
    words = {"speed": 10.0}
    sender = threading.Thread(target=lambda: sent.append(replay([path], address, **words)))
    sender.start()
    for _ in range(200):
        source = open_source(address, source_options({"timeout_s": 5.0}))
        try:
            source.open()
            break
        except DataError:
            time.sleep(0.01)
    number = sum(len(chunk.events) for chunk in source)
    sender.join(timeout=10)
    assert number == len(read_events(path)) == sent[0].events
    assert sent[0].recordings == 1
