"""When a model should answer in a stream: limits chosen on held-out recordings and on noise.

What is chosen, from windows that begin with a recording and from windows of noise alone:

| limit | rule |
|---|---|
| onset | between the busiest span of noise and that of the quietest recordings |
| least_events | the same for the events of a window |
| least_score, least_margin | the lowest that let at most the wanted share of noise windows answer |
| early_margin | the lowest that costs at most half a point of the recordings |

A limit that would silence more than half a point of the recordings that are right is not raised
further; the report says what is reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.bench.staged_stream import StagedStream, Staging
from mpsl_runtime.bench.stream_run import Labelled
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.model.metadata import STREAM_LIMITS
from mpsl_runtime.run.decisions import Step
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.policies import Policy

__all__ = ["Calibration", "calibrate"]

_SPAN_US = 10_000
_NOISE_WINDOWS = 200
_POINTS = 0.005  # what a limit may cost, as a share of the recordings


@dataclass(frozen=True)
class Calibration:
    """Limits of a model, and what they do on the recordings they were chosen on.

    Attributes:
        onset, least_events, least_score, least_margin, early_margin: for `ModelMetadata`.
        recordings: held out; accuracy: of their whole windows; early_accuracy: with early answers.
        early_steps: steps of a window that is answered early, in the mean.
        answered: share of the recordings that get an answer under the limits.
        noise_windows: of noise alone; noise_answered: share of them with an answer.
    """

    onset: str
    least_events: int
    least_score: float
    least_margin: float
    early_margin: float
    recordings: int
    accuracy: float
    early_accuracy: float
    early_steps: float
    answered: float
    noise_windows: int
    noise_answered: float

    def limits(self) -> dict[str, Any]:
        """What goes into the model's metadata."""
        return {name: getattr(self, name) for name in STREAM_LIMITS}


@dataclass(frozen=True, eq=False)
class _Windows:
    """Windows run from rest: scores [N, T, K], events in each [N], in the busiest span [N]."""

    scores: NDArray[np.float32]
    events: NDArray[np.int64]
    busiest: NDArray[np.int64]


def calibrate(
    model: Model, samples: Labelled, *, noise_hz: float, noise_answers: float, seed: int
) -> Calibration:
    """Chooses the limits.

    Args:
        model: of events. samples: recordings that it did not learn from.
        noise_hz: background events a second and pixel that it will meet.
        noise_answers: wanted share of noise windows with an answer, such as 0.01.
        seed: of the noise.

    Raises:
        DataError: no recordings.
    """
    if not len(samples.labels):
        raise DataError("no recordings to calibrate on")
    labels = np.array(samples.labels)
    staging = Staging(pause_ms=(0, 0), noise_hz=noise_hz, seed=seed)
    shown = _run(model, [_staged(model, samples, i, staging) for i in range(len(labels))])
    noise = _run(model, _noise(model, staging))
    onset = max(1, _between(noise.busiest, shown.busiest))
    least_events = max(1, _between(noise.events, shown.events))
    right = shown.scores[:, -1].argmax(axis=1) == labels
    kept = (noise.events >= least_events).nonzero()[0]
    least_score, least_margin = _score_limits(
        shown.scores[right, -1], noise.scores[kept, -1], noise_answers * len(noise.events)
    )
    early, early_right, early_steps = _early(shown.scores, labels, right.mean() - _POINTS)
    return Calibration(
        onset=f"{onset}/{_SPAN_US // 1000}",
        least_events=least_events,
        least_score=least_score,
        least_margin=least_margin,
        early_margin=early,
        recordings=len(labels),
        accuracy=float(right.mean()),
        early_accuracy=early_right,
        early_steps=early_steps,
        answered=float(
            (
                _answers(shown.scores[:, -1], least_score, least_margin)
                & (shown.events >= least_events)
            ).mean()
        ),
        noise_windows=len(noise.events),
        noise_answered=float(
            (
                _answers(noise.scores[:, -1], least_score, least_margin)
                & (noise.events >= least_events)
            ).mean()
        ),
    )


def _staged(model: Model, samples: Labelled, index: int, staging: Staging) -> Events:
    """One recording in noise, from its first event on."""
    one = Staging(staging.pause_ms, staging.noise_hz, staging.seed + index, staging.chunk_us)
    staged = StagedStream(1, lambda _: samples.events(index), [0], model.binning.sensor_size, one)
    return _joined([chunk.events for chunk in staged.recording("").chunks])


def _noise(model: Model, staging: Staging) -> list[Events]:
    """Windows of noise alone."""
    length_ms = model.binning.steps * model.binning.step_us / 1000
    silence = Staging((length_ms, length_ms), staging.noise_hz, staging.seed)
    found = []
    for index in range(_NOISE_WINDOWS):
        one = Staging(silence.pause_ms, silence.noise_hz, silence.seed + index)
        staged = StagedStream(0, lambda _: Events.empty(), [], model.binning.sensor_size, one)
        found.append(_joined([chunk.events for chunk in staged.recording("").chunks]))
    return found


def _joined(pieces: list[Events]) -> Events:
    return Events.from_columns(
        *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in "txyp")
    )


def _run(model: Model, recordings: list[Events]) -> _Windows:
    steps = model.binning.steps
    length_us = steps * model.binning.step_us
    scores, number, busiest = [], [], []
    for events in recordings:
        inside = events.slice(0, int(np.searchsorted(events.t, length_us)))
        items = model.stream(inside, Policy("tumbling"))
        scores.append([item.scores for item in items if isinstance(item, Step)])
        number.append(len(inside))
        after = np.searchsorted(inside.t, inside.t + _SPAN_US)
        busiest.append(int((after - np.arange(len(inside))).max(initial=0)))
    return _Windows(np.array(scores, np.float32), np.array(number), np.array(busiest))


def _between(noise: NDArray[np.int64], shown: NDArray[np.int64]) -> int:
    """A count above all noise and below nearly all recordings; above the noise where they meet."""
    low = float(noise.max(initial=0)) + 1
    high = float(np.quantile(shown, _POINTS))
    return round(math.sqrt(low * high)) if high > low else round(low)


def _margins(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if scores.shape[-1] < 2:
        return scores[..., 0]
    ordered = np.partition(scores, -2, axis=-1)
    margins: NDArray[np.float32] = ordered[..., -1] - ordered[..., -2]
    return margins


def _answers(scores: NDArray[np.float32], least: float, margin: float) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (scores.max(axis=-1) > least) & (_margins(scores) >= margin)
    return found


def _score_limits(
    right: NDArray[np.float32], noise: NDArray[np.float32], most: float
) -> tuple[float, float]:
    """(least_score, least_margin): the lowest that let at most `most` noise windows answer.

    First the score is raised, then the margin, neither beyond what half a point of the right
    recordings has.
    """
    least, margin = 0.0, 0.0
    if not len(noise) or not len(right):
        return least, margin
    highest = float(np.quantile(right.max(axis=-1), _POINTS))
    for value in sorted({0.0, *noise.max(axis=-1).tolist()}):
        if value >= highest:
            break
        least = max(value, 0.0)
        if _answers(noise, least, 0.0).sum() <= most:
            return least, margin
    largest = float(np.quantile(_margins(right), _POINTS))
    for value in sorted(set(_margins(noise).tolist())):
        if value >= largest:
            break
        margin = float(np.nextafter(np.float32(value), np.float32(np.inf)))
        if _answers(noise, least, margin).sum() <= most:
            break
    return least, margin


def _early(
    scores: NDArray[np.float32], labels: NDArray[np.int64], least: float
) -> tuple[float, float, float]:
    """(margin, accuracy, mean steps) of the lowest margin with at least this accuracy."""
    margins = _margins(scores)  # [N, T]
    steps = scores.shape[1]
    candidates = [value for value in sorted(set(margins.ravel().tolist())) if value > 0]
    if len(candidates) > 200:
        candidates = np.quantile(candidates, np.linspace(0, 1, 200)).tolist()
    for margin in [*candidates, math.inf]:
        reached = margins >= margin
        stop = np.where(reached.any(axis=1), reached.argmax(axis=1), steps - 1)
        chosen = scores[np.arange(len(scores)), stop]
        accuracy = float((chosen.argmax(axis=1) == labels).mean())
        if accuracy >= least and margin < math.inf:
            return float(margin), accuracy, float(stop.mean() + 1)
    return 0.0, accuracy, float(steps)
