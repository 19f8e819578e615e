"""A few fixed paths over HTTP, for programs that watch this one: the standard library alone.

A request is `GET` or `HEAD`, at most 8 KiB within five seconds; at most sixteen are answered at
once. Nothing else is read, no file is served, and every connection is closed after its answer.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from mpsl_runtime.errors import DataError
from mpsl_runtime.service.access import Access

__all__ = ["Answer", "Server"]

_LARGEST_HEAD, _MOST_CLIENTS = 8192, 16
_HEAD_S, _ANSWER_S = 5.0, 10.0
_LOOK_AGAIN_S = 0.1

Answer = tuple[int, str, bytes]
"""Status, type of content, content."""


class _RefusedError(Exception):
    """A request that is answered with a status alone."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Server:
    """Answers in threads of its own, from `open` to `close`.

    Attributes:
        requests: answered so far, by status.

    Args:
        host, port: where to listen; port 0 lets the system choose.
        paths: what is there; called in any thread.
        access: who may ask.

    Raises:
        DataError: nobody can listen there.
    """

    def __init__(
        self, host: str, port: int, paths: Mapping[str, Callable[[], Answer]], access: Access
    ) -> None:
        self.requests: Counter[int] = Counter()
        self._paths, self._access = paths, access
        self._host = host
        self._room = threading.BoundedSemaphore(_MOST_CLIENTS)
        try:
            family, _, _, _, place = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _listening(family, place, self._take)
        except (OSError, UnicodeError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError("cannot listen", got=why, where=f"--serve {host}:{port}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_AGAIN_S,), name="mpsl-http", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """`http://host:port`, with a port that the system chose."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Ends the threads and closes the socket; who still waits for an answer gets none."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, client: socket.socket) -> None:
        """One connection, from its first byte to its last."""
        if not self._room.acquire(blocking=False):
            self._send(client, 503, "text/plain", b"too many clients\n")
            return
        try:
            self._answer(client)
        finally:
            self._room.release()

    def _answer(self, client: socket.socket) -> None:
        is_head = False
        try:
            method, path, headers = _request(client)
            is_head = method == "HEAD"
            refused = self._access.refuses(headers)
            if refused is not None:
                raise _RefusedError(*refused)
            if path not in self._paths:
                raise _RefusedError(404, " ".join(sorted(self._paths)))
            status, kind, content = self._paths[path]()
        except _RefusedError as error:
            status, kind, content = error.status, "text/plain; charset=utf-8", f"{error}\n".encode()
        except OSError:  # gone, or too slow
            return
        self._send(client, status, kind, content, is_head=is_head)

    def _send(
        self,
        client: socket.socket,
        status: int,
        kind: str,
        content: bytes,
        *,
        is_head: bool = False,
    ) -> None:
        self.requests[status] += 1
        more = {401: "WWW-Authenticate: Bearer\r\n", 405: "Allow: GET, HEAD\r\n"}.get(status, "")
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\n"
            f"X-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n"
        )
        with suppress(OSError):
            client.settimeout(_ANSWER_S)
            client.sendall(head.encode("latin-1") + (b"" if is_head else content))
            client.shutdown(socket.SHUT_WR)


def _request(client: socket.socket) -> tuple[str, str, dict[str, str]]:
    """Method, path without its query, and headers by names in lower case."""
    until_s = time.monotonic() + _HEAD_S
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > _LARGEST_HEAD:
            raise _RefusedError(431, "request is too large")
        client.settimeout(max(until_s - time.monotonic(), 0.001))
        piece = client.recv(4096)
        if not piece:
            raise OSError("gone")
        head += piece
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _RefusedError(400, "not a request of HTTP/1")
    if words[0] not in ("GET", "HEAD"):
        raise _RefusedError(405, "GET or HEAD")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or name.lower() in headers:
            raise _RefusedError(400, "a header that is none, or there twice")
        headers[name.lower()] = value.strip()
    return words[0], words[1].partition("?")[0], headers


def _listening(family: int, place: Any, take: Callable[[socket.socket], None]) -> Any:
    """A server that hands each connection to `take` in a thread of its own."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            take(self.request)

    class Listening(socketserver.ThreadingMixIn, socketserver.TCPServer):
        address_family = family
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A fault of one answer ends that one; the stream goes on."""

    return Listening(place[:2] if family == socket.AF_INET else place, Handler)
