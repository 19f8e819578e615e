"""The stream loop: recordings in, a decision a step and an answer a window out.

A **trial** is a recording cut to one sample (an N-MNIST .bin, any labelled recording): exactly
steps 0 … T−1, missing steps are empty, later events are counted as truncated. A **stream** (a
camera file, a live source) goes on; where its windows begin is the policy (`run.policies`).

The state is reset between recordings. Time advances by the source's clock alone (the next event, a
time stamp without events, the end), never by the clock on the wall: the same events give the same
decisions, live or from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.steps import Chunk, Recording, Rest, StepInput, cut
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.run.answers import NONE, AnswerRule, Hold
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.lane import Lane, Runner
from mpsl_runtime.run.loop import Items, Loop, OnPrediction, OnStep
from mpsl_runtime.run.onset import Windows
from mpsl_runtime.run.place import Place, SuspendedError
from mpsl_runtime.run.policies import Policy

__all__ = ["Keep", "Stream"]

Keep = Callable[["Stream", bool], None]


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

    Attributes:
        policy: as given.
        keep: called where everything that was made has been given out, and all of it may be kept:
            with the stream, and whether that is after a step (else it waits for events).
        is_suspended: it ends, or has ended, to go on later.

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
        self._binning, self.policy = binning, policy
        self._class_names = class_names
        self._recordings = recordings
        self.keep: Keep | None = None
        self.is_suspended = False
        self._place: Place | None = None
        self._resumed: Kept | None = None
        lanes = -(-binning.steps // policy.every) if policy.name == "sliding" else 1
        self._layers = len(runner.fired)
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

    def suspend(self) -> None:
        """Ends it after its step, from any thread or a signal handler, to go on later: no window
        is brought to an end, and `keep` is called for the last time."""
        self.is_suspended = True
        if self.feed is not None:
            self.feed.suspend()

    def close(self) -> None:
        """Ends the stream early; a live source is let go."""
        super().close()
        if self.feed is not None:
            self.feed.close()

    def kept(self) -> dict[str, Any]:
        """All that what follows depends on, for `mpsl_runtime.kept`; taken while `keep` is called,
        where everything that was made has been given out."""
        return {
            "place": None if self._place is None else self._place.kept(),
            "hold": self._hold.kept(),
            "lanes": [lane.kept() for lane in self._lanes],
            "totals": self.totals.kept(),
            "feed": None if self.feed is None else self.feed.kept(),
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken, with the next step, before it is iterated over. Without
        a feed, its recordings are those that were not yet taken, the rest of one first.

        Raises:
            DataError: it is the state of another network or source, or cannot be.
        """
        self._hold.restore(kept.inner("hold"), len(self._class_names))
        self.totals.restore(kept.inner("totals"), self._layers)
        self._resumed = kept.inner("place") if kept.is_there("place") else None
        inside = None if self._resumed is None else Place.recording_of(self._resumed)
        rule = self._rule(inside is not None and inside.trial)
        lanes = [*kept.each("lanes")]
        if len(lanes) != len(self._lanes):
            raise DataError("state of another policy", got=f"{len(lanes)} lanes", where=kept.where)
        for lane, of_lane in zip(self._lanes, lanes, strict=True):
            lane.restore(of_lane, rule)
        if self.feed is not None:
            self.feed.restore(kept.inner("feed"), inside)

    def _rule(self, trial: bool) -> AnswerRule:
        return self.policy.rule if trial else self._stream_rule

    def _run(self) -> Items:
        try:
            for recording in self._recordings:
                yield from self._through(recording)
        except SuspendedError:
            return

    def _through(self, recording: Recording) -> Items:
        """One recording, or the rest of it."""
        recording = replace(recording, chunks=self._asked(recording.chunks))
        place = self._place = Place(recording, self._binning)
        name = self.policy.in_stream(recording.trial)
        if name == "onset":
            place.windows = self._windows(recording)
            place.began = self.totals.onsets.windows
        kept, self._resumed = self._resumed, None
        if kept is None:
            self._hold.reset()
        else:
            place.restore(kept, len(self._lanes))
        if name == "onset":
            yield from self._onset(place)
        elif name == "sliding":
            yield from self._sliding(place)
        elif name == "continuous":
            yield from self._continuous(place)
        else:
            yield from self._tumbling(place, recording, self._rule(recording.trial))
        self._place = None
        self._settle(after_step=True)

    def _asked(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks; before each, and behind the last, all of this may be kept."""
        for chunk in chunks:
            yield chunk
            self._settle(after_step=False)
        if self.is_suspended:
            self._settle(after_step=False)

    def _settle(self, *, after_step: bool) -> None:
        """All that was made has been given out."""
        if self.keep is not None:
            self.keep(self, after_step)
        if self.is_suspended:
            raise SuspendedError

    def _tumbling(self, place: Place, recording: Recording, rule: AnswerRule) -> Items:
        lane = self._lanes[0]
        if not place.enter(recording):
            lane.begin(rule)
        for item in self._cut(place, recording, one_window=True):
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
            self._settle(after_step=True)

    def _continuous(self, place: Place) -> Items:
        lane, recording = self._lanes[0], place.recording
        if not place.enter(recording):
            lane.begin(self._rule(recording.trial))
        for item in self._cut(place, recording, one_window=False):
            yield self._advance([lane], recording, item)
            self._settle(after_step=True)
        if lane.steps:
            yield self._answer(lane.predict(recording, self._binning.step_us))

    def _sliding(self, place: Place) -> Items:
        """Lane i runs the windows i, i + n, i + 2n, …; the oldest window is the one shown."""
        place.enter(place.recording)
        for item in self._cut(place, place.recording, one_window=False):
            if place.steps % self.policy.every == 0:
                number = place.started % len(self._lanes)
                self._lanes[number].begin(self._stream_rule)
                place.running.append(number)
                place.started += 1
            place.steps += 1
            if not place.running:  # all answered early, and no new window yet
                self.totals.idle += item.events
                self.totals.dropped += item.dropped
                continue
            running = [self._lanes[number] for number in place.running]
            yield self._advance(running, place.recording, item)
            if running[0].is_full or running[0].ends_early():
                place.running.popleft()
                yield self._answer(running[0].predict(place.recording, self._binning.step_us))
            self._settle(after_step=True)

    def _onset(self, place: Place) -> Items:
        for window in place.windows or ():
            for item in self._tumbling(place, window, self._stream_rule):
                yield replace(item, trial=False) if isinstance(item, Prediction) else item
        if self.totals.onsets.windows == place.began:
            yield self._answer(self._nothing(place.recording))

    def _windows(self, recording: Recording) -> Windows:
        length_us = self._binning.steps * self._binning.step_us
        return Windows(recording, self.policy.onset, length_us, self.totals.onsets)

    def _nothing(self, recording: Recording) -> Prediction:
        """The answer of a recording in which nothing began."""
        scores = np.zeros(len(self._class_names), np.float32)
        return Prediction(
            recording.file, None, recording.target, scores, 0.0, 0, 0, 0, 0, NONE, trial=False
        )

    def _cut(self, place: Place, recording: Recording, *, one_window: bool) -> Iterator[StepInput]:
        policy: Literal["tumbling", "continuous"] = "tumbling" if one_window else "continuous"
        for item in cut(recording, self._binning, policy, place.cutter):
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
        self.totals.synops = self._synops_before + sum(lane.synops for lane in self._lanes)
        return step

    def _answer(self, prediction: Prediction) -> Prediction:
        label = self._hold.filter(prediction.label, prediction.t_us)
        if label != prediction.label:
            name = NONE if label is None else self._class_names[label]
            prediction = replace(prediction, label=label, class_name=name)
        self.totals.prediction(prediction)
        return prediction
