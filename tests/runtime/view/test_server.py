"""The page over HTTP and its socket: what is served, to whom, and within which limits."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime.errors import OutputError
from mpsl_runtime.view.composer import Composer
from mpsl_runtime.view.session import Session

pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
pytest.importorskip("wsproto", reason="the extra `view` is not installed")

from mpsl_runtime.view.server import LARGEST_MESSAGE, MOST_WATCHERS, Server

Make = Callable[..., Session]
KINDS = {"/": "text/html", "/style.css": "text/css", "/page.js": "text/javascript"}
TOKEN = "a-token-of-mine"  # noqa: S105


@contextmanager
def serving(session: Session, token: str | None = None) -> Iterator[tuple[Server, int]]:
    """A server of a session, and its port."""
    said: list[str] = []
    server = Server(session, "127.0.0.1", 0, token=token, say=said.append)
    composer = Composer(session, server.see, lambda: server.is_watched)
    session.start()
    server.start()
    composer.start()
    try:
        yield server, int(server.url.split(":")[2].split("/")[0])
    finally:
        composer.stop()
        server.stop()
        assert said == []


def get(port: int, path: str, *, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(
    digit: Path, session_of: Make
) -> None:
    with serving(session_of(digit)) as (server, port):
        assert server.url == f"http://127.0.0.1:{port}/"
        for path, kind in KINDS.items():
            status, headers, body = get(port, path)
            assert status == 200
            assert headers["content-type"].startswith(kind)
            assert "default-src 'none'" in headers["content-security-policy"]
            assert b"http://" not in body.replace(b"http://www.w3.org", b"")
            assert b"https://" not in body
            assert len(body) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/server.py", "/../server.py", "/page/../../server.py", "//etc/passwd", "/%2e%2e/server.py",
        "/index.html", "/page.js/", "/style.css%00", "/x" * 500,
    ],
)  # fmt: skip
def test_no_other_file_is_served(digit: Path, session_of: Make, path: str) -> None:
    with serving(session_of(digit)) as (_, port):
        status, _, body = get(port, path)
        assert status == 404
        assert len(body) < 100


def test_another_host_or_method_is_refused(digit: Path, session_of: Make) -> None:
    with serving(session_of(digit)) as (_, port):
        assert get(port, "/", Host="evil.example")[0] == 421
        assert get(port, "/", method="POST")[0] == 405
        assert get(port, "/", method="HEAD")[2] == b""


def test_a_page_gets_what_is_played(
    digit: Path, session_of: Make, page: Callable[..., Any]
) -> None:
    with serving(session_of(digit, speed=4.0)) as (_, port):
        ours = page(port)
        ours.say(token="")
        about = ours.receive()["about"]
        assert about["models"][0]["classes"] == [str(i) for i in range(10)]
        last = ours.wait_for(lambda m: m.get("state") == "over" and m["models"][0]["final"])
        model = last["models"][0]
        assert (model["name"], model["events"], model["lost"]) == ("3", 3928, {})
        assert [len(each) for each in last["pictures"]] == [34 * 34, 34 * 34]
        assert all(0 < share < 1 for share in model["firing"])
        figures = get(port, "/metrics")[2].decode()
        assert 'mpsl_answers_total{model="dvs-digits",class="3"} 1\n' in figures
        assert 'mpsl_events_processed_total{model="dvs-digits"} 3928\n' in figures
        ours.say(do="explode")
        assert "no such command" in ours.wait_for(lambda m: "error" in m)["error"]


def test_sockets_of_other_pages_hosts_and_paths_are_refused(
    digit: Path, session_of: Make, page: Callable[..., Any]
) -> None:
    with serving(session_of(digit)) as (_, port):
        assert page(port, origin="http://evil.example").status == 403
        for origin in ("null", "file://", "http://[::1", f"http://127.0.0.1:{port + 1}"):
            assert page(port, origin=origin).status == 403
        assert page(port, host="evil.example").status == 403
        assert page(port, path="/other").status == 403
        assert page(port, origin=None).status == 101


def test_a_token_is_asked_for_in_the_first_message(
    digit: Path, session_of: Make, page: Callable[..., Any]
) -> None:
    with serving(session_of(digit), TOKEN) as (server, port):
        assert server.url.endswith(f"/#token={TOKEN}")
        assert get(port, "/metrics")[0] == 401
        assert get(port, "/metrics", Authorization="Bearer wrong")[0] == 401
        assert get(port, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        for words in ({"token": "another"}, {"token": ""}, {"got": 1}, {"token": None}):
            stranger = page(port)
            stranger.say(**words)
            assert stranger.receive() is None
            assert stranger.closed == 4401
        ours = page(port)
        ours.say(token=TOKEN)
        assert "about" in ours.receive()


@pytest.mark.parametrize("text", ["nonsense", "[]", "[" * 2000, "5", '{"do":{}}', '{"set":[1]}'])
def test_nonsense_ends_nothing(
    digit: Path, session_of: Make, page: Callable[..., Any], text: str
) -> None:
    with serving(session_of(digit)) as (_, port):
        ours = page(port)
        ours.say(token="")
        ours.wait_for(lambda m: "frame" in m)
        for _ in range(5):
            ours.send('{"got":1}')  # more than came
        ours.send(text)
        first = ours.wait_for(lambda m: "frame" in m)["frame"]
        ours.wait_for(lambda m: m.get("frame", 0) > first)


def test_a_message_that_is_too_long_ends_its_socket_alone(
    digit: Path, session_of: Make, page: Callable[..., Any]
) -> None:
    with serving(session_of(digit)) as (_, port):
        ours, stranger = page(port), page(port)
        for each in (ours, stranger):
            each.say(token="")
        stranger.send("x" * (LARGEST_MESSAGE + 1))
        while stranger.receive() is not None:
            pass
        assert stranger.closed == 1009
        ours.wait_for(lambda m: "frame" in m)


def test_one_page_too_many_is_told_to_come_again(
    digit: Path, session_of: Make, page: Callable[..., Any], until: Callable[..., Any]
) -> None:
    with serving(session_of(digit)) as (_, port):
        pages = [page(port) for _ in range(MOST_WATCHERS)]
        for each in pages:
            each.say(token="")
            assert "about" in each.receive()
        late = page(port)
        assert late.receive() is None
        assert late.closed == 1013
        pages[0].close()

        def one_has_room() -> bool:
            again = page(port)
            again.say(token="")
            return again.receive() is not None

        until(one_has_room)


def test_a_page_that_reads_nothing_costs_pictures_and_no_events(
    digit: Path, session_of: Make, page: Callable[..., Any], until: Callable[..., Any]
) -> None:
    session = session_of(digit, speed=0.5)
    with serving(session) as (server, port):
        dead, ours = page(port), page(port)
        dead.say(token="")  # and nothing more: it never says that a picture has come
        ours.say(token="")
        last = ours.wait_for(lambda m: m.get("state") == "over" and m["models"][0]["final"])
        assert last["models"][0]["events"] == 3928
        assert last["models"][0]["lost"] == {}
        ours.wait_for(lambda m: m.get("frame", 0) > last["frame"] + 3)
        for _ in range(3):  # it wakes up
            dead.receive()
        dropped = dead.wait_for(lambda m: m.get("dropped"))["dropped"]
        assert dropped >= 3
        until(lambda: server.dropped >= dropped)


def test_pages_that_come_and_go_leave_no_thread(
    digit: Path, session_of: Make, page: Callable[..., Any], until: Callable[..., Any]
) -> None:
    with serving(session_of(digit)) as (server, port):
        before = threading.active_count()
        for _ in range(10):
            each = page(port)
            each.say(token="")
            each.wait_for(lambda m: "frame" in m)
            each.close()
        until(lambda: not server.is_watched)
        assert threading.active_count() == before


def test_beyond_this_machine_a_token_is_made(digit: Path, session_of: Make) -> None:
    session = session_of(digit)
    session.start()
    servers = [Server(session, "0.0.0.0", 0, say=print) for _ in range(2)]  # noqa: S104
    tokens = [server.url.partition("/#token=")[2] for server in servers]
    for server in servers:
        server.stop()
    assert min(map(len, tokens)) >= 32
    assert tokens[0] != tokens[1]


def test_a_port_that_is_taken_is_one_line(digit: Path, session_of: Make) -> None:
    session = session_of(digit)
    with serving(session) as (_, port), pytest.raises(OutputError, match=r"cannot listen.*in use"):
        Server(session, "127.0.0.1", port, say=print)
