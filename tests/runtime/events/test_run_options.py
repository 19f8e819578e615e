"""`mpsl run` on recordings that are not whole, not in order or not clear: what the options do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsl_runtime.events.readers import read_chunks

Run = Callable[..., tuple[int, str, str]]
TUMBLING = ("--policy", "tumbling")  # every event is taken, however few there are


def rows(*times: int) -> str:
    return "".join(f"{t},{t % 12},{t % 10},{t % 2}\n" for t in times)


def total_events(out: str) -> int:
    last = json.loads(out.splitlines()[-1])
    return int(last["summary"]["events"])


def test_what_is_not_whole_is_one_line_and_strict_makes_it_an_error(
    mpsl: Run, model_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(100, 200, 5300) + "5400,1")
    code, out, err = mpsl("run", model_file, path, *TUMBLING, "--json")
    assert code == 0
    assert total_events(out) == 3
    assert f"mpsl: {path}: ends inside a line\n" in err
    code, out, err = mpsl("run", model_file, path, "--strict")
    assert code == 2
    assert err.count("\n") == 1
    assert "recording is not whole; got ends inside a line" in err


def test_time_that_falls_is_an_error_that_proposes_the_window(
    mpsl: Run, model_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(100, 2500, 1200, 4800))
    code, _, err = mpsl("run", model_file, path)
    assert code == 2
    assert "got 1 of 4 events late by up to 1.3 ms" in err
    assert "--sort-window 2 sorts them" in err
    code, out, err = mpsl("run", model_file, path, "--sort-window", "2", *TUMBLING, "--json")
    assert code == 0
    assert total_events(out) == 4
    assert "1 late event put in its place" in err


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("1,2,1,0.0001\n3,4,0,0.0025\n", ["--columns", "x,y,p,t", "--time-unit", "s"]),
        ("100000,1,2,1\n2500000,3,4,0\n", ["--time-unit", "ns"]),
    ],
)
def test_a_text_is_read_as_it_is_told(
    mpsl: Run, model_file: Path, tmp_path: Path, text: str, options: list[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    code, out, _ = mpsl("run", model_file, path, *TUMBLING, "--json", *options)
    assert code == 0
    steps = [json.loads(line) for line in out.splitlines() if '"scores"' in line]
    steps = [step for step in steps if "events" in step]
    assert [step["events"] for step in steps if step["events"]] == [1, 1]
    assert [step["t_us"] for step in steps if step["events"]] == [100, 2100]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "t,x,y"], "columns are not those of events"),
        (["--time-unit", "h"], "unknown unit of time"),
        (["--sort-window", "nan"], "--sort-window"),
        (["--stream", "left"], "no such"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_line(
    mpsl: Run,
    model_file: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    encode: Callable[..., bytes],
    some_events: Callable[..., object],
) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(encode("aedat4", some_events(1)))
    code, _, err = mpsl("run", model_file, path, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_the_first_events_of_a_file_that_is_still_written_come_before_its_end(
    tmp_path: Path,
) -> None:
    """A named pipe: nothing of what follows is there yet when the first events come out."""
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    first, go_on = rows(*range(1_000)).encode(), threading.Event()

    def write() -> None:
        with path.open("wb") as pipe:
            pipe.write(first)
            pipe.flush()
            go_on.wait(20)
            pipe.write(rows(200_000).encode())

    writer = threading.Thread(target=write)
    writer.start()
    with read_chunks(path) as chunks:
        events = next(chunks)
        assert len(events) > 10
        assert int(events.t[0]) == 0
        go_on.set()
        assert sum(len(piece) for piece in chunks) + len(events) == 1_001
    writer.join()
