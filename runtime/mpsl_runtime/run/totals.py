"""What a stream has done so far, added up item by item."""

from __future__ import annotations

from collections import deque

import numpy as np

from mpsl_runtime.run.decisions import Prediction, Step, Summary

__all__ = ["Totals"]

# Percentiles are over the last so many steps: 8 MB, however long a camera runs.
_LATENCIES_KEPT = 1_000_000


class Totals:
    """Takes in steps and predictions as they are given out.

    Attributes:
        dropped, truncated, idle: events, see `Summary`; steps that are not run add to them by hand.
    """

    def __init__(self) -> None:
        self.dropped = self.truncated = self.idle = 0
        self._latency_us: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._compute_us = 0.0
        self._steps = self._events = 0
        self._samples = self._none = self._targets = self._right = 0

    def step(self, step: Step) -> None:
        """A step was run."""
        self._latency_us.append(step.compute_us)
        self._compute_us += step.compute_us
        self._steps += 1
        self._events += step.events
        self.dropped += step.dropped

    def prediction(self, prediction: Prediction) -> None:
        """A window was answered."""
        self._samples += 1
        self._none += prediction.label is None
        if prediction.target is not None:
            self._targets += 1
            self._right += prediction.label == prediction.target

    def summary(self, *, synops: int, step_us: int | None, idle: int = 0) -> Summary:
        """The totals.

        Args:
            synops: synaptic operations of all steps. step_us: real time that a step stands for;
                None where time has no unit. idle: events more than `idle`.
        """
        seconds = self._compute_us / 1e6
        latency = np.array(self._latency_us) if self._latency_us else np.zeros(1)
        percentiles = np.percentile(latency, (50, 95, 99, 100)).round(1).tolist()
        recorded_s = None if step_us is None else self._steps * step_us / 1e6
        factor = None if recorded_s is None else round(recorded_s / seconds, 2) if seconds else 0.0
        return Summary(
            steps=self._steps,
            events=self._events,
            events_per_s=round(self._events / seconds, 1) if seconds else 0.0,
            latency_us=dict(zip(("p50", "p95", "p99", "max"), percentiles, strict=True)),
            real_time_factor=factor,
            synops=synops,
            dropped=self.dropped,
            truncated=self.truncated,
            idle=self.idle + idle,
            samples=self._samples,
            none=self._none,
            accuracy=self._right / self._targets if self._targets else None,
        )
