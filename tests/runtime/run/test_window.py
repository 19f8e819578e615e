"""Scores over the last T steps: equal to a sum made anew, at the same cost for any T."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.binning import LONGEST_SAMPLE_STEPS, Binning
from mpsl_runtime.run.window import Window

REST = SimpleNamespace(membrane=np.zeros(3, np.float32))


def scores(window: Window, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array([window.push(step, REST) for step in outputs])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 200])
def test_scores_are_the_spikes_of_the_last_steps(steps: int) -> None:
    spikes = (np.random.default_rng(steps).random((120, 3)) < 0.4).astype(np.float32)
    expected = [spikes[max(0, t + 1 - steps) : t + 1].sum(axis=0) for t in range(len(spikes))]
    found = scores(Window("count", steps), spikes)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_window_that_is_cleared_begins_anew() -> None:
    window, spikes = Window("count", 4), np.ones((9, 3), np.float32)
    first = scores(window, spikes)
    window.clear()
    np.testing.assert_array_equal(scores(window, spikes), first)
    assert first[:, 0].tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4]


def test_what_is_not_finite_leaves_with_its_step() -> None:
    outputs = np.full((8, 2), 0.1, np.float32)
    outputs[2] = np.nan, np.inf
    found = scores(Window("count", 3), outputs)
    assert not np.isfinite(found[2:5]).any()
    np.testing.assert_allclose(found[5:], np.full((3, 2), 0.3), rtol=1e-6)


def test_membrane_scores_are_those_of_the_last_step_alone() -> None:
    runner = SimpleNamespace(membrane=np.array([[0.5, -1.0, 2.0]], np.float32))
    found = Window("membrane", 5).push(np.ones(3, np.float32), runner)
    assert found.tolist() == [0.5, -1.0, 2.0]


def test_a_step_costs_the_same_in_a_long_window() -> None:
    window, one = Window("count", LONGEST_SAMPLE_STEPS // 2), np.ones(3, np.float32)
    begin = time.process_time()
    for _ in range(LONGEST_SAMPLE_STEPS):
        last = window.push(one, REST)
    assert last.tolist() == [LONGEST_SAMPLE_STEPS // 2] * 3
    # 0.3 s; summed anew at each step it would be minutes.
    assert time.process_time() - begin < 10


def test_a_sample_of_ever_so_many_steps_is_refused() -> None:
    Binning(4, 4, 1000, LONGEST_SAMPLE_STEPS)
    with pytest.raises(UsageError, match=r"steps; got 100001; expected 1 … 100000"):
        Binning(4, 4, 1000, LONGEST_SAMPLE_STEPS + 1)
