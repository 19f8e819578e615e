"""Cutting a stream into windows that begin where something begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.run.onset import Background, Onset, OnsetCounts, Windows


def events_at(times: object) -> Events:
    t = np.sort(np.asarray(times, np.int64))
    zero = np.zeros(len(t), np.int64)
    return Events.from_columns(t, zero, zero, zero)


def burst(start_us: int, number: int = 100, length_us: int = 50_000) -> np.ndarray:
    return start_us + np.linspace(0, length_us, number, endpoint=False).astype(np.int64)


def stream(events: Events, size: int) -> Recording:
    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(events), size):
            yield Chunk(events.slice(start, start + size))

    return Recording("stream", chunks(), None, trial=False)


def taken(recording: Recording, onset: Onset, length_us: int) -> tuple[list[np.ndarray], int]:
    """The times in every window, and the number of idle events."""
    counts = OnsetCounts()
    found = []
    for window in Windows(recording, onset, length_us, counts):
        assert window.trial
        times = [chunk.events.t for chunk in window.chunks]
        found.append(np.concatenate([[window.origin_us], *times]).astype(np.int64))
    assert counts.windows == len(found)
    return found, counts.idle


FIXED = Onset(20, 20_000, automatic=False)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_each_burst_is_one_window_that_begins_with_its_first_event(size: int) -> None:
    noise = np.arange(0, 3_000_000, 11_000)
    starts = [500_000, 1_300_000, 2_000_000]
    events = events_at(np.concatenate([noise, *(burst(s) for s in starts)]))
    found, idle = taken(stream(events, size), FIXED, 100_000)
    assert len(found) == 3
    for window, start in zip(found, starts, strict=True):
        assert abs(int(window[0]) - start) <= 20_000, "a noise event may stand just before it"
        assert window[-1] < window[0] + 100_000
        assert len(window) - 1 >= 100
    assert idle + sum(len(window) - 1 for window in found) == len(events)


def test_nothing_begins_in_silence_or_noise() -> None:
    found, idle = taken(stream(events_at(np.arange(0, 10_000_000, 5_000)), 50), FIXED, 100_000)
    assert found == []
    assert idle == 2000
    assert taken(stream(events_at([]), 5), FIXED, 1000) == ([], 0)


def test_what_goes_on_gives_window_after_window() -> None:
    events = events_at(np.arange(0, 1_000_000, 100))
    found, idle = taken(stream(events, 333), FIXED, 100_000)
    assert len(found) == 10
    assert idle == 0
    assert [int(window[0]) for window in found] == list(range(0, 1_000_000, 100_000))


def test_a_window_that_is_left_early_is_skipped_and_counted() -> None:
    events = events_at(np.concatenate([burst(0), burst(200_000)]))
    counts = OnsetCounts()
    first_chunks = []
    for window in Windows(stream(events, 30), FIXED, 100_000, counts):
        first_chunks.append(next(iter(window.chunks)))
    assert counts.windows == 2
    assert counts.idle + sum(len(chunk.events) for chunk in first_chunks) == len(events)


def test_time_that_passes_without_events_ends_a_window() -> None:
    events = events_at(burst(0))

    def chunks() -> Iterator[Chunk]:
        yield Chunk(events)
        yield Chunk(Events.empty(), reached_us=99_999)
        yield Chunk(Events.empty(), reached_us=100_000)
        pytest.fail("the window was over")

    window = next(
        iter(Windows(Recording("s", chunks(), None, False), FIXED, 100_000, OnsetCounts()))
    )
    assert [chunk.reached_us for chunk in window.chunks][-1] == 100_000


def test_lost_events_are_told_once() -> None:
    events = events_at(burst(0))
    pieces = [
        Chunk(Events.empty(), dropped=3),
        Chunk(events.slice(0, 40), dropped=4),
        Chunk(events.slice(40, 100), dropped=5),
    ]
    window = next(
        iter(Windows(Recording("s", pieces, None, False), FIXED, 10_000_000, OnsetCounts()))
    )
    assert sum(chunk.dropped for chunk in window.chunks) == 12


def test_the_threshold_rises_with_the_background_and_not_below_the_least() -> None:
    background = Background(Onset())
    assert background.threshold == 30
    background.learn(np.full(100, 4))
    assert background.threshold == 30
    background.learn(np.full(64, 100))
    assert background.threshold == 160
    fixed = Background(FIXED)
    fixed.learn(np.full(64, 1000))
    assert fixed.threshold == 20


def test_noise_of_many_pixels_is_learned_while_it_grows() -> None:
    """At a rate that rises slowly, `auto` follows and nothing begins; a jump begins a window."""
    rng = np.random.default_rng(0)
    rates = np.linspace(0, 200, 2000)  # events in 10 ms
    times = [
        i * 10_000 + rng.integers(0, 10_000, rng.poisson(rate)) for i, rate in enumerate(rates)
    ]
    calm = np.concatenate(times)
    jump = 20_000_000 + rng.integers(0, 50_000, 5000)
    found, _ = taken(stream(events_at(np.concatenate([calm, jump])), 500), Onset(), 320_000)
    assert len(found) == 1
    assert int(found[0][0]) >= 19_980_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400_000), max_size=300), st.integers(1, 40), st.integers(1, 90_000))
def test_windows_do_not_depend_on_how_the_events_arrive(
    times: list[int], size: int, length_us: int
) -> None:
    events = events_at(times)
    whole, idle = taken(stream(events, 1000), FIXED, length_us)
    parts, idle_parts = taken(stream(events, size), FIXED, length_us)
    assert idle == idle_parts
    assert [w.tolist() for w in whole] == [w.tolist() for w in parts]


@pytest.mark.parametrize(
    "text", ["", "30", "30/", "/10", "0/10", "30/0", "30/nan", "x/10", "3/1e9"]
)
def test_an_onset_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an onset"):
        Onset.parse(text)


def test_an_onset_is_read_and_written() -> None:
    assert Onset.parse("30/10") == Onset(30, 10_000, automatic=False)
    assert str(Onset.parse("30/2.5")) == "30/2.5"
    assert Onset.parse("auto").automatic
    assert str(Onset()) == "auto"
