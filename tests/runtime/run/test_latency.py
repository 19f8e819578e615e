"""The histogram of latencies: percentiles within 1 %, bounds exact, memory constant."""

from __future__ import annotations

import numpy as np
import pytest

from mpsl_runtime.run.latency import LatencyHistogram


def filled(times_us: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for time_us in times_us:
        histogram.add(time_us)
    return histogram


def test_percentiles_are_those_of_all_times_within_one_percent() -> None:
    times_us = (10 ** np.random.default_rng(0).uniform(0, 6, 20_001)).tolist()
    histogram = filled(times_us)
    for share in (0.01, 0.5, 0.95, 0.99, 0.999):
        exact = float(np.percentile(times_us, 100 * share))
        assert histogram.percentile(share) == pytest.approx(exact, rel=0.011)
    assert histogram.percentile(1) == histogram.max_us == max(times_us)
    assert histogram.count == len(times_us)
    assert histogram.sum_us == pytest.approx(sum(times_us))


@pytest.mark.parametrize("bound", [0.1, 1.0, 2.5, 10.0, 25.0, 99.9, 250.0, 2500.0, 1e5, 2.5e6])
def test_a_time_just_under_a_bound_is_below_it_and_one_at_the_bound_is_not(bound: float) -> None:
    histogram = filled([bound * 0.9999, bound, bound * 1.0001])
    assert histogram.below(bound) == (1 if bound > 0.1 else 0)


def test_times_that_no_step_takes_fall_into_the_outer_bins() -> None:
    histogram = filled([0.0, -1.0, 1e12])
    assert histogram.count == 3
    assert histogram.below(1.0) == 2
    assert histogram.percentile(0.5) < 1
    assert LatencyHistogram().percentile(0.99) == 0
