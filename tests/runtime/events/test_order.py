"""Events in time order, also where times lie further apart than an int64 holds."""

from __future__ import annotations

import numpy as np
import pytest

from mpsl_runtime.events.order import Columns, Order

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def columns(*times: int) -> Columns:
    zero = np.zeros(len(times), np.uint16)
    return np.array(times, np.int64), zero, zero, np.zeros(len(times), np.uint8)


@pytest.mark.parametrize("window_us", [None, 0])
def test_a_fall_of_more_than_an_int64_is_late(window_us: int | None) -> None:
    order = Order(window_us)
    order.take(columns(LAST - 5, LAST))
    order.take(columns(FIRST))
    assert (order.seen, order.late, order.sorted) == (3, 1, 0)
    message = str(order.error("a.raw"))
    assert f"1 of 3 events late by up to 1.84467e+16 ms, the first is event 2: {FIRST}" in message


def test_a_fall_of_more_than_an_int64_in_one_piece_is_late_or_sorted() -> None:
    order = Order(None)
    order.take(columns(LAST, FIRST))
    assert order.late == 1
    order = Order(0)
    assert order.take(columns(LAST, FIRST))[0].tolist() == [FIRST, LAST]
    assert (order.late, order.sorted) == (0, 1)


def test_a_window_before_the_first_time_there_is_gives_nothing_yet() -> None:
    order = Order(1_000)
    assert order.take(columns(FIRST + 10))[0].tolist() == []
    assert order.take(columns(FIRST + 2_000))[0].tolist() == [FIRST + 10]
    assert order.flush()[0].tolist() == [FIRST + 2_000]
