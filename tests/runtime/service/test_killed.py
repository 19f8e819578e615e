"""Killed with -9 and started again, a run goes on with the next step; SIGTERM ends it in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, load
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.live.datagram import encode
from mpsl_runtime.live.replay import datagrams

RECORDINGS = Path(__file__).parents[2] / "recordings"
PROGRAM = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"
STEP_US = "5000"


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "nmnist8-small", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def items(lines: list[str]) -> list[dict[str, Any]]:
    """Steps and predictions, without the clock."""
    found = [json.loads(line) for line in lines]
    for item in found:
        item.pop("compute_us", None)
    return [item for item in found if "summary" not in item]


def the_rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What is left of stdout and stderr, up to the end. `communicate` would pass over what a
    `readline` before it has taken into its buffer."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()  # a few lines: no pipe fills up
    process.wait()
    return out, err


def killed_after(process: subprocess.Popen[str], lines: int) -> list[str]:
    """What it had printed when it was killed, which is at least so many lines."""
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    out, _ = the_rest(process)
    assert process.returncode == -signal.SIGKILL
    return [*found, *out.splitlines(keepends=True)]


def joined(first: list[Any], second: list[Any]) -> list[Any]:
    """Both parts as one: what was printed last may be printed once more."""
    for again in range(3):
        if not again or first[len(first) - again :] == second[:again]:
            kept = [*first[: len(first) - again], *second]
            steps = [item["step"] for item in kept if "step" in item]
            if steps == sorted(set(steps)):
                return kept
    return [*first, *second]


def test_a_run_over_a_file_gives_what_it_would_have_given(tmp_path: Path) -> None:
    """Under every policy: tests/runtime/run/test_resumed_stream.py."""
    words = [
        RECORDINGS / "gesture.es",
        "--fit",
        "--json",
        "--policy",
        "sliding",
        "--step-us",
        STEP_US,
    ]
    with started(*words) as process:
        out, _ = process.communicate()
    *whole, summary = out.splitlines()
    whole_items = items(whole)
    words += ["--state", tmp_path / "state"]
    seen: list[Any] = []
    for lines in (1, 9):
        with started(*words) as process:
            seen = joined(seen, items(killed_after(process, lines)))
    with started(*words) as process:
        out, err = process.communicate()
    assert process.returncode == 0
    assert "mpsl: goes on from" in err
    *rest, last = out.splitlines()
    assert joined(seen, items(rest)) == whole_items
    assert len(whole_items) > 30
    ours, theirs = json.loads(last)["summary"], json.loads(summary)["summary"]
    for clock in ("events_per_s", "latency_us", "real_time_factor"):
        del ours[clock], theirs[clock]
    assert ours == theirs


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        yield sending


@pytest.fixture
def place() -> tuple[str, int]:
    """Where nobody listens yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(probe.getsockname()[1])


def test_a_service_goes_on_with_the_next_step_and_counts_the_gap(
    tmp_path: Path, sender: socket.socket, place: tuple[str, int]
) -> None:
    address = f"udp://{place[0]}:{place[1]}"
    events = read_events(RECORDINGS / "gesture.es")
    sent = [*datagrams(events, 5, trial=False)]
    first, again = len(sent) // 3, len(sent) // 2
    words = ["--serve", "127.0.0.1:0", "--fit", "--json", "--policy", "continuous",
             "--step-us", STEP_US, "--state", tmp_path / "state", "--log", "json"]  # fmt: skip
    reached = int(sent[first - 1].events.t[-1]) // int(STEP_US)
    with started(address, *words) as process:
        assert told(process, "listening at")["address"] == address
        for datagram in sent[:first]:
            sender.sendto(encode(datagram), place)
        before = items(killed_after(process, reached))
    with started(address, *words) as process:
        assert told(process, "goes on from")["steps"] in (reached - 1, reached)
        told(process, "listening at")
        figures = told(process, "figures at")["address"]
        for datagram in sent[again:]:
            sender.sendto(encode(datagram), place)
        assert process.stdout is not None
        lines: list[str] = []
        while not (lines and "prediction" in lines[-1]):
            lines.append(process.stdout.readline())
        with urllib.request.urlopen(figures) as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        out, err = the_rest(process)
    assert process.returncode == 0
    assert all(json.loads(line)["level"] for line in err.splitlines())
    summary = json.loads(out.splitlines()[-1])["summary"]
    lost = summary["lost"]["sent while nothing ran"]
    assert summary["lost"] == {"sent while nothing ran": lost}
    assert f'cause="sent while nothing ran"}} {lost}' in text
    assert summary["events"] + sum(summary["left_out"].values()) + lost == len(events)

    # The gap ends with the first datagram of the second half, and has the events before it.
    end = sum(len(datagram.events) for datagram in sent[:again])
    left = np.r_[0 : end - lost, end : len(events)]
    columns = (getattr(events, name)[left] for name in "txyp")
    model = load("nmnist8-small", step_us=int(STEP_US), fit=True)
    whole = Events.from_columns(*columns, sensor_size=events.sensor_size)
    wanted = items([json.dumps(i.to_mapping()) for i in model.stream([whole], "continuous")])
    for item in (*wanted, *(found := joined(before, items(lines)))):
        for mapping in (item, item.get("prediction", {})):
            mapping.pop("file", None)
            mapping.pop("dropped", None)
    assert found == wanted


def told(process: subprocess.Popen[str], what: str) -> dict[str, Any]:
    """The next line of the log that begins so."""
    assert process.stderr is not None
    while line := process.stderr.readline():
        record: dict[str, Any] = json.loads(line)
        if record["message"].startswith(what):
            return record
    raise AssertionError(f"it never said {what!r}")


def test_sigterm_leaves_a_window_open_for_the_next_start(tmp_path: Path) -> None:
    words = [RECORDINGS / "gesture.es", "--fit", "--json", "--policy", "tumbling",
             "--step-us", STEP_US, "--state", tmp_path / "state"]  # fmt: skip
    with started(*words[:-2]) as process:
        out, _ = process.communicate()
    whole = items(out.splitlines()[:-1])
    with started(*words) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        out, _ = the_rest(process)
    assert process.returncode == 0
    *rest, summary = out.splitlines()
    assert "summary" in summary
    with started(*words) as process:
        out, _ = process.communicate()
    assert items(lines + rest) + items(out.splitlines()[:-1]) == whole
