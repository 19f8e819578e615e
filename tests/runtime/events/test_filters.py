"""Filters: what each takes, held to a slow reading of its rule, in pieces of any size."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime import Events
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.filters import FilterOptions, Filters, read_hot_pixels

SIZE = (6, 5)


def some_events(seed: int, number: int = 200, last_us: int = 3000) -> Events:
    rng = np.random.default_rng(seed)
    return Events.from_columns(
        np.sort(rng.integers(0, last_us + 1, number)),
        rng.integers(0, SIZE[0], number),
        rng.integers(0, SIZE[1], number),
        rng.integers(0, 2, number),
    )


def slow_background(events: Events, window_us: int) -> list[int]:
    kept = []
    for i in range(len(events)):
        x, y, t = int(events.x[i]), int(events.y[i]), int(events.t[i])
        for j in range(i):
            near = max(abs(int(events.x[j]) - x), abs(int(events.y[j]) - y)) == 1
            if near and t - int(events.t[j]) <= window_us:
                kept.append(i)
                break
    return kept


def slow_refractory(events: Events, refractory_us: int) -> list[int]:
    kept: list[int] = []
    last: dict[tuple[int, int], int] = {}
    for i in range(len(events)):
        pixel, t = (int(events.x[i]), int(events.y[i])), int(events.t[i])
        if pixel not in last or t - last[pixel] >= refractory_us:
            kept.append(i)
            last[pixel] = t
    return kept


def in_pieces(filters: Filters, events: Events, cuts: list[int]) -> list[int]:
    """The times of the events that pass; each event has a time of its own."""
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    passed: list[int] = []
    for a, b in pairwise(edges):
        passed += filters.apply(events.slice(a, b)).t.tolist()
    return passed


CUTS = st.lists(st.integers(0, 200), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), CUTS)
def test_background_and_refractory_keep_what_their_rule_says(
    seed: int, time_us: int, cuts: list[int]
) -> None:
    events = some_events(seed)
    t = np.arange(len(events)) * 7  # each its own, to tell them apart
    events = Events(t, events.x, events.y, events.p)
    for options, wanted in (
        (FilterOptions(background_us=time_us), slow_background(events, time_us)),
        (FilterOptions(refractory_us=time_us), slow_refractory(events, time_us)),
    ):
        filters = Filters(options, SIZE)
        assert in_pieces(filters, events, cuts) == [7 * i for i in wanted]
        assert filters.taken.total() == len(events) - len(wanted)


def test_one_filter_after_the_other() -> None:
    events = some_events(3)
    both = Filters(FilterOptions(background_us=90, refractory_us=50), SIZE)
    first = Filters(FilterOptions(refractory_us=50), SIZE)
    second = Filters(FilterOptions(background_us=90), SIZE)
    assert both.apply(events).t.tolist() == second.apply(first.apply(events)).t.tolist()
    assert dict(both.taken) == dict(first.taken + second.taken)


def hot_recording() -> Events:
    """Noise of 20 Hz on every pixel for 2 s, and one pixel that fires at 500 Hz from 0.6 s on until
    1.4 s."""
    rng = np.random.default_rng(0)
    noise = rng.random((1200, 3))
    hot = np.arange(600_000, 1_400_000, 2000)
    t = np.concatenate([(noise[:, 0] * 2_000_000).astype(np.int64), hot])
    x = np.concatenate([(noise[:, 1] * SIZE[0]).astype(np.int64), np.full(len(hot), 2)])
    y = np.concatenate([(noise[:, 2] * SIZE[1]).astype(np.int64), np.full(len(hot), 3)])
    place = np.argsort(t, kind="stable")
    return Events.from_columns(t[place], x[place], y[place], np.ones(len(t), np.int64))


@settings(max_examples=20, deadline=None)
@given(CUTS)
def test_a_hot_pixel_is_found_left_out_and_let_go_again(cuts: list[int]) -> None:
    events = hot_recording()
    filters = Filters(FilterOptions(hot_pixels="auto"), SIZE)
    edges = [0, *sorted(min(8 * cut, len(events)) for cut in cuts), len(events)]
    passed = [filters.apply(events.slice(a, b)) for a, b in pairwise(edges)]
    t = np.concatenate([e.t for e in passed])
    pixel = np.concatenate([(e.x == 2) & (e.y == 3) for e in passed])
    begin = int(events.t[0])
    learned, let_go = begin + 1_000_000, begin + 2_000_000
    of_hot = t[pixel]
    assert ((of_hot >= 600_000) & (of_hot < learned)).sum() > 150  # not known yet
    assert not ((of_hot >= learned) & (of_hot < min(let_go, 1_500_000))).any()
    assert filters.taken["hot pixels"] == len(events) - len(t)
    others = (events.x != 2) | (events.y != 3)
    assert (~pixel).sum() == others.sum()  # nobody else is taken


def test_listed_pixels_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "hot.txt").write_text("# hot\n2,3\n0 0\n\n5,4  # corner\n")
    events = some_events(1)
    filters = Filters(FilterOptions(hot_pixels=tmp_path / "hot.txt"), SIZE)
    passed = filters.apply(events)
    listed = {(2, 3), (0, 0), (5, 4)}
    wanted = sum((int(x), int(y)) not in listed for x, y in zip(events.x, events.y, strict=True))
    assert len(passed) == wanted
    assert filters.taken["hot pixels"] == len(events) - wanted > 0


@pytest.mark.parametrize(
    "content", ["a,b\n", "1\n", "6,0\n", "0,5\n", "1,2,3\n", "9" * 50 + ",0\n"]
)
def test_a_list_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "hot.txt").write_text(content)
    with pytest.raises(DataError, match="line 1 is no pixel"):
        read_hot_pixels(tmp_path / "hot.txt", SIZE)


def test_a_list_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_hot_pixels(tmp_path / "none.txt", SIZE)


@pytest.mark.parametrize("wrong", [{"background_us": 0}, {"refractory_us": -3}])
def test_times_that_are_none_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        FilterOptions(**wrong)
