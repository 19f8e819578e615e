"""What comes out of a stream: a step's scores, a window's answer, and the totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.steps import StepInput

__all__ = ["Prediction", "Step", "Summary"]


@dataclass(frozen=True, eq=False)
class Step:
    """The state of the decision after one time step.

    Attributes:
        file: the recording; step: its number in the recording or window, from 0.
        t_us: the source's time at the beginning of the step.
        spikes: of the output neurons in this step, float32 [K].
        scores: of the classes over the window so far, float32 [K].
        label: the class that leads; None is `none`, see `run.answers`.
        confidence: see `mpsl_runtime.model.readout`; 0 for `none`.
        events: events in this step; dropped: events lost since the step before.
        compute_us: time spent on binning, network and read-out of this step.
        class_name: of the label, or "none".
        target: the true class of the recording, where known; given: what the network was given.
        fired: how many neurons of each spiking layer fired in this step, in the order of
            `Plan.spiking`. None of these three is in the output of a step.
    """

    file: str
    t_us: int
    step: int
    spikes: NDArray[np.float32]
    scores: NDArray[np.float32]
    label: int | None
    confidence: float
    events: int
    dropped: int
    compute_us: float
    class_name: str
    target: int | None = None
    fired: tuple[int, ...] = ()
    given: StepInput | None = None

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
    """The answer of a window.

    Attributes:
        file, label, confidence, scores, class_name: as in `Step`.
        target: the true class where known.
        begin_us: when the window began; t_us: when it was answered, the end of its last step.
        step: the last step's number. events: that the window held.
        trial: the recording is one sample, not a stream.
    """

    file: str
    label: int | None
    target: int | None
    scores: NDArray[np.float32]
    confidence: float
    begin_us: int
    t_us: int
    step: int
    events: int
    class_name: str
    trial: bool

    def to_mapping(self) -> dict[str, Any]:
        """A line of `mpsl run --json`."""
        return {
            "prediction": {
                "file": self.file,
                "t_us": self.t_us,
                "begin_us": self.begin_us,
                "step": self.step,
                "label": self.label,
                "class": self.class_name,
                "confidence": round(self.confidence, 6),
                "target": self.target,
                "events": self.events,
                "scores": self.scores.tolist(),
            }
        }


@dataclass(frozen=True)
class Summary:
    """What a stream has done so far.

    Attributes:
        steps, events: that were processed; dropped: events lost on the way (queue or network);
        truncated: events after the last step of a trial.
        idle: events that no window needed: between windows, or after an early answer.
        events_per_s: per second of computing.
        latency_us: p50, p95 and p99 of `Step.compute_us`, within 1 %, and its maximum.
        real_time_factor: recorded time / computing time; above 1 is faster than the camera; None
            for images, where time has no unit.
        synops: synaptic operations (a spike times its outgoing weights).
        samples: predictions; none: of them without a class.
        accuracy: among those with a target, None without any.
        lost: events that did not come through, by cause; left_out: events that filters and the
        view have taken, by name. resynchronised: how often a live source began anew.
    """

    steps: int
    events: int
    events_per_s: float
    latency_us: dict[str, float]
    real_time_factor: float | None
    synops: int
    dropped: int
    truncated: int
    idle: int
    samples: int
    none: int
    accuracy: float | None
    lost: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    resynchronised: int = 0

    def to_mapping(self) -> dict[str, Any]:
        """The last line of `mpsl run --json`."""
        return {"summary": dict(self.__dict__)}
