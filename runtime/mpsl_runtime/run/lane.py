"""A network, from the beginning of a window to its answer: what every policy is made of."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.steps import Recording, StepInput
from mpsl_runtime.kept import Kept
from mpsl_runtime.model import readout as read_out
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.run.answers import NONE, AnswerRule
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.window import Window

__all__ = ["Lane", "Runner"]


class Runner(Protocol):
    """What `engine.Engine` and `reference.Reference` have in common."""

    @property
    def membrane(self) -> NDArray[np.float32]:
        """U of the last population [K]."""

    @property
    def synops(self) -> int:
        """Synaptic operations since the reset."""

    @property
    def fired(self) -> tuple[int, ...]:
        """How many neurons of each of `plan.spiking` fired in the last step."""

    def reset(self) -> None:
        """Back to the state at rest."""

    def step_sparse(
        self, address: NDArray[np.int32], value: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One step; returns the last population's spikes [K]."""

    def run(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resets, then T steps [T, C, H, W] -> [T, K]."""

    def state(self) -> bytes:
        """What `restore` goes on from."""

    def restore(self, state: bytes) -> None:
        """Goes on where `state` was taken; DataError where that cannot be."""

    def fork(self) -> Runner:
        """Another one of the same network, at rest, which shares its weights."""


class Lane:
    """Runs a network over windows, one after another.

    Attributes:
        steps: of the window so far. events: in the last T of them.
        answered: the window has been answered before its end.

    Args:
        runner: the network. readout: `count` or `membrane`; steps: T.
        class_names: in the order of the scores.
    """

    def __init__(
        self, runner: Runner, readout: Readout, steps: int, class_names: tuple[str, ...]
    ) -> None:
        self._runner, self._names = runner, class_names
        self._rule = AnswerRule()
        self._length = steps
        self._window = Window(readout, steps)
        self._events: deque[int] = deque(maxlen=steps)
        self._synops, self._running = 0, False
        self._begin_us = 0
        self._last: Step | None = None
        self.steps = self.events = 0
        self.answered = False

    @property
    def synops(self) -> int:
        """Synaptic operations of all its windows."""
        return self._synops + (int(self._runner.synops) if self._running else 0)

    @property
    def is_full(self) -> bool:
        """The window has its T steps."""
        return self.steps >= self._length

    def begin(self, rule: AnswerRule) -> None:
        """Begins a window at rest. rule: when its scores are an answer."""
        self._rule = rule
        self._synops = self.synops
        self._runner.reset()
        self._running = True
        self._window.clear()
        self._events.clear()
        self._last = None
        self.steps = self.events = 0
        self.answered = False

    def kept(self) -> dict[str, Any]:
        """All that its next steps depend on, for `mpsl_runtime.kept`."""
        last = self._last
        return {
            "network": self._runner.state() if self._running else None,
            "window": self._window.kept(),
            "events": list(self._events),
            "synops": self._synops,
            "begin_us": self._begin_us,
            "steps": self.steps,
            "answered": self.answered,
            "last": None if last is None else _kept(last),
        }

    def restore(self, kept: Kept, rule: AnswerRule) -> None:
        """Goes on where `kept` was taken. rule: as for `begin`.

        Raises:
            DataError: it is the state of another network, or cannot be.
        """
        self._rule = rule
        self._running = kept.is_there("network")
        if self._running:
            self._runner.restore(kept.blob("network"))
        self._window.restore(kept.inner("window"), len(self._names))
        events = kept.integers("events")
        self._events = deque(events, maxlen=self._length)
        self.events = sum(self._events)
        self._synops = kept.integer("synops")
        self._begin_us = kept.integer("begin_us", -(1 << 62))
        self.steps, self.answered = kept.integer("steps"), kept.boolean("answered")
        self._last = _step(kept.inner("last"), self._names) if kept.is_there("last") else None

    def advance(self, item: StepInput, file: str, target: int | None = None) -> Step:
        """One time step: its input goes through the network, and what leads comes out.

        Args:
            item: the input. file: its recording; target: the true class where known.
        """
        start = time.perf_counter_ns()
        spikes = np.asarray(self._runner.step_sparse(item.address, item.value), np.float32)
        spikes = spikes.reshape(-1).copy()
        scores = self._window.push(spikes, self._runner)
        if self._last is None:
            self._begin_us = item.t_us
        self.events += item.events - (self._events[0] if len(self._events) == self._length else 0)
        self._events.append(item.events)
        self.steps += 1
        label = self._rule.decide(scores, self.events)
        confidence = read_out.confidence(self._window.readout, scores)
        self._last = Step(
            file=file,
            t_us=item.t_us,
            step=item.step,
            spikes=spikes,
            scores=scores,
            label=label,
            confidence=0.0 if label is None else confidence,
            events=item.events,
            dropped=item.dropped,
            compute_us=(time.perf_counter_ns() - start) / 1000 + item.binning_us,
            class_name=NONE if label is None else self._names[label],
            target=target,
            fired=self._runner.fired,
            given=item,
        )
        return self._last

    def skip(self) -> None:
        """Lets a step of an answered window pass."""
        self.steps += 1

    def ends_early(self) -> bool:
        """True when the window is answered before its end; it is so marked."""
        last = self._last
        if last is None or self.is_full or not self._rule.decides_early(last.scores, self.events):
            return False
        self.answered = True
        return True

    def predict(self, recording: Recording, step_us: int) -> Prediction:
        """The answer of the window as it stands, after at least one step."""
        last = self._last
        if last is None:
            raise RuntimeError("a window is answered after its first step")
        steps_kept = len(self._events)
        end_us = last.t_us + step_us
        return Prediction(
            file=recording.file,
            label=last.label,
            target=recording.target,
            scores=last.scores,
            confidence=last.confidence,
            begin_us=max(self._begin_us, end_us - steps_kept * step_us),
            t_us=end_us,
            step=last.step,
            events=self.events,
            class_name=last.class_name,
            trial=recording.trial,
        )


def _kept(step: Step) -> dict[str, Any]:
    """What `Lane` asks of its last step."""
    names = ("t_us", "step", "spikes", "scores", "label", "confidence")
    return {name: getattr(step, name) for name in names}


def _step(kept: Kept, names: tuple[str, ...]) -> Step:
    label = kept.integer("label", 0, len(names) - 1) if kept.is_there("label") else None
    return Step(
        file="",
        t_us=kept.integer("t_us", -(1 << 62)),
        step=kept.integer("step"),
        spikes=kept.array("spikes", np.float32, (len(names),)),
        scores=kept.array("scores", np.float32, (len(names),)),
        label=label,
        confidence=kept.number("confidence"),
        events=0,
        dropped=0,
        compute_us=0.0,
        class_name=NONE if label is None else names[label],
    )
