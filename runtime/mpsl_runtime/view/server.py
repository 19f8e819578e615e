"""The page over HTTP, and its pictures over a WebSocket: in a thread that nobody waits for.

An ASGI application for uvicorn, both of the extra `view`. It serves the files of `page` out of
memory and nothing else. Whoever watches says of each frame when it has come; `_IN_FLIGHT` may be on
their way, and of the others only the newest is kept.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from importlib.resources import files
from typing import Any

from mpsl_runtime.errors import MissingExtraError, MpslError, OutputError
from mpsl_runtime.service.access import Access, is_loopback
from mpsl_runtime.service.exposition import CONTENT_TYPE
from mpsl_runtime.view.composer import Frame
from mpsl_runtime.view.message import FrameWriter, as_json, describe
from mpsl_runtime.view.session import Session

__all__ = ["LARGEST_MESSAGE", "MOST_WATCHERS", "Server", "check_extra"]

LARGEST_MESSAGE = 4096
"""Bytes of a message from a page; a longer one ends its socket (1009)."""
MOST_WATCHERS = 16
"""Sockets at a time; one more is told to come again later (1013)."""

_MOST_CONNECTIONS = 64
_IN_FLIGHT = 3
_TOKEN_S, _SILENT_S = 10.0, 20.0
_BAD_TOKEN, _TOO_MANY, _DEAD = 4401, 1013, 4408
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/controls.js": ("controls.js", "text/javascript; charset=utf-8"),
}
_HEADERS = (
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)  # fmt: skip

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def check_extra() -> None:
    """Raises MissingExtraError where the extra `view` is not installed."""
    try:
        import uvicorn  # noqa: F401
        import wsproto  # noqa: F401  # uvicorn looks for it only when a socket comes
    except ImportError:
        raise MissingExtraError("uvicorn, which serves the page,", "mpsl-runtime[view]") from None


class _Watcher:
    """One page that watches."""

    def __init__(self, session: Session) -> None:
        self.writer = FrameWriter(session)
        self.fresh = asyncio.Event()
        self.room = asyncio.BoundedSemaphore(_IN_FLIGHT)


class Server:
    """Listens from the beginning; serves between `start` and `stop`.

    Attributes:
        url: of the page, with its token where there is one. dropped: frames that pages did not get.

    Args:
        session: what is shown. host, port: where to listen; 0: any port.
        token: that a page must show; None asks for none, and beyond this machine one is made.
        say: called with a line for people.

    Raises:
        OutputError: nobody can listen there.
    """

    def __init__(
        self,
        session: Session,
        host: str,
        port: int,
        *,
        token: str | None = None,
        say: Callable[[str], None],
    ) -> None:
        import uvicorn

        if token is None and not is_loopback(host):
            token = secrets.token_urlsafe(24)
        self._session, self._access, self._say = session, Access(host, token), say
        self._socket = _listening(host, port)
        port = self._socket.getsockname()[1]
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104  # then the machine's name leads here
        name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{port}/" + (f"#token={token}" if token else "")
        self._dropped = 0
        folder = files("mpsl_runtime.view") / "page"
        self._files = {at: (folder / name).read_bytes() for at, (name, _) in _PAGE.items()}
        self._watchers: set[_Watcher] = set()
        self._waiting = 0
        self._latest: Frame | None = None
        self._is_told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            self._answer,
            # Nothing of a stranger is printed: neither what they ask for nor a token.
            log_config=None, log_level="critical", access_log=False,
            interface="asgi3", lifespan="off", http="h11", ws="wsproto", loop="asyncio",
            server_header=False, date_header=False, proxy_headers=False,
            ws_max_size=LARGEST_MESSAGE, ws_per_message_deflate=False,
            h11_max_incomplete_event_size=1 << 14, limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=5, timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="mpsl view server", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends all sockets and the thread."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    @property
    def dropped(self) -> int:
        """Frames that pages did not get, all together."""
        return self._dropped + sum(watcher.writer.dropped for watcher in list(self._watchers))

    @property
    def is_watched(self) -> bool:
        """Whether anybody is there to see a frame."""
        return bool(self._watchers)

    def see(self, frame: Frame) -> None:
        """The newest frame, from any thread; returns at once."""
        self._latest = frame
        if self._loop is not None and not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_told = False
        for watcher in self._watchers:
            watcher.fresh.set()

    def _serve(self) -> None:
        loop = self._loop
        if loop is None:
            return
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if scope["type"] == "http":
            await self._page(scope, send, headers)
        elif scope["type"] == "websocket":
            await receive()  # that it wants to connect
            if self._access.refuses_place(headers) or scope["path"] != "/pictures":
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
                return
            try:
                await self._socket_of(receive, send)
            except Exception as error:  # ours: whoever watches must not end what runs
                self._say(f"fault in the page's socket: {type(error).__name__}: {error}")

    async def _page(self, scope: Message, send: Send, headers: dict[str, str]) -> None:
        """A file of the page; or the figures, for whoever shows the token."""
        path, method = scope["path"], scope["method"]
        # The page itself tells nothing: its socket shows the token.
        asked = self._access.refuses if path == "/metrics" else self._access.refuses_place
        refused = asked(headers)
        if refused is not None:
            status, kind, body = refused[0], "text/plain", f"{refused[1]}\n".encode()
        elif method not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"only GET\n"
        elif path == "/metrics":
            status, kind, body = 200, CONTENT_TYPE, self._session.metrics.text()
        elif path in self._files:
            status, kind, body = 200, _PAGE[path][1], self._files[path]
        else:
            status, kind, body = 404, "text/plain", b"nothing is here\n"
        length = str(len(body)).encode()
        found = [(b"content-type", kind.encode()), (b"content-length", length), *_HEADERS]
        await send({"type": "http.response.start", "status": status, "headers": found})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def _socket_of(self, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if len(self._watchers) + self._waiting >= MOST_WATCHERS:
            await _close(send, _TOO_MANY, "too many pages watch")
            return
        self._waiting += 1
        try:
            first = await asyncio.wait_for(receive(), _TOKEN_S)
        except TimeoutError:
            first = {}
        finally:
            self._waiting -= 1
        if first.get("type") == "websocket.disconnect":
            return
        token = _words(first).get("token")
        if not isinstance(token, str) or not self._access.is_token(token):
            await _close(send, _BAD_TOKEN, "wrong token")
            return
        watcher = _Watcher(self._session)
        self._watchers.add(watcher)
        self._session.watched()
        sending = asyncio.create_task(self._send_frames(watcher, send))
        try:
            await self._listen(watcher, receive, send)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            self._watchers.discard(watcher)
            self._dropped += watcher.writer.dropped

    async def _listen(self, watcher: _Watcher, receive: Receive, send: Send) -> None:
        """What a page says, until it goes."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            words = _words(message)
            if "got" in words:
                with suppress(ValueError):  # more than were sent
                    watcher.room.release()
                continue
            try:
                self._session.act(words)
            except MpslError as error:
                await send({"type": "websocket.send", "text": as_json({"error": str(error)})})

    async def _send_frames(self, watcher: _Watcher, send: Send) -> None:
        version = -1
        try:
            while True:
                await watcher.fresh.wait()
                await asyncio.wait_for(watcher.room.acquire(), _SILENT_S)
                watcher.fresh.clear()
                frame = self._latest
                if frame is None:
                    continue
                if frame.version != version:
                    version = frame.version
                    text = as_json(describe(self._session))
                    await send({"type": "websocket.send", "text": text})
                await send({"type": "websocket.send", "bytes": watcher.writer.write(frame)})
        except TimeoutError:
            await _close(send, _DEAD, "no word from the page")
        except OSError:  # uvicorn: it has gone
            return


async def _close(send: Send, code: int, reason: str) -> None:
    with suppress(OSError):
        await send({"type": "websocket.close", "code": code, "reason": reason})


def _words(message: Message) -> dict[str, Any]:
    """What a message says; nothing where it is none of ours."""
    try:
        words = json.loads(message.get("text") or "{}")
    except (ValueError, RecursionError):
        return {}
    return words if isinstance(words, dict) else {}


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        where = f"{host}:{port}"
        raise OutputError("cannot listen", got=why, expected="a free port", where=where) from None
