"""The systemd unit and the container file of the README: what they start runs and reports."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "runtime" / "README.md"
PROGRAM = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    assert len(found) == 1
    return str(found[0])


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block("ini"))
    return parser


def container_words() -> list[str]:
    lines = dict(line.split(" ", 1) for line in block("dockerfile").splitlines())
    assert json.loads(lines["ENTRYPOINT"]) == ["mpsl", "run"]
    words: list[str] = json.loads(lines["CMD"])
    return words


def unit_words() -> list[str]:
    program, verb, *words = shlex.split(unit()["Service"]["ExecStart"])
    assert (Path(program).name, verb) == ("mpsl", "run")
    return words


@pytest.mark.parametrize("words", [unit_words, container_words], ids=["systemd", "container"])
def test_what_is_started_says_when_it_is_ready_and_ends_in_order(
    words: object, tmp_path: Path
) -> None:
    assert callable(words)
    given = [
        re.sub(r":\d{4}$", ":0", word.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104
        .replace("%t/mpsl", str(tmp_path))
        .replace("/state/", f"{tmp_path}/")
        for word in words()
    ]
    assert given != words()
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "9000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(environment["NOTIFY_SOCKET"])
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "run", *given],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            assert systemd.recv(100) == b"READY=1"
            records = [json.loads(process.stderr.readline()) for _ in range(2)]
            address = records[1]["address"]
            with urllib.request.urlopen(address.replace("metrics", "healthz")) as answer:
                assert answer.read() == b"ok\n"
            process.send_signal(signal.SIGTERM)
            word = systemd.recv(100)
            while word != b"STOPPING=1":
                assert word == b"WATCHDOG=1"
                word = systemd.recv(100)
            process.communicate()
            assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["notify", "state"], ["notify", "running"],
    )  # fmt: skip


def test_the_unit_asks_for_what_the_program_says() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 5
    assert "%t/" + service["RuntimeDirectory"] in service["ExecStart"]
