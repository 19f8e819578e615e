"""Live sources on a page's side: shown as they come, and every event is processed or counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime.errors import UsageError
from mpsl_runtime.live.replay import replay
from mpsl_runtime.view.session import Session

Make = Callable[..., Session]
Until = Callable[..., Any]


def accounted(session: Session, index: int = 0) -> int:
    """Events of one model that were processed or counted somewhere."""
    stream = session.channels[index].stream
    totals, feed = stream.totals, stream.feed
    assert feed is not None
    seen = totals.events + totals.idle + totals.onsets.idle + totals.truncated
    return seen + sum(feed.losses.values()) + sum(feed.taken.values())


def test_datagrams_are_answered_as_they_come(digit: Path, session_of: Make, until: Until) -> None:
    session = session_of("udp://127.0.0.1:0")
    session.start()
    assert session.source is not None
    assert session.silent_s >= 0
    sent = replay([digit], session.source.address, speed=50.0)
    until(session.ended.is_set)  # the sender has finished
    assert session.error is None
    channel = session.channels[0]
    assert dict(channel.stream.totals.answers) == {"3": 1}
    assert accounted(session) == sent.events
    assert session.compose().levels.any()


def test_no_event_is_lost_uncounted_when_settings_change(
    digit: Path, session_of: Make, until: Until
) -> None:
    session = session_of(
        "udp://127.0.0.1:0", "dvs-digits", "nmnist8-small", options={"serve": True}
    )
    session.start()
    assert session.source is not None
    address = session.source.address
    files = [digit] * 4
    sent = []
    sender = threading.Thread(target=lambda: sent.append(replay(files, address, speed=4.0)))
    sender.start()
    changes: list[dict[str, Any]] = [
        {"policy": "continuous"},
        {"policy": "sliding", "every": 2},
        {"background_us": 2000},
        {"policy": "tumbling", "background_us": None, "refractory_us": 500},
    ]
    for number, words in enumerate(changes, 1):
        until(lambda number=number: session.channels[0].belt.taken > 2500 * number)
        session.act({"set": words})
    sender.join()
    for index in range(2):
        until(lambda index=index: session.channels[index].belt.taken == sent[0].events)
    session.stop()
    assert session.error is None
    for index, channel in enumerate(session.channels):
        assert channel.stream.totals.steps > 0
        assert accounted(session, index) == sent[0].events


def test_a_model_that_is_too_slow_loses_events_which_are_counted(
    digit: Path, session_of: Make, until: Until
) -> None:
    session = session_of("udp://127.0.0.1:0", options={"largest_queue": 500})
    channel = session.channels[0]
    turns = threading.Event()
    run = channel.model._runner.step_sparse

    def slow(*inputs: Any) -> Any:
        turns.wait()
        return run(*inputs)

    channel.model._runner.step_sparse = slow  # type: ignore[method-assign]
    session.start()
    assert session.source is not None
    sent = replay([digit], session.source.address, speed=20.0)
    until(lambda: channel.belt.lost > 0 or session.source.losses)
    turns.set()
    until(session.ended.is_set)
    assert accounted(session) == sent.events


def test_a_live_source_is_not_wound(session_of: Make) -> None:
    session = session_of("udp://127.0.0.1:0")
    session.start()
    for do in ("play", "pause", "step", "seek", "speed"):
        with pytest.raises(UsageError, match="live source"):
            session.act({"do": do, "to": 1})
