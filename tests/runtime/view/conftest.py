"""Sessions and pages of the loopback, and what is left of their threads."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime import load
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.view.session import Session, Shown

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left == []


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """What a condition comes to, once it is true; a crowded machine has a minute."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"waited in vain {what}"
        time.sleep(0.005)
    return found


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until


@pytest.fixture
def digit(recordings_folder: Path) -> Path:
    """A 3 in N-MNIST's format: one trial of 8 steps."""
    return recordings_folder / "digit.bin"


@pytest.fixture
def session_of() -> Iterator[Callable[..., Session]]:
    """`session_of(source, *models, **arguments)`: it is stopped after the test. The lines that it
    says are in `said`."""
    made: list[Session] = []

    def make(source: object, *models: object, **arguments: Any) -> Session:
        options = arguments.pop("options", {})
        policy = arguments.pop("policy", Policy())
        shown = [Shown(str(name), load(name), policy) for name in models or ("dvs-digits",)]  # type: ignore[arg-type]
        said: list[str] = []
        session = Session(shown, str(source), options, say=said.append, **arguments)
        session.said = said  # type: ignore[attr-defined]
        made.append(session)
        return session

    yield make
    for session in made:
        session.stop()


class Page:
    """What a browser would be: a WebSocket of ours, by hand."""

    def __init__(
        self, port: int, *, host: str = "", origin: str | None = "", path: str = ""
    ) -> None:
        wsproto = pytest.importorskip("wsproto")
        events = pytest.importorskip("wsproto.events")
        self._events = events
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._tcp = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._waiting: list[Any] = []
        self._text = ""
        self._bytes = b""
        self.closed: int | None = None
        self.status = 0
        host = host or f"127.0.0.1:{port}"
        headers = [] if origin is None else [(b"origin", (origin or f"http://{host}").encode())]
        request = events.Request(host=host, target=path or "/pictures", extra_headers=headers)
        self._tcp.sendall(self._ws.send(request))
        event = self._next()
        if isinstance(event, events.AcceptConnection):
            self.status = 101
        elif isinstance(event, events.RejectConnection):
            self.status = event.status_code

    def _next(self) -> Any:
        while not self._waiting:
            try:
                data = self._tcp.recv(1 << 16)
            except ConnectionError:
                data = b""
            self._ws.receive_data(data or None)
            self._waiting += list(self._ws.events())
        return self._waiting.pop(0)

    def say(self, **words: object) -> None:
        self.send(json.dumps(words))

    def send(self, text: str) -> None:
        """Nothing where the other side has ended it already; `receive` says so."""
        if self._ws.state.name == "OPEN":
            with suppress(ConnectionError):
                self._tcp.sendall(self._ws.send(self._events.TextMessage(data=text)))

    def receive(self) -> Any:
        """The next message: words, or a frame with its pictures; None after the end."""
        while True:
            event = self._next()
            if isinstance(event, self._events.CloseConnection):
                self.closed = event.code
                return None
            if isinstance(event, self._events.Ping):
                self._tcp.sendall(self._ws.send(event.response()))
            elif isinstance(event, self._events.TextMessage):
                self._text += event.data
                if event.message_finished:
                    text, self._text = self._text, ""
                    return json.loads(text)
            elif isinstance(event, self._events.BytesMessage):
                self._bytes += event.data
                if event.message_finished:
                    data, self._bytes = self._bytes, b""
                    self.say(got=1)
                    return frame_of(data)

    def wait_for(self, condition: Callable[[Any], Any]) -> Any:
        """The first message that a condition is true for."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            message = self.receive()
            assert message is not None, self.closed
            if condition(message):
                return message
        raise AssertionError("waited in vain")

    def close(self) -> None:
        with suppress(OSError):
            self._tcp.close()


def frame_of(data: bytes) -> dict[str, Any]:
    """A message with pictures; each as bytes."""
    (length,) = struct.unpack_from("<I", data)
    facts = json.loads(data[4 : 4 + length])
    at, pictures = 4 + length, []
    for size in facts["blocks"]:
        pictures.append(zlib.decompress(data[at : at + size]))
        at += size
    assert at == len(data)
    return {**facts, "pictures": pictures}


@pytest.fixture
def page() -> Iterator[Callable[..., Page]]:
    """`page(port, …)`: a page that has asked to connect."""
    opened: list[Page] = []

    def connect(port: int, **arguments: Any) -> Page:
        opened.append(Page(port, **arguments))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()
