"""When scores are an answer: `none`, early answers, holding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpsl_runtime.errors import UsageError
from mpsl_runtime.run.answers import AnswerRule, Hold, margin


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_margin_is_the_lead_over_the_second() -> None:
    assert margin(scores(1, 5, 3)) == 2
    assert margin(scores(4, 4)) == 0
    assert margin(scores(3)) == 3


def test_a_window_without_events_is_none_whatever_its_scores_say() -> None:
    assert AnswerRule().decide(scores(0, 9), 0) is None
    assert AnswerRule().decide(scores(0, 9), 1) == 1


def test_a_low_score_or_a_small_margin_is_none() -> None:
    rule = AnswerRule(least_score=2, least_margin=3)
    assert rule.decide(scores(2, 0), 10) is None, "not above the limit"
    assert rule.decide(scores(5, 3), 10) is None, "a margin of 2"
    assert rule.decide(scores(6, 3), 10) == 0


def test_ties_go_to_the_lowest_class() -> None:
    assert AnswerRule().decide(scores(1, 4, 4), 1) == 1


def test_an_early_answer_needs_its_margin_and_all_limits() -> None:
    rule = AnswerRule(least_events=5, early_margin=2)
    assert not rule.decides_early(scores(3, 2), 10)
    assert not rule.decides_early(scores(4, 2), 4)
    assert rule.decides_early(scores(4, 2), 5)
    assert not AnswerRule().decides_early(scores(9, 0), 10)


def test_a_class_is_held_for_its_time_and_again_from_when_it_comes_again() -> None:
    hold = Hold(100)
    assert hold.filter(3, 0) == 3
    assert hold.filter(4, 50) == 3
    assert hold.filter(3, 80) == 3
    assert hold.filter(None, 170) == 3
    assert hold.filter(None, 180) is None
    assert hold.filter(4, 181) == 4


def test_none_is_not_held() -> None:
    hold = Hold(100)
    assert hold.filter(None, 0) is None
    assert hold.filter(2, 1) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_events": -1},
        {"early_margin": -1.0},
        {"early_margin": math.nan},
        {"hold_us": -5},
        {"least_score": math.nan},
        {"least_margin": math.inf},
    ],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        AnswerRule(**wrong)  # type: ignore[arg-type]
