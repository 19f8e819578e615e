"""What a stream has done so far, added up item by item."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from mpsl_runtime.errors import DataError
from mpsl_runtime.kept import Kept
from mpsl_runtime.run.decisions import Prediction, Step, Summary
from mpsl_runtime.run.latency import LatencyHistogram
from mpsl_runtime.run.onset import OnsetCounts

__all__ = ["Totals"]

_RECENT_STEPS = 100
_NUMBERS = (
    *("dropped", "truncated", "idle", "steps", "events", "synops"),
    *("_samples", "_none", "_targets", "_right"),
)


class Totals:
    """Takes in steps and predictions as they are given out. Another thread may read it meanwhile.

    Attributes:
        dropped, truncated, idle: events, see `Summary`; steps that are not run add to them by hand,
        and `onsets` those that it counts itself.
        synops: synaptic operations, set by hand.
        steps: that were run; events: in them.
        latency: of `Step.compute_us`.
        answers: windows answered, by the name of the class or `none`.
        fired: spikes of each spiking layer, over all steps.
        last_us: the stream's time at the beginning of the last step; None before the first.
        last_s: when it was run, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.dropped = self.truncated = self.idle = 0
        self.steps = self.events = self.synops = 0
        self.onsets = OnsetCounts()
        self.latency = LatencyHistogram()
        self.answers: Counter[str] = Counter()
        self.fired: tuple[int, ...] = ()
        self.last_us: int | None = None
        self.last_s: float | None = None
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_RECENT_STEPS)
        self._samples = self._none = self._targets = self._right = 0

    def step(self, step: Step) -> None:
        """A step was run."""
        self.latency.add(step.compute_us)
        self.steps += 1
        self.events += step.events
        self.dropped += step.dropped
        self.last_us, self.last_s = step.t_us, time.monotonic()
        self._recent.append(step.fired)
        before = self.fired or (0,) * len(step.fired)
        self.fired = tuple(a + b for a, b in zip(before, step.fired, strict=True))

    def prediction(self, prediction: Prediction) -> None:
        """A window was answered."""
        self.answers[prediction.class_name] += 1
        self._samples += 1
        self._none += prediction.label is None
        if prediction.target is not None:
            self._targets += 1
            self._right += prediction.label == prediction.target

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        return {name: getattr(self, name) for name in _NUMBERS} | {
            "latency": self.latency.kept(),
            "answers": dict(self.answers),
            "fired": list(self.fired),
            "last_us": self.last_us,
            "onsets": dict(self.onsets.__dict__),
        }

    def restore(self, kept: Kept, layers: int) -> None:
        """Goes on where `kept` was taken, of a network with so many spiking layers; DataError
        where that cannot be."""
        for name in _NUMBERS:
            setattr(self, name, kept.integer(name))
        self.latency.restore(kept.inner("latency"))
        self.answers = kept.counter("answers")
        fired = tuple(kept.integers("fired"))
        if len(fired) not in (0, layers):
            raise DataError("state is damaged", got=f"{len(fired)} layers", where=kept.where)
        self.fired = fired
        self.last_us = kept.integer("last_us", -(1 << 62)) if kept.is_there("last_us") else None
        onsets = kept.inner("onsets")
        self.onsets.idle, self.onsets.windows = onsets.integer("idle"), onsets.integer("windows")

    def firing(self, neurons: Sequence[int]) -> list[float]:
        """Of each spiking layer, the share of its neurons that fired in a step, as the mean of the
        last hundred steps; zeros before the first.

        Args:
            neurons: of each layer.
        """
        recent = [fired for fired in self._recent if fired]
        if not recent:
            return [0.0] * len(neurons)
        sums = (sum(layer) for layer in zip(*recent, strict=True))
        return [total / len(recent) / size for total, size in zip(sums, neurons, strict=True)]

    def summary(self, step_us: int | None) -> Summary:
        """The totals.

        Args:
            step_us: real time that a step stands for; None where time has no unit.
        """
        seconds = self.latency.sum_us / 1e6
        percentiles = {
            f"p{share}": round(self.latency.percentile(share / 100), 1) for share in (50, 95, 99)
        }
        recorded_s = None if step_us is None else self.steps * step_us / 1e6
        factor = None if recorded_s is None else round(recorded_s / seconds, 2) if seconds else 0.0
        return Summary(
            steps=self.steps,
            events=self.events,
            events_per_s=round(self.events / seconds, 1) if seconds else 0.0,
            latency_us={**percentiles, "max": round(self.latency.max_us, 1)},
            real_time_factor=factor,
            synops=self.synops,
            dropped=self.dropped,
            truncated=self.truncated,
            idle=self.idle + self.onsets.idle,
            samples=self._samples,
            none=self._none,
            accuracy=self._right / self._targets if self._targets else None,
        )
