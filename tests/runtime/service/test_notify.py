"""Words to systemd arrive where it listens, and go nowhere where nobody asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsl_runtime import Events, load
from mpsl_runtime.service import service as services
from mpsl_runtime.service.notify import notify, watchdog_s
from mpsl_runtime.service.service import Service, ServiceSettings


@pytest.mark.parametrize("is_abstract", [False, True])
def test_words_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool) -> None:
    name = f"@mpsl-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if is_abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1", "STATUS=runs")
        assert listening.recv(100) == b"READY=1\nSTATUS=runs"
    assert not notify("READY=1")


@pytest.mark.parametrize("name", ["", "relative", "tcp://x"])
def test_where_nobody_asked_nothing_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("asked", "whose", "seconds"),
    [("3000000", "", 3.0), ("3000000", "ours", 3.0), ("3000000", "1", None), ("x", "", None),
     ("", "", None), ("0", "", None)],
)  # fmt: skip
def test_the_watchdog_is_ours_or_somebody_elses(
    asked: str, whose: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", asked)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if whose == "ours" else whose)
    assert watchdog_s() == seconds


def test_a_service_says_when_it_is_ready_that_it_lives_and_that_it_stops(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_file: Path,
    make_events: Callable[..., Events],
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", "")
    monkeypatch.setattr(services, "watchdog_s", lambda: 0.03)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        model = load(model_file)
        stream = model.stream([make_events(1)])
        monkeypatch.setattr(Service, "silent_s", 0.0)
        with Service(model, stream, ServiceSettings()) as service:
            service.ready()
            assert listening.recv(100) == b"READY=1"
            assert listening.recv(100) == b"WATCHDOG=1"  # the stream gives signs of life
            monkeypatch.setattr(Service, "silent_s", 1.0)
        words = [listening.recv(100)]
        while words[-1] != b"STOPPING=1":
            words.append(listening.recv(100))
        assert set(words) <= {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}
