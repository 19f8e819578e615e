"""What a model has answered of late, for those who watch: bounded, and read from other threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpsl_runtime.run.decisions import Prediction, Step

__all__ = ["Answer", "Trace"]

_KEPT_STEPS, _KEPT_ANSWERS, _KEPT_LATENCIES = 1024, 64, 2048
_FIRING_STEPS = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """What stands at a moment.

    Attributes:
        step: the last one, None before the first. is_final: its window has been answered.
        label, class_name, confidence: see `Step`; of the window's answer where it is final.
    """

    step: Step | None = None
    is_final: bool = False
    label: int | None = None
    class_name: str = "none"
    confidence: float = 0.0


@dataclass
class Trace:
    """See the module.

    Attributes:
        epoch: counts the recordings that began, and jumps: rows of another epoch are history.
        answer: see `Answer`.
        right, judged: windows with the right answer, among those whose true class is known.
    """

    epoch: int = 0
    answer: Answer = field(default_factory=Answer)
    right: int = 0
    judged: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._is_new = True  # the next step begins a window
        self._rows: deque[list[Any]] = deque(maxlen=_KEPT_STEPS)
        self._windows: deque[list[Any]] = deque(maxlen=_KEPT_ANSWERS)
        self._latencies_s: deque[float] = deque(maxlen=_KEPT_LATENCIES)
        self._fired: deque[tuple[int, ...]] = deque(maxlen=_FIRING_STEPS)

    def begin(self) -> None:
        """A recording begins, or the same one from another place."""
        with self._lock:
            self.epoch += 1
            self._rows.clear()
            self._windows.clear()
            self._fired.clear()
            self._is_new = True
            self.answer = Answer()

    def step(self, step: Step, latency_s: float) -> None:
        """A step was run, so long after its last event had come."""
        label = -1 if step.label is None else step.label
        with self._lock:
            self._number += 1
            self._rows.append([self._number, step.t_us, label, step.scores, self._is_new])
            self._is_new = False
            self._latencies_s.append(latency_s)
            self._fired.append(step.fired)
            self.answer = Answer(step, False, step.label, step.class_name, step.confidence)

    def prediction(self, item: Prediction) -> None:
        """A window was answered."""
        label = -1 if item.label is None else item.label
        with self._lock:
            self._number += 1
            self._is_new = True
            self._windows.append([self._number, item.begin_us, item.t_us, label])
            if item.target is not None:
                self.judged += 1
                self.right += item.label == item.target
            step = self.answer.step
            self.answer = Answer(step, True, item.label, item.class_name, item.confidence)

    def since(self, number: int, largest: int) -> dict[str, Any]:
        """The rows after a number, at most so many: of steps `[number, t_us, label, scores, whether
        a window begins]`, of windows `[number, begin_us, end_us, label]`; label −1 is `none`."""
        with self._lock:
            rows = [row for row in self._rows if row[0] > number][-largest:]
            windows = [row for row in self._windows if row[0] > number]
            last, epoch = self._number, self.epoch
        steps = [[*row[:3], np.round(row[3], 4).tolist(), int(row[4])] for row in rows]
        return {"epoch": epoch, "last": last, "rows": steps, "windows": windows}

    def firing(self, neurons: Sequence[int]) -> list[float]:
        """Of each spiking layer, the share of its neurons that fired in a step, mean of the last
        eight; neurons: of each layer."""
        with self._lock:
            recent = list(self._fired)
        if not recent:
            return [0.0] * len(neurons)
        sums = (sum(layer) for layer in zip(*recent, strict=True))
        return [total / len(recent) / size for total, size in zip(sums, neurons, strict=True)]

    def latency_ms(self) -> tuple[float, float]:
        """p50 and p99 of the last two thousand steps, in ms."""
        with self._lock:
            latencies = np.array(self._latencies_s)
        if not latencies.size:
            return 0.0, 0.0
        p50, p99 = np.percentile(latencies, (50, 99)) * 1000
        return float(p50), float(p99)
