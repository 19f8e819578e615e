"""`mpsl view` on the command line: how it begins, how it ends, and what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


def started(*words: object) -> subprocess.Popen[str]:
    program = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", program, "view", *map(str, words), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_totals(
    digit: Path, page: Callable[..., Any], number: signal.Signals
) -> None:
    pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
    with started("dvs-digits", "nmnist8-small", digit, "--speed", 64) as program:
        assert program.stdout is not None
        url = json.loads(program.stdout.readline())["view"]["url"]
        ours = page(int(url.split(":")[2].strip("/")))
        ours.say(token="")
        ours.wait_for(lambda m: m.get("state") == "over" and m["models"][1]["final"])
        program.send_signal(number)
        while ours.receive() is not None:  # it says goodbye
            pass
        out, err = program.communicate(timeout=60)
    assert program.returncode == 0
    assert "Traceback" not in err
    found = [json.loads(line)["summary"]["events"] for line in out.splitlines()]
    assert found == [3928, 3928]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dvs-digits"], "got 1 arguments"),
        (["dvs-digits"] * 8, "got 8 arguments"),
        (["dvs-digits", "absent.bin"], "no such file"),
        (["dvs-digits", "udp://"], "not a live address"),
        (["dvs-digits", "tcp://127.0.0.1:1"], "in tcp://127.0.0.1:1"),
        (["absent", "udp://127.0.0.1:0"], "no model of that name"),
        (["mnist-small", "udp://127.0.0.1:0"], "model takes frames, not events"),
        (["dvs-digits", "a", "--policy", "best"], "unknown policy"),
        (["dvs-digits", "a", "--speed", "0"], "equal to 0.015625"),
        (["dvs-digits", "a", "--port", "70000"], "equal to 65535"),
        (
            ["dvs-digits", "a", "--host", "no.such.host.invalid", "--token-file", "t"],
            "cannot be read",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(mpsl: Run, words: list[str], said: str) -> None:
    pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
    code, out, err = mpsl("view", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_port_that_is_taken_is_one_line(mpsl: Run, digit: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = mpsl("view", "dvs-digits", digit, "--port", port)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"127.0.0.1:{port}" in err


def test_without_its_extra_it_names_it(
    mpsl: Run, digit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, out, err = mpsl("view", "dvs-digits", digit)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "mpsl-runtime[view]" in err
