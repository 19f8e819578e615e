"""Policies of a stream: each window equals the same window run from rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.events.binning import frames
from mpsl_runtime.events.events import Events
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.onset import Onset
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.policies import Policy, calibrated
from mpsl_runtime.run.stream import Stream
from mpsl_runtime.verbs.policy import policy_of

ZOO = Path(__file__).resolve().parents[3] / "models"


@pytest.fixture(scope="module")
def digits() -> Model:
    return load(ZOO / "nmnist8-small" / "model.nir")


def bursts(model: Model, starts_us: list[int], seed: int = 0) -> Events:
    """A bright spot that moves for 200 ms at each of the times, and nothing between."""
    random = np.random.default_rng(seed)
    t = np.concatenate([start + np.sort(random.integers(0, 200_000, 1500)) for start in starts_us])
    width, height = model.binning.sensor_size
    x = (width // 4 + (t // 10_000) % (width // 2) + random.integers(0, 3, len(t))).clip(
        0, width - 1
    )
    y = (height // 2 + random.integers(-6, 7, len(t))).clip(0, height - 1)
    return Events.from_columns(t, x, y, random.integers(0, 2, len(t)))


def pieces(events: Events, size: int = 97) -> list[Events]:
    return [events.slice(i, i + size) for i in range(0, len(events), size)]


def run(model: Model, events: Events, policy: Policy) -> tuple[list[Prediction], Stream]:
    stream = model.stream(pieces(events), policy)
    return [item for item in stream if isinstance(item, Prediction)], stream


def from_rest(model: Model, events: Events, begin_us: int) -> np.ndarray:
    """Scores of a window that begins at a time, by frames."""
    binning = model.binning
    inside = (events.t >= begin_us) & (events.t < begin_us + binning.steps * binning.step_us)
    part = Events.from_columns(
        events.t[inside] - begin_us, events.x[inside], events.y[inside], events.p[inside]
    )
    return model.run(frames(part, binning)).scores


def test_an_onset_gives_one_answer_a_burst_and_the_scores_of_its_window(digits: Model) -> None:
    events = bursts(digits, [1_000_000, 2_000_000, 3_500_000])
    found, stream = run(digits, events, Policy("onset"))
    assert [p.begin_us // 100_000 for p in found] == [10, 20, 35]
    for prediction in found:
        assert np.array_equal(prediction.scores, from_rest(digits, events, prediction.begin_us))
        length = digits.binning.steps * digits.binning.step_us
        assert prediction.t_us == prediction.begin_us + length
        assert not prediction.trial
    assert stream.summary.events + stream.summary.idle == len(events)
    assert stream.summary.samples == 3


@pytest.mark.parametrize("every", [1, 3, 8])
def test_sliding_windows_are_windows_from_rest(digits: Model, every: int) -> None:
    events = bursts(digits, [0, 600_000])
    found, stream = run(digits, events, Policy("sliding", every=every))
    step_us, steps = digits.binning.step_us, digits.binning.steps
    assert len(found) >= 2
    origin = int(events.t[0])
    for index, prediction in enumerate(found):
        assert prediction.begin_us == origin + index * every * step_us
        assert np.array_equal(prediction.scores, from_rest(digits, events, prediction.begin_us))
    assert stream.summary.events == len(events)
    assert stream.summary.steps >= steps


def test_a_window_that_sees_nothing_answers_none(digits: Model) -> None:
    events = bursts(digits, [0, 2_000_000])
    found, stream = run(digits, events, Policy("tumbling"))
    silent = [p for p in found if p.events == 0]
    assert len(silent) > 3
    assert all(p.label is None and p.class_name == "none" and p.confidence == 0 for p in silent)
    assert stream.summary.none >= len(silent)
    assert any(p.label is not None for p in found)


def test_no_event_at_all_is_one_none(digits: Model) -> None:
    stream = digits.stream([Events.empty()], Policy("onset"))
    found = [item for item in stream if isinstance(item, Prediction)]
    assert [p.label for p in found] == [None]
    assert stream.summary.samples == stream.summary.none == 1
    trial = [p for p in digits.stream(Events.empty()) if isinstance(p, Prediction)]
    assert [p.class_name for p in trial] == ["none"]


def test_an_early_answer_is_that_of_its_step_and_the_rest_is_not_run(digits: Model) -> None:
    events = bursts(digits, [0, 1_000_000])
    late, whole = run(digits, events, Policy("onset"))
    rule = AnswerRule(early_margin=1.0)
    early, stream = run(digits, events, Policy("onset", rule=rule))
    assert len(early) == len(late)
    assert stream.summary.steps < whole.summary.steps
    assert stream.summary.synops < whole.summary.synops
    assert stream.summary.events + stream.summary.idle == len(events)
    for a, b in zip(early, late, strict=True):
        assert a.begin_us == b.begin_us
        assert a.t_us <= b.t_us
        if a.step < digits.binning.steps - 1:
            ordered = np.sort(a.scores)
            assert ordered[-1] - ordered[-2] >= 1


def test_sliding_with_early_answers_loses_no_event(digits: Model) -> None:
    events = bursts(digits, [0, 600_000])
    policy = Policy("sliding", every=8, rule=AnswerRule(early_margin=1.0))
    _, stream = run(digits, events, policy)
    assert stream.summary.events + stream.summary.idle == len(events)


def test_how_a_stream_arrives_changes_nothing(digits: Model) -> None:
    events = bursts(digits, [0, 700_000, 1_500_000])
    for policy in (Policy("onset"), Policy("sliding", every=2), Policy("tumbling")):
        one = [p for p in digits.stream([events], policy) if isinstance(p, Prediction)]
        many, _ = run(digits, events, policy)
        assert [p.to_mapping() for p in one] == [p.to_mapping() for p in many]


def test_the_default_is_onset_for_streams_and_one_window_for_trials(digits: Model) -> None:
    events = bursts(digits, [0])
    trial = list(digits.stream(events))
    assert isinstance(trial[-1], Prediction)
    assert trial[-1].trial
    assert sum(isinstance(item, Step) for item in trial) == digits.binning.steps
    stream = [p for p in digits.stream([events]) if isinstance(p, Prediction)]
    assert len(stream) == 1
    assert not stream[0].trial


def test_a_held_class_stays(digits: Model) -> None:
    events = bursts(digits, [0])
    plain, _ = run(digits, events, Policy("sliding", every=1))
    held, _ = run(digits, events, Policy("sliding", every=1, rule=AnswerRule(hold_us=10_000_000)))
    first = next(p.label for p in plain if p.label is not None)
    seen = [p.label for p in held]
    assert set(seen[seen.index(first) :]) == {first}


def test_settings_that_do_not_fit_are_refused(digits: Model) -> None:
    with pytest.raises(UsageError, match="windows cannot begin so often"):
        digits.stream([Events.empty()], Policy("sliding", every=9))
    with pytest.raises(UsageError, match="unknown policy"):
        digits.stream([Events.empty()], "hopping")


def test_what_calibration_left_in_a_model_is_the_default(digits: Model) -> None:
    assert digits.metadata is not None
    values = digits.metadata.to_mapping()
    limits = {"onset": "40/20", "least_events": 25, "least_score": 2.0, "least_margin": 1.0}
    metadata = ModelMetadata.from_mapping({**values, **limits, "early_margin": 3.0}, "here")
    assert ModelMetadata.from_mapping(metadata.to_mapping(), "here") == metadata
    policy = calibrated(metadata)
    assert policy.onset == Onset(40, 20_000, automatic=False)
    assert policy.rule == AnswerRule(least_events=25, least_score=2.0, least_margin=1.0)
    chosen = policy_of("onset", metadata, early_margin="auto", least_events=3, onset="auto")
    assert chosen.rule.early_margin == 3.0
    assert chosen.rule.least_events == 3
    assert chosen.onset.automatic
    for wrong in (
        {"onset": "40"},
        {"least_events": -1},
        {"least_score": float("nan")},
        {"early_margin": float("inf")},
    ):
        with pytest.raises(ModelError, match="metadata"):
            ModelMetadata.from_mapping({**values, **wrong}, "here")


@pytest.mark.parametrize("word", ["-1", "nan", "x", "auto", "1e99"])
def test_an_early_margin_that_cannot_be_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        policy_of("onset", None, early_margin=word)


def test_three_digits_with_pauses_get_three_answers(digits: Model, shared_data: Path) -> None:
    case = shared_data.parent / "cases" / "events" / "three_digits_with_pauses.es"
    if not case.is_file():
        pytest.skip("no shared/cases")
    truth = json.loads(case.with_suffix("").with_suffix(".truth.json").read_text())
    found = [p for p in digits.stream(case) if isinstance(p, Prediction) and p.label is not None]
    assert [digits.class_names[p.label or 0] for p in found] == [str(t["label"]) for t in truth]


def test_the_reference_follows_every_policy_as_the_engine_does(
    digits: Model, tmp_path: Path
) -> None:
    shutil.copy(ZOO / "nmnist8-small" / "model.nir", tmp_path)
    slow = load(tmp_path / "model.nir", engine="reference")
    events = bursts(digits, [0])
    for policy in (Policy("onset"), Policy("sliding", every=4)):
        a, _ = run(digits, events, policy)
        b, _ = run(slow, events, policy)
        assert [p.label for p in a] == [p.label for p in b]
