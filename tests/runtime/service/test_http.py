"""The server: fixed paths, small requests, few clients, a token for whoever is elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.service import http
from mpsl_runtime.service.access import Access, is_loopback, parse_place, read_token
from mpsl_runtime.service.http import Answer, Server

TOKEN = "-".join(("sixteen", "characters", "at", "least"))


def fault() -> Answer:
    raise RuntimeError("a fault of ours")


PATHS = {"/healthz": lambda: (200, "text/plain", b"ok\n"), "/fault": fault}
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def server() -> Iterator[Server]:
    before = set(threading.enumerate())
    found = Server("127.0.0.1", 0, PATHS, Access("127.0.0.1", None))
    yield found
    found.close()
    assert [t for t in threading.enumerate() if t not in before and t.name == "mpsl-http"] == []


def connect(server: Server) -> socket.socket:
    host, _, port = server.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def raw(server: Server, request: bytes) -> bytes:
    """All that comes back."""
    with connect(server) as client:
        client.sendall(request)
        found = b""
        while piece := client.recv(65536):
            found += piece
    return found


def ask(
    server: Server, path: str = "/healthz", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    head, _, body = raw(server, "\r\n".join([*lines, "", ""]).encode()).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in fields)
    return int(first.split(" ")[1]), {name: value for name, value in pairs}, body


def test_a_path_that_is_there_is_answered_and_the_connection_closed(server: Server) -> None:
    status, headers, body = ask(server, Host="localhost")
    assert (status, body) == (200, b"ok\n")
    assert headers["Content-Length"] == "3"
    assert headers["Connection"] == "close"
    status, headers, body = ask(server, "/healthz?x=1", "HEAD", Host="127.0.0.1:80")
    assert (status, headers["Content-Length"], body) == (200, "3", b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /../healthz HTTP/1.1\r\n\r\n", 404),
        (b"GET http://127.0.0.1/healthz HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost:9\r\nOrigin: http://localhost:9\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_a_request_gets_its_status(server: Server, request_bytes: bytes, status: int) -> None:
    answer = raw(server, request_bytes)
    if status != 431:  # whose rest nobody reads: the system may drop the answer with it
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert server.requests[status] == 1
    assert (b"Allow: GET, HEAD\r\n" in answer) == (status == 405)


def test_a_fault_ends_its_own_answer_alone(server: Server) -> None:
    assert raw(server, b"GET /fault HTTP/1.1\r\n\r\n") == b""
    assert ask(server)[0] == 200


def test_whoever_is_one_too_many_is_told(server: Server) -> None:
    waiting = [connect(server) for _ in range(16)]
    for client in waiting:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
    answer = b""
    while not answer.startswith(b"HTTP/1.1 503 "):  # until all of them have been taken in
        answer = raw(server, b"GET /healthz HTTP/1.1\r\n\r\n")
    for client in waiting:
        client.sendall(b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
        client.close()
    while ask(server)[0] != 200:  # once they have gone
        pass


def test_a_request_that_never_ends_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_HEAD_S", 0.05)
    with connect(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert client.recv(1) == b""
    assert sum(server.requests.values()) == 0


def test_a_token_is_asked_for_and_told_to_nobody() -> None:
    server = Server("127.0.0.1", 0, PATHS, Access("127.0.0.1", TOKEN))
    try:
        for authorization in (
            "",
            TOKEN,
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            "Bearer ",
            "Bearer ü",
        ):
            headers = {"Authorization": authorization} if authorization else {}
            status, answer, body = ask(server, Host="localhost", **headers)
            assert status == 401
            assert answer["WWW-Authenticate"] == "Bearer"
            assert TOKEN.encode() not in body
        assert ask(server, Host="localhost", Authorization=f"Bearer {TOKEN}")[0] == 200
    finally:
        server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "camera.example", "localhost.x"])  # noqa: S104
def test_elsewhere_than_on_this_machine_a_token_is_needed(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="expected a token"):
        Access(host, None)
    refused = Access(host, TOKEN).refuses({"host": "any.example"})
    assert refused == (401, "a token is needed")
    assert Access(host, TOKEN).refuses({"authorization": f"bearer {TOKEN}"}) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST."])
def test_the_loopback_has_many_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("camera-1.example:9464", ("camera-1.example", 9464)),
    ],
)
def test_a_place_is_read(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "80", "host", "host:", "a b:1", "h:65536", "::1:80", "h:1/x"])
def test_what_is_no_place_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="not a place to listen"):
        parse_place(text)


def test_a_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPSL_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("MPSL_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}-of-the-file\n", "utf-8")
    assert read_token(path) == f"{TOKEN}-of-the-file"
    for text in ("short", "with blanks in between it", "zu kurz für Umlaute"):
        path.write_text(text, "utf-8")
        with pytest.raises(UsageError, match="not a token") as error:
            read_token(path)
        assert text not in str(error.value)
    with pytest.raises(DataError, match="token cannot be read"):
        read_token(tmp_path / "absent")


def test_a_place_that_is_taken_is_one_line(server: Server) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(DataError, match="cannot listen; got Address already in use"):
        Server("127.0.0.1", port, PATHS, Access("127.0.0.1", None))
