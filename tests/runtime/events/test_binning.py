"""Binning, held against a loop over events that does what the sentence in DESIGN says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.binning import Binning, frames, sparse_steps
from mpsl_runtime.events.events import Events


@st.composite
def cases(draw: st.DrawFn) -> tuple[Events, Binning]:
    width, height = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 5_000),
                st.integers(0, width - 1),
                st.integers(0, height - 1),
                st.integers(0, 1),
            ),
            max_size=60,
        )
    )
    crop = None
    if draw(st.booleans()):
        left, top = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        crop = (
            left,
            top,
            draw(st.integers(2, width - left)),
            draw(st.integers(2, height - top)),
        )
    binning = Binning(
        sensor_width=width,
        sensor_height=height,
        step_us=draw(st.integers(1, 1_500)),
        steps=draw(st.integers(1, 6)),
        coding=draw(st.sampled_from(["count", "binary"])),
        origin=draw(st.sampled_from(["zero", "first"])),
        downsample=draw(st.integers(1, 2)),
        crop=crop,
    )
    return Events.from_columns(*np.array(sorted(rows), np.int64).reshape(-1, 4).T), binning


def by_hand(events: Events, binning: Binning) -> tuple[np.ndarray, int]:
    dense = np.zeros((binning.steps, *binning.shape), np.float32)
    truncated = 0
    left, top, _, _ = binning.window
    t0 = int(events.t[0]) if binning.origin == "first" and len(events) else 0
    for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True):
        column, row = (int(x) - left) // binning.downsample, (int(y) - top) // binning.downsample
        if not (0 <= column < dense.shape[3] and 0 <= row < dense.shape[2]):
            continue
        step = (int(t) - t0) // binning.step_us
        if step >= binning.steps:
            truncated += 1
        elif binning.coding == "count":
            dense[step, p, row, column] += 1
        else:
            dense[step, p, row, column] = 1
    return dense, truncated


@settings(max_examples=150, deadline=None)
@given(cases())
def test_frames_and_sparse_steps_are_what_a_loop_over_events_gives(
    case: tuple[Events, Binning],
) -> None:
    events, binning = case
    dense, truncated = by_hand(events, binning)
    assert np.array_equal(frames(events, binning), dense)
    sparse = sparse_steps(events, binning)
    assert sparse.truncated == truncated
    rebuilt = np.zeros((binning.steps, dense[0].size), np.float32)
    for step in range(binning.steps):
        part = slice(sparse.offsets[step], sparse.offsets[step + 1])
        assert np.all(np.diff(sparse.address[part]) > 0)
        rebuilt[step, sparse.address[part]] = sparse.value[part]
    assert np.array_equal(rebuilt.reshape(dense.shape), dense)


def test_an_event_outside_the_sensor_is_refused() -> None:
    binning = Binning(sensor_width=4, sensor_height=4, step_us=10, steps=2)
    with pytest.raises(DataError, match="event 1 lies outside the sensor; got x=4 y=0"):
        frames(Events.from_columns([0, 1], [3, 4], [0, 0], [0, 1]), binning)


def test_an_event_before_time_zero_is_refused() -> None:
    binning = Binning(sensor_width=4, sensor_height=4, step_us=10, steps=2)
    with pytest.raises(DataError, match="before the start of the sample"):
        frames(Events.from_columns([-1], [0], [0], [0]), binning)


@pytest.mark.parametrize("change", [{"steps": 0}, {"step_us": 0}, {"crop": (2, 0, 3, 4)}])
def test_a_binning_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    values: dict[str, object] = {
        "sensor_width": 4,
        "sensor_height": 4,
        "step_us": 10,
        "steps": 2,
        **change,
    }
    with pytest.raises(UsageError):
        Binning(**values)  # type: ignore[arg-type]
