"""Staged streams, the judgement of answers on them, and the limits that calibration chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.bench.calibration import calibrate
from mpsl_runtime.bench.staged_stream import Shown, StagedStream, Staging
from mpsl_runtime.bench.stream_evaluation import Answer, judge, table
from mpsl_runtime.bench.stream_run import Labelled, evaluate
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.policies import Policy

ZOO = Path(__file__).resolve().parents[3] / "models"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def digits() -> Model:
    return load(ZOO / "nmnist8-small" / "model.nir")


def recording(label: int, seed: int = 0) -> Events:
    """A bright column that moves, at a place of its class."""
    random = np.random.default_rng([label, seed])
    t = np.sort(random.integers(5_000, 300_000, 3000))
    x = (4 + 3 * label + random.integers(0, 3, 3000)).clip(0, 33)
    y = random.integers(4, 30, 3000)
    return Events.from_columns(t, x, y, random.integers(0, 2, 3000))


SAMPLES = Labelled(lambda i: recording(i % 8, i), [i % 8 for i in range(24)])


def staged(staging: Staging, count: int = 6) -> tuple[StagedStream, Events]:
    stream = StagedStream(count, SAMPLES.events, SAMPLES.labels, (34, 34), staging)
    parts = [chunk.events for chunk in stream.recording("s").chunks]
    return stream, Events.from_columns(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in "txyp")
    )


def test_a_staged_stream_holds_every_recording_once_and_says_when() -> None:
    stream, events = staged(Staging(noise_hz=0))
    assert len(events) == 6 * 3000 == stream.events
    assert sorted(shown.label for shown in stream.shown) == [0, 1, 2, 3, 4, 5]
    for shown in stream.shown:
        inside = events.t[(events.t >= shown.start_us) & (events.t < shown.end_us)]
        assert len(inside) == 3000
        assert inside[0] == shown.start_us
        assert inside[-1] == shown.end_us - 1
    gaps = [b.start_us - a.end_us for a, b in zip(stream.shown, stream.shown[1:], strict=False)]
    assert min(gaps) >= 200_000
    assert max(gaps) <= 2_000_000


def test_the_same_seed_gives_the_same_stream_and_noise_has_its_rate() -> None:
    a, first = staged(Staging(noise_hz=5, seed=3))
    _, again = staged(Staging(noise_hz=5, seed=3))
    assert np.array_equal(first.t, again.t)
    assert np.array_equal(first.x, again.x)
    _, other = staged(Staging(noise_hz=5, seed=4))
    assert not np.array_equal(first.t, other.t)
    expected = 5 * 34 * 34 * a.end_us / 1e6
    assert abs(len(first) - 6 * 3000 - expected) < 6 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("pauses", "noise"), [((5, 1), 0), ((-1, 1), 0), ((0, 1), -1), ((0, 1), float("nan"))]
)
def test_a_staging_that_cannot_be_is_refused(pauses: tuple[float, float], noise: float) -> None:
    with pytest.raises(UsageError, match="staged"):
        Staging(pauses, noise)


def test_answers_are_judged_by_what_their_window_overlaps() -> None:
    shown = [Shown(3, 1000, 2000), Shown(5, 4000, 5000)]
    answers = [
        Answer(1, 0, 900),  # silence
        Answer(None, 0, 950),
        Answer(2, 800, 1200),  # 200 of the first
        Answer(3, 1200, 1900),  # 700 of it: this one counts
        Answer(3, 1900, 2400),  # 100 of it
        Answer(7, 2500, 3500),  # silence again
        Answer(5, 3900, 5200),  # the whole second
    ]
    verdict = judge("p", answers, shown, synops=10)
    assert (verdict.recordings, verdict.right, verdict.missed) == (2, 2, 0)
    assert (verdict.answers, verdict.answers_right) == (6, 3)
    assert (verdict.false_in_silence, verdict.pauses, verdict.pauses_broken) == (2, 3, 2)
    assert verdict.decision_ms == pytest.approx((0.7, 1.15))  # 0.2 and 1.2 ms
    assert verdict.accuracy == 1
    assert verdict.to_mapping()["silence_broken"] == pytest.approx(2 / 3)
    assert "100.00%" in table([verdict])[1]


def test_a_recording_without_an_answer_is_wrong() -> None:
    verdict = judge("p", [Answer(None, 0, 500)], [Shown(0, 100, 200)], synops=0)
    assert (verdict.right, verdict.missed, verdict.decision_ms) == (0, 1, None)
    assert "–" in table([verdict])[1]


def test_a_window_over_two_recordings_belongs_to_the_one_it_overlaps_more() -> None:
    shown = [Shown(0, 0, 100), Shown(1, 150, 400)]
    verdict = judge("p", [Answer(1, 50, 400)], shown, synops=0)
    assert (verdict.right, verdict.missed) == (1, 1)


def test_onset_gives_each_staged_recording_one_answer(digits: Model) -> None:
    verdict = evaluate(digits, SAMPLES, Policy("onset"), Staging(noise_hz=1))
    assert verdict.recordings == verdict.answers == 24
    assert verdict.false_in_silence == 0
    tumbling = evaluate(digits, SAMPLES, Policy("tumbling"), Staging(noise_hz=1))
    assert tumbling.answers > 24


def test_calibration_keeps_noise_silent_and_recordings_answered(digits: Model) -> None:
    chosen = calibrate(digits, SAMPLES, noise_hz=2, noise_answers=0.01, seed=0)
    assert chosen.recordings == 24
    assert chosen.answered == 1
    assert chosen.noise_answered <= 0.01
    assert chosen.least_events > 2 * 34 * 34 * 0.32, "above the mean of noise"
    assert set(chosen.limits()) == {
        "onset", "least_events", "least_score", "least_margin", "early_margin",
    }  # fmt: skip
    assert chosen.early_steps <= digits.binning.steps
    with pytest.raises(DataError, match="no recordings"):
        calibrate(digits, Labelled(SAMPLES.events, []), noise_hz=1, noise_answers=0, seed=0)


def test_the_verbs_write_limits_and_a_table(mpsl: Run, tmp_path: Path, shared_data: Path) -> None:
    model = tmp_path / "model.nir"
    model.write_bytes((ZOO / "nmnist8-small" / "model.nir").read_bytes())
    before = model.read_bytes()
    out = tmp_path / "calibrated.nir"
    code, text, err = mpsl("calibrate", model, shared_data, "--samples", 40, "--out", out, "--json")
    assert (code, err) == (0, "")
    assert model.read_bytes() == before
    written = load(out).metadata
    assert written is not None
    assert written.least_events == json.loads(text)["least_events"] > 1
    code, text, err = mpsl("stream-eval", out, shared_data, "--samples", 16, "--json")
    assert code == 0
    rows = json.loads(text)["policies"]
    assert [row["policy"].split()[0] for row in rows] == [
        "tumbling", "continuous", "sliding", "onset", "onset",
    ]  # fmt: skip
    assert rows[3]["right"] >= 15
    assert rows[3]["false_in_silence"] == 0


def test_what_cannot_be_evaluated_is_one_line(mpsl: Run, tmp_path: Path) -> None:
    for arguments, fault in (
        (["mnist-small", tmp_path], "model takes"),
        (["nmnist8-small", tmp_path], "is not there"),
        (["nmnist8-small", tmp_path / "no"], "no such data folder"),
        (["nmnist8-small", tmp_path, "--pause-ms", "5"], "not a range of pauses"),
        (["nmnist8-small", tmp_path, "--pause-ms", "9,5"], "staged"),
        (["nmnist8-small", tmp_path, "--policy", "hop"], "unknown policy"),
    ):
        code, out, err = mpsl("stream-eval", *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.count("\n") == 1
        assert fault in err
