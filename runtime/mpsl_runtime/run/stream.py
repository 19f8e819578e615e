"""The stream loop: events in, one decision a step out.

A **trial** is a recording cut to one sample (an N-MNIST .bin, any labelled recording): exactly
steps 0 … T−1, missing steps are empty, later events are counted as truncated. A **stream** (a
camera file, a live source) goes on. What happens to the state is the policy:

- `tumbling`, the training protocol: the state is reset every T steps. A trial is one window and
  gives one prediction; a stream is window after window, one prediction each, the last one filled
  up with empty steps.
- `continuous`: the state runs on and the scores are those of the last T steps; a trial is run to
  its last event like a stream. One prediction a recording, after its last step.

The state is reset between recordings under both. Time advances by the source's clock alone (the
next event, a time stamp without events, the end), never by the clock on the wall: the same events
give the same decisions, live or from a file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.steps import Policy, Recording, Rest, StepInput, cut
from mpsl_runtime.model import readout as read_out
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.run.window import Window

__all__ = ["Prediction", "Runner", "Step", "Stream", "Summary", "advance"]

# Percentiles are over the last so many steps: 8 MB, however long a camera runs.
_LATENCIES_KEPT = 1_000_000


class Runner(Protocol):
    """What `engine.Engine` and `reference.Reference` have in common."""

    @property
    def membrane(self) -> NDArray[np.float32]:
        """U of the last population [K]."""

    @property
    def synops(self) -> int:
        """Synaptic operations since the reset."""

    def reset(self) -> None:
        """Back to the state at rest."""

    def step_sparse(
        self, address: NDArray[np.int32], value: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One step; returns the last population's spikes [K]."""

    def run(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resets, then T steps [T, C, H, W] -> [T, K]."""


@dataclass(frozen=True, eq=False)
class Step:
    """The decision after one time step.

    Attributes:
        file: the recording; step: its number there, from 0.
        t_us: the source's time at the beginning of the step.
        spikes: of the output neurons in this step, float32 [K].
        scores: of the classes over the window, float32 [K].
        label: class with the highest score; confidence: see `mpsl_runtime.model.readout`.
        events: events in this step; dropped: events lost since the step before.
        compute_us: time spent on binning, network and read-out of this step.
        target: the true class of the recording, where known; not in the output of a step.
    """

    file: str
    t_us: int
    step: int
    spikes: NDArray[np.float32]
    scores: NDArray[np.float32]
    label: int
    confidence: float
    events: int
    dropped: int
    compute_us: float
    target: int | None = None

    def to_mapping(self) -> dict[str, Any]:
        """A line of `mpsl run --json`."""
        return {
            "file": self.file,
            "t_us": self.t_us,
            "step": self.step,
            "scores": self.scores.tolist(),
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "events": self.events,
            "dropped": self.dropped,
            "compute_us": round(self.compute_us, 1),
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """The decision over a whole window.

    Attributes:
        file, label, scores: as in `Step`; target: the true class where known.
    """

    file: str
    label: int
    target: int | None
    scores: NDArray[np.float32]

    def to_mapping(self) -> dict[str, Any]:
        """A line of `mpsl run --json`."""
        return {
            "prediction": {
                "file": self.file,
                "label": self.label,
                "target": self.target,
                "scores": self.scores.tolist(),
            }
        }


@dataclass(frozen=True)
class Summary:
    """What a stream has done so far.

    Attributes:
        steps, events: that were processed; dropped: events lost on the way (queue or network);
        truncated: events after the last step of a trial.
        events_per_s: per second of computing.
        latency_us: p50, p95, p99 and max of `Step.compute_us` (of the last million steps).
        real_time_factor: recorded time / computing time; above 1 is faster than the camera.
        synops: synaptic operations (a spike times its outgoing weights).
        samples: predictions; accuracy: among those with a target, None without any.
    """

    steps: int
    events: int
    events_per_s: float
    latency_us: dict[str, float]
    real_time_factor: float
    synops: int
    dropped: int
    truncated: int
    samples: int
    accuracy: float | None

    def to_mapping(self) -> dict[str, Any]:
        """The last line of `mpsl run --json`."""
        return {"summary": dict(self.__dict__)}


def advance(
    runner: Runner, window: Window, item: StepInput, file: str, target: int | None = None
) -> Step:
    """One time step: its input goes through the network, and what is decided comes out.

    Args:
        runner: the network; its state moves on by one step.
        window: takes in the step's output.
        item: the input. file: its recording; target: the true class where known.
    """
    start = time.perf_counter_ns()
    spikes = np.asarray(runner.step_sparse(item.address, item.value), np.float32)
    spikes = spikes.reshape(-1).copy()
    scores = window.push(spikes, runner)
    return Step(
        file=file,
        t_us=item.t_us,
        step=item.step,
        spikes=spikes,
        scores=scores,
        label=int(read_out.label(scores)),
        confidence=read_out.confidence(window.readout, scores),
        events=item.events,
        dropped=item.dropped,
        compute_us=(time.perf_counter_ns() - start) / 1000 + item.binning_us,
        target=target,
    )


class Stream:
    """Runs recordings through a network, step by step; iterate over it once.

    Yields a `Step` after each time step and a `Prediction` after each window (see the module);
    `summary` may be read at any time.

    Args:
        runner: the network.
        binning: its binning rule; `binning.steps` is T.
        readout: `count` or `membrane`.
        recordings: taken one after another.
        policy: `tumbling` or `continuous`.

    Raises:
        UsageError: the policy does not exist. While iterating, DataError as in `steps.cut`.
    """

    def __init__(
        self,
        runner: Runner,
        binning: Binning,
        readout: Readout,
        recordings: Iterable[Recording],
        policy: str = "tumbling",
    ) -> None:
        if policy == "sliding":
            raise UsageError(
                "policy 'sliding' is not supported yet", expected="tumbling or continuous"
            )
        if policy not in get_args(Policy):
            raise UsageError("unknown policy", got=repr(policy), expected="tumbling or continuous")
        self._runner, self._binning = runner, binning
        self._recordings: Iterable[Recording] = recordings
        self._policy: Policy = "continuous" if policy == "continuous" else "tumbling"
        self._window = Window(readout, binning.steps)
        self._latency_us: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._steps = self._events = self._dropped = self._truncated = 0
        self._synops, self._synops_running = 0, False
        self._compute_us = 0.0
        self._samples = self._targets = self._right = 0
        self._items = self._run()

    def __iter__(self) -> Iterator[Step | Prediction]:
        return self

    def __next__(self) -> Step | Prediction:
        return next(self._items)

    def close(self) -> None:
        """Ends the stream early; a live source is let go."""
        self._items.close()

    def _reset(self) -> None:
        if self._synops_running:
            self._synops += int(self._runner.synops)
        self._runner.reset()
        self._window.clear()
        self._synops_running = True

    def _run(self) -> Generator[Step | Prediction, None, None]:
        for recording in self._recordings:
            self._reset()
            step: Step | None = None
            in_window = 0
            for item in cut(recording, self._binning, self._policy):
                if isinstance(item, Rest):
                    self._truncated += item.truncated
                    self._dropped += item.dropped
                    break
                if self._policy == "tumbling" and in_window == self._binning.steps:
                    self._reset()
                    in_window = 0
                step = self._advance(recording, item)
                in_window += 1
                yield step
                if self._policy == "tumbling" and in_window == self._binning.steps:
                    yield self._predict(recording, step)
            if step is not None and self._policy == "continuous":
                yield self._predict(recording, step)

    def _advance(self, recording: Recording, item: StepInput) -> Step:
        step = advance(self._runner, self._window, item, recording.file, recording.target)
        self._latency_us.append(step.compute_us)
        self._compute_us += step.compute_us
        self._steps += 1
        self._events += step.events
        self._dropped += step.dropped
        return step

    def _predict(self, recording: Recording, step: Step) -> Prediction:
        self._samples += 1
        if recording.target is not None:
            self._targets += 1
            self._right += step.label == recording.target
        return Prediction(recording.file, step.label, recording.target, step.scores)

    @property
    def summary(self) -> Summary:
        """Totals so far."""
        seconds = self._compute_us / 1e6
        latency = np.array(self._latency_us) if self._latency_us else np.zeros(1)
        percentiles = np.percentile(latency, (50, 95, 99, 100)).round(1).tolist()
        recorded_s = self._steps * self._binning.step_us / 1e6
        running = int(self._runner.synops) if self._synops_running else 0
        return Summary(
            steps=self._steps,
            events=self._events,
            events_per_s=round(self._events / seconds, 1) if seconds else 0.0,
            latency_us=dict(zip(("p50", "p95", "p99", "max"), percentiles, strict=True)),
            real_time_factor=round(recorded_s / seconds, 2) if seconds else 0.0,
            synops=self._synops + running,
            dropped=self._dropped,
            truncated=self._truncated,
            samples=self._samples,
            accuracy=self._right / self._targets if self._targets else None,
        )
