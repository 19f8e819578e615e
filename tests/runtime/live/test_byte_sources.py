"""Bytes of any format over tcp, from DV and through a pipe: the same answers as from the file."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.source import open_source
from mpsl_runtime.run.opening import load

RECORDINGS = Path(__file__).parents[2] / "recordings"
MakeEvents = Callable[..., Events]


@contextmanager
def server(
    pieces: list[bytes | threading.Event], *, pause_s: float = 0.0, reset: bool = False
) -> Iterator[int]:
    """Sends to the first who connects, waiting wherever an event stands; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                for piece in pieces:
                    if isinstance(piece, threading.Event):
                        piece.wait(60)
                    else:
                        client.sendall(piece)
                        time.sleep(pause_s)
                if reset:  # an end with RST, as when a program dies
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(timeout=10)


def columns(events: Events) -> list[list[int]]:
    return [getattr(events, name).tolist() for name in "txyp"]


def received(address: str, say: Callable[[str], None] | None = None, **options: Any) -> Events:
    source = open_source(address, source_options({"timeout_s": 5.0, **options}), say=say)
    chunks = [chunk.events for chunk in source if len(chunk.events)]
    parts = [np.concatenate([getattr(e, name) for e in chunks]) for name in "txyp"]
    return Events(*parts, sensor_size=source.sensor_size)


@pytest.mark.parametrize(
    "name",
    ["gesture-evt3.raw", "gesture-evt2.raw", "gesture.es", "gesture-zstd.aedat4", "gesture.csv"],
)
def test_bytes_over_tcp_are_the_file_in_pieces_of_any_size(name: str) -> None:
    data = (RECORDINGS / name).read_bytes()
    rng = np.random.default_rng(1)
    edges = sorted({0, len(data), *rng.integers(0, len(data), 20).tolist()})
    pieces: list[bytes | threading.Event] = [data[a:b] for a, b in pairwise(edges)]
    with server(pieces) as port:
        got = received(f"tcp://127.0.0.1:{port}")
    wanted = read_events(RECORDINGS / name, on_trouble=lambda _: None)
    assert columns(got) == columns(wanted)
    assert got.sensor_size == wanted.sensor_size


def test_a_run_on_tcp_answers_as_the_file_does() -> None:
    model = load("nmnist8-small", fit=True)
    name = RECORDINGS / "gesture-evt3.raw"
    wanted = [item.to_mapping() for item in model.stream(name, "tumbling", sensor_size=(128, 128))]
    with server([name.read_bytes()]) as port:
        address = f"tcp://127.0.0.1:{port}"
        got = [
            item.to_mapping() for item in model.stream(address, "tumbling", sensor_size="128x128")
        ]

    def decisions(items: list[Any]) -> list[Any]:
        bodies = [item.get("prediction", item) for item in items]
        return [
            {k: v for k, v in body.items() if k not in ("file", "compute_us")} for body in bodies
        ]

    assert decisions(got) == decisions(wanted)
    assert len(got) > 8


def test_the_first_step_comes_before_the_sender_has_finished() -> None:
    data = (RECORDINGS / "gesture.es").read_bytes()
    half = len(data) // 2
    model = load("nmnist8-small", fit=True)
    go_on = threading.Event()
    with server([data[:half], go_on, data[half:]]) as port:
        stream = model.stream(f"tcp://127.0.0.1:{port}", "tumbling")
        next(stream)
        early = stream.summary.events
        go_on.set()
        stream.run()
    assert 0 < early < stream.summary.events == len(read_events(RECORDINGS / "gesture.es"))


def test_a_connection_that_breaks_leaves_what_is_whole_and_says_its_end() -> None:
    data = (RECORDINGS / "gesture-evt3.raw").read_bytes()
    said: list[str] = []
    with server([data[: len(data) // 2 | 1]], pause_s=0.05) as port:
        got = received(f"tcp://127.0.0.1:{port}", said.append)
    wanted = read_events(RECORDINGS / "gesture-evt3.raw")
    assert 0 < len(got) < len(wanted)
    assert columns(got) == columns(wanted.slice(0, len(got)))
    assert said == ["ends inside a word"]
    said.clear()
    with server([data[: len(data) // 2]], pause_s=0.3, reset=True) as port:
        again = received(f"tcp://127.0.0.1:{port}", said.append)
    assert len(again) == len(got)
    assert said == ["the connection broke: Connection reset by peer"]


def test_strict_makes_a_cut_end_an_error() -> None:
    from mpsl_runtime.events.options import ReadOptions

    data = (RECORDINGS / "gesture-evt3.raw").read_bytes()
    with (
        server([data[: len(data) // 2 | 1]]) as port,
        pytest.raises(DataError, match="recording is not whole"),
    ):
        received(f"tcp://127.0.0.1:{port}", read=ReadOptions(strict=True))


def test_nobody_there_and_nothing_sent_are_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match="cannot connect; got Connection refused"):
        open_source(f"tcp://127.0.0.1:{port}").open()
    with server([]) as port, pytest.raises(DataError, match="nothing came"):
        received(f"tcp://127.0.0.1:{port}")
    with server([b"\0\1\2\3" * 100]) as port, pytest.raises(DataError, match="unknown format"):
        received(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["tcp", "dv"])
def test_a_silent_server_is_left_by_stop(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        source = open_source(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}")
        with source:
            threading.Timer(0.2, source.stop).start()
            start = time.monotonic()
            with pytest.raises(DataError, match="nothing came"):
                list(source)
            assert time.monotonic() - start < 20  # else it waits for ever


@pytest.mark.skipif(
    importlib.util.find_spec("dv_processing") is None, reason="`make peers` brings dv-processing"
)
@pytest.mark.parametrize("packing", ["none", "lz4", "zstd"])
def test_a_real_dv_server_is_read_event_by_event(tmp_path: Path, packing: str) -> None:
    rng = np.random.default_rng(2)
    t = np.cumsum(rng.integers(0, 90, 5000)) + 10**15
    x, y, p = (rng.integers(0, side, 5000) for side in (640, 480, 2))
    np.savez(tmp_path / "r.npz", t=t, x=x, y=y, p=p, size=(640, 480))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(__file__).parent / "dv_server.py"
    words = [sys.executable, str(program), str(port), str(tmp_path / "r.npz"), packing]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as dv:
        assert dv.stdout is not None
        assert dv.stdout.readline() == "up\n"
        got = received(f"dv://127.0.0.1:{port}")
    assert columns(got) == [t.tolist(), x.tolist(), y.tolist(), p.tolist()]
    assert got.sensor_size == (640, 480)


def mpsl(*words: object) -> list[str]:
    program = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", program, *map(str, words)]


def test_a_pipe_is_read_like_the_file(tmp_path: Path) -> None:
    path = RECORDINGS / "gesture-evt2.raw"
    common = ("--fit", "--sensor", "128x128", "--policy", "tumbling", "--json")
    file = subprocess.run(
        mpsl("run", "nmnist8-small", path, *common), capture_output=True, text=True, check=True
    )
    with path.open("rb") as stdin:
        pipe = subprocess.run(
            mpsl("run", "nmnist8-small", "-", *common),
            stdin=stdin,
            capture_output=True,
            text=True,
            check=True,
        )

    def labels(out: str) -> list[Any]:
        items = [json.loads(line) for line in out.splitlines()]
        return [item["prediction"]["scores"] for item in items if "prediction" in item]

    assert labels(pipe.stdout) == labels(file.stdout) != []
    assert pipe.stderr.splitlines()[0] == "mpsl: reading -"
    closed = subprocess.run(
        mpsl("run", "nmnist8-small", "-"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert closed.returncode == 2
    assert closed.stderr.splitlines()[-1] == (
        "mpsl: nothing came; got 0 bytes; expected events; in -"
    )


def test_sigterm_finishes_the_window_and_gives_the_totals(tmp_path: Path) -> None:
    path = RECORDINGS / "gesture.es"
    reading, writing = os.pipe()
    words = mpsl("run", "nmnist8-small", "-", "--fit", "--policy", "tumbling", "--json")
    with subprocess.Popen(
        words, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        os.close(reading)
        data = path.read_bytes()
        os.write(writing, data[: len(data) // 2])  # and then silence, with the pipe open
        assert run.stdout is not None
        assert "step" in run.stdout.readline()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=20)
        os.close(writing)
    assert (run.returncode, "Traceback" in err) == (0, False)
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert summary["events"] > 100
    assert summary["steps"] % 8 == 0
