"""The stream loop: recordings in, a decision a step and an answer a window out.

A **trial** is a recording cut to one sample (an N-MNIST .bin, any labelled recording): exactly
steps 0 … T−1, missing steps are empty, later events are counted as truncated. A **stream** (a
camera file, a live source) goes on; where its windows begin is the policy (`run.policies`).

The state is reset between recordings. Time advances by the source's clock alone (the next event, a
time stamp without events, the end), never by the clock on the wall: the same events give the same
decisions, live or from a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.steps import Recording, Rest, StepInput, cut
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.run.answers import NONE, AnswerRule, Hold
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.lane import Lane, Runner
from mpsl_runtime.run.loop import Items, Loop, OnPrediction, OnStep
from mpsl_runtime.run.onset import Background, windows
from mpsl_runtime.run.policies import Policy

__all__ = ["Stream"]


class Stream(Loop):
    """Runs recordings through a network, step by step; iterate over it once.

    Yields a `Step` after each time step and a `Prediction` for each window; `summary` may be read
    at any time.

    Args:
        runner: the network.
        binning: its binning rule; `binning.steps` is T.
        readout: `count` or `membrane`. class_names: in the order of the scores.
        recordings: taken one after another.
        policy: where windows begin and when they are answered.
        feed: whence the recordings come; `stop` and the summary ask it.
        on_step, on_prediction: called with each of them, before it is yielded.

    Raises:
        UsageError: the policy does not fit. While iterating, DataError as in `steps.cut`.
    """

    def __init__(
        self,
        runner: Runner,
        binning: Binning,
        readout: Readout,
        class_names: tuple[str, ...],
        recordings: Iterable[Recording],
        policy: Policy,
        *,
        feed: Feed | None = None,
        on_step: OnStep | None = None,
        on_prediction: OnPrediction | None = None,
    ) -> None:
        policy.check(binning.steps)
        self._binning, self._policy = binning, policy
        self._class_names = class_names
        self._recordings = recordings
        lanes = -(-binning.steps // policy.every) if policy.name == "sliding" else 1
        runners = [runner, *(runner.fork() for _ in range(lanes - 1))]
        self._lanes = [Lane(each, readout, binning.steps, class_names) for each in runners]
        self._stream_rule = policy.rule.in_stream(readout)
        self._hold = Hold(policy.rule.hold_us)
        super().__init__(on_step, on_prediction, feed=feed, step_us=binning.step_us)

    def stop(self) -> None:
        """Ends it soon, from any thread: a live source is told, and its last window finished;
        anything else ends after the item that is being made."""
        if self.feed is not None and self.feed.source is not None:
            self.feed.stop()
        else:
            super().stop()

    def close(self) -> None:
        """Ends the stream early; a live source is let go."""
        super().close()
        if self.feed is not None:
            self.feed.close()

    def _run(self) -> Items:
        for recording in self._recordings:
            self._hold.reset()
            name = self._policy.in_stream(recording.trial)
            if name == "tumbling":
                rule = self._policy.rule if recording.trial else self._stream_rule
                yield from self._tumbling(recording, rule)
            elif name == "continuous":
                yield from self._continuous(recording)
            elif name == "sliding":
                yield from self._sliding(recording)
            else:
                yield from self._onset(recording)

    def _tumbling(self, recording: Recording, rule: AnswerRule) -> Items:
        lane = self._lanes[0]
        lane.begin(rule)
        for item in self._cut(recording, one_window=True):
            if lane.is_full:
                lane.begin(rule)
            if lane.answered:
                lane.skip()
                self.totals.idle += item.events
                self.totals.dropped += item.dropped
                continue
            yield self._advance([lane], recording, item)
            if lane.is_full or lane.ends_early():
                yield self._answer(lane.predict(recording, self._binning.step_us))

    def _continuous(self, recording: Recording) -> Items:
        lane = self._lanes[0]
        lane.begin(self._policy.rule if recording.trial else self._stream_rule)
        for item in self._cut(recording, one_window=False):
            yield self._advance([lane], recording, item)
        if lane.steps:
            yield self._answer(lane.predict(recording, self._binning.step_us))

    def _sliding(self, recording: Recording) -> Items:
        """Lane i runs the windows i, i + n, i + 2n, …; the oldest window is the one shown."""
        running: deque[Lane] = deque()
        number = 0
        for index, item in enumerate(self._cut(recording, one_window=False)):
            if index % self._policy.every == 0:
                lane = self._lanes[number % len(self._lanes)]
                lane.begin(self._stream_rule)
                running.append(lane)
                number += 1
            if not running:  # all answered early, and no new window yet
                self.totals.idle += item.events
                self.totals.dropped += item.dropped
                continue
            yield self._advance(running, recording, item)
            if running[0].is_full or running[0].ends_early():
                lane = running.popleft()
                yield self._answer(lane.predict(recording, self._binning.step_us))

    def _onset(self, recording: Recording) -> Items:
        length_us = self._binning.steps * self._binning.step_us
        background = Background(self._policy.onset)
        began = self.totals.onsets.windows
        for window in windows(
            recording, self._policy.onset, length_us, self.totals.onsets, background
        ):
            for item in self._tumbling(window, self._stream_rule):
                yield replace(item, trial=False) if isinstance(item, Prediction) else item
        if self.totals.onsets.windows == began:
            yield self._answer(self._nothing(recording))

    def _nothing(self, recording: Recording) -> Prediction:
        """The answer of a recording in which nothing began."""
        scores = np.zeros(len(self._class_names), np.float32)
        return Prediction(
            recording.file, None, recording.target, scores, 0.0, 0, 0, 0, 0, NONE, trial=False
        )

    def _cut(self, recording: Recording, *, one_window: bool) -> Iterator[StepInput]:
        for item in cut(recording, self._binning, "tumbling" if one_window else "continuous"):
            if isinstance(item, Rest):
                self.totals.truncated += item.truncated
                self.totals.dropped += item.dropped
            else:
                yield item

    def _advance(self, lanes: Iterable[Lane], recording: Recording, item: StepInput) -> Step:
        """One time step of every lane; what the first one says."""
        steps = [lane.advance(item, recording.file, recording.target) for lane in lanes]
        compute_us = sum(step.compute_us for step in steps) - item.binning_us * (len(steps) - 1)
        step = replace(steps[0], compute_us=compute_us)
        self.totals.step(step)
        self.totals.synops = sum(lane.synops for lane in self._lanes)
        return step

    def _answer(self, prediction: Prediction) -> Prediction:
        label = self._hold.filter(prediction.label, prediction.t_us)
        if label != prediction.label:
            name = NONE if label is None else self._class_names[label]
            prediction = replace(prediction, label=label, class_name=name)
        self.totals.prediction(prediction)
        return prediction
