"""Sources on the loopback, and what is left of threads and sockets behind them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.source import LiveSource, open_source


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left == []


@pytest.fixture
def listening() -> Iterator[Callable[..., LiveSource]]:
    """`listening("udp://127.0.0.1:0", **options)`: an open source, closed after the test."""
    opened: list[LiveSource] = []

    def listen(address: str, **options: object) -> LiveSource:
        options.setdefault("timeout_s", 5.0)
        source = open_source(address, source_options(options))
        opened.append(source)
        source.open()
        return source

    yield listen
    for source in opened:
        source.close()


@pytest.fixture
def send() -> Iterator[Callable[[LiveSource, bytes], None]]:
    """`send(source, data)`: one datagram to where the source listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:

        def one(source: LiveSource, data: bytes) -> None:
            sending.sendto(data, ("127.0.0.1", source.port))  # type: ignore[attr-defined]

        yield one
