"""Who may come in: Host, Origin and token."""

from __future__ import annotations

import pytest

from mpsl_runtime.view.doors import Doors

EVERYWHERE = "0.0.0.0"  # noqa: S104  # nobody listens here


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8642", True),
        ("localhost:8642", True),
        ("LOCALHOST", True),
        ("[::1]:8642", True),
        ("evil.example:8642", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.7:8642", False),
        ("localhost:8642:1", False),
        ("[::1", False),
        ("[::1]x", False),
        ("", False),
        ("ä", False),
        ("x" * 400, False),
    ],
)
def test_on_the_loopback_only_names_of_the_loopback_are_hosts(host: str, is_ours: bool) -> None:
    assert Doors("127.0.0.1").is_our_host(host) is is_ours


def test_elsewhere_an_address_is_a_host_and_a_strange_name_is_none() -> None:
    doors = Doors(EVERYWHERE, more_hosts=["camera.lab"])
    assert doors.is_our_host("192.168.1.7:8642")
    assert doors.is_our_host("camera.lab")
    assert not doors.is_our_host("evil.example")


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        (None, True),
        ("http://127.0.0.1:8642", True),
        ("https://127.0.0.1:8642", True),
        ("http://127.0.0.1:8643", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://", False),
        ("", False),
    ],
)
def test_a_socket_comes_from_our_page_or_from_no_page(origin: str | None, is_ours: bool) -> None:
    assert Doors("127.0.0.1").is_our_origin(origin, "127.0.0.1:8642") is is_ours


def test_the_loopback_asks_for_no_token_unless_one_is_given() -> None:
    assert Doors("127.0.0.1").token == Doors("localhost").token == Doors("::1").token == ""
    assert Doors("127.0.0.1").is_our_token(None)
    assert not Doors("127.0.0.1", "a-token-of-mine").is_our_token("")


def test_elsewhere_a_token_is_made_and_asked_for() -> None:
    doors = Doors(EVERYWHERE)
    assert len(doors.token) >= 32
    assert doors.token != Doors(EVERYWHERE).token
    assert doors.is_our_token(doors.token)
    for wrong in (None, "", doors.token[:-1], doors.token + "x", 5, ["x"], "ä\ud800"):
        assert not doors.is_our_token(wrong)
