"""A source and its models without a page: what is played, what is answered, what may be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import load, read_events
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.view.session import Session

Make = Callable[..., Session]
Until = Callable[..., Any]


def as_csv(source: Path, target: Path, *, times: int = 1) -> Path:
    """The same events as a stream of a camera, which begins with its first event; again and again
    every 400 ms."""
    e = read_events(source)
    rows = np.concatenate(
        [np.stack([e.t + 400_000 * i, e.x, e.y, e.p], axis=1) for i in range(times)]
    )
    np.savetxt(target, rows, fmt="%d", delimiter=",", header="t,x,y,p", comments="")
    return target


def windows_of(session: Session) -> list[tuple[int, int, int]]:
    """(begin, end, label) of the windows that the first model has answered."""
    rows = session.channels[0].trace.since(0, 1000)["windows"]
    return [(begin, end, label) for _, begin, end, label in rows]


def left_out(session: Session) -> dict[str, int]:
    """Events that filters have taken from the first model."""
    feed = session.channels[0].stream.feed
    assert feed is not None
    return dict(feed.taken)


@pytest.mark.parametrize("policy", ["tumbling", "onset", "continuous"])
def test_the_answers_are_those_of_run(
    digit: Path, tmp_path: Path, session_of: Make, policy: str
) -> None:
    stream = as_csv(digit, tmp_path / "digit.csv", times=3)
    items = list(load("dvs-digits").stream(stream, policy))
    expected = [
        (item.begin_us, item.t_us, -1 if item.label is None else item.label)
        for item in items
        if isinstance(item, Prediction)
    ]
    session = session_of(stream, policy=Policy.of(policy), speed=64.0, once=True)
    session.start()
    session.ended.wait()
    assert session.error is None
    assert windows_of(session) == expected
    steps = session.channels[0].trace.since(0, 1000)["rows"]
    scores = [item.scores.round(4).tolist() for item in items if isinstance(item, Step)]
    assert [row[3] for row in steps] == [pytest.approx(each, abs=1e-4) for each in scores]


def test_a_file_waits_for_somebody_who_watches_and_stays_at_its_end(
    digit: Path, session_of: Make, until: Until
) -> None:
    session = session_of(digit, speed=16.0)
    session.start()
    player = session.player
    assert player is not None
    until(lambda: player.playing.file)
    assert player.clock.is_paused
    assert player.playing.position_us == 0
    session.watched()
    until(lambda: player.playing.is_over)
    assert until(lambda: windows_of(session)) == [(0, 320_000, 3)]
    assert not session.ended.is_set()
    session.act({"do": "play"})  # from the end: from the beginning
    until(lambda: session.channels[0].stream.totals.answers["3"] == 2)


def test_steps_forward_and_back_show_the_same_as_playing(
    digit: Path, session_of: Make, until: Until
) -> None:
    scores = [
        item.scores.tolist() for item in load("dvs-digits").stream(digit) if isinstance(item, Step)
    ]
    session = session_of(digit)
    session.start()
    trace = session.channels[0].trace

    def at(number: int) -> bool:
        step = trace.answer.step
        return step is not None and step.step == number

    for number in range(3):
        session.act({"do": "step"})
        until(lambda number=number: at(number))
    for do, to, number in (("back", None, 1), ("seek", 280_000, 6), ("seek", 40_000, 0)):
        session.act({"do": do, "to": to})
        until(lambda number=number: at(number))
        step = trace.answer.step
        assert step is not None
        assert step.scores.tolist() == scores[number]
    assert session.channels[0].stream.totals.answers == {}


def test_filters_and_policy_act_while_it_runs(
    digit: Path, tmp_path: Path, session_of: Make, until: Until
) -> None:
    session = session_of(as_csv(digit, tmp_path / "digit.csv", times=3), speed=64.0)
    session.start()
    session.watched()
    player = session.player
    assert player is not None
    until(lambda: player.playing.is_over)
    assert left_out(session) == {}
    session.act({"set": {"background_us": 1000, "refractory_us": 5000, "merge": True}})
    until(lambda: {"background", "refractory"} <= set(left_out(session)))
    until(lambda: player.playing.is_over)
    session.act({"set": {"policy": "sliding", "every": 4}})
    session.act({"do": "play"})
    until(lambda: 4 * 40_000 in np.diff([begin for begin, _, _ in windows_of(session)]))


@pytest.mark.parametrize(
    "words",
    [
        {"set": {"policy": "best"}},
        {"set": {"every": 0}},
        {"set": {"policy": "sliding", "every": 99}},
        {"set": {"hold_ms": float("nan")}},
        {"set": {"hot_pixels": "/etc/passwd"}},
        {"set": {"background_us": 1.5}},
        {"set": {"background_us": True}},
        {"set": {"fade_ms": -1}},
        {"set": {"__class__": 1}},
        {"do": "explode"},
        {"do": "seek", "to": "0"},
        {"do": "seek", "to": 1e300},
        {"do": "speed", "to": None},
        {"do": None},
        {},
    ],
)
def test_what_cannot_be_meant_changes_nothing(
    digit: Path, session_of: Make, words: dict[str, Any]
) -> None:
    session = session_of(digit)
    session.start()
    before = session.settings
    with pytest.raises(UsageError):
        session.act(words)
    assert session.settings == before


def test_several_models_see_one_stream(digit: Path, session_of: Make) -> None:
    session = session_of(digit, "dvs-digits", "nmnist8-small", speed=64.0, once=True)
    session.start()
    session.ended.wait()
    found = [list(channel.stream.totals.answers) for channel in session.channels]
    assert found == [["3"], ["3"]]
    events = [channel.stream.totals.events for channel in session.channels]
    assert events[0] == events[1] == 3928


def test_a_recording_of_another_sensor_ends_it_with_one_line(
    recordings_folder: Path, session_of: Make
) -> None:
    session = session_of(recordings_folder / "gesture.es", once=True)
    session.start()
    session.ended.wait()
    assert isinstance(session.error, DataError)
    assert "--fit" in str(session.error)
