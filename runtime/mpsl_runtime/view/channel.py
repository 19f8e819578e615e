"""One model on the stream, in a thread of its own: it runs, is watched, and is told what to change.

A change ends the stream that runs and begins another one, where it was: the next events go on.
Events that were in the window by then are counted as given up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MpslError
from mpsl_runtime.events.geometry import View
from mpsl_runtime.live.options import SourceOptions, StreamOptions, source_options
from mpsl_runtime.live.source import LiveSource
from mpsl_runtime.run.decisions import Step
from mpsl_runtime.run.loop import Loop
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.service.metrics import Metrics
from mpsl_runtime.view.belt import AbandonedError, Belt, Tap
from mpsl_runtime.view.settings import Settings
from mpsl_runtime.view.trace import Trace

__all__ = ["Channel"]

Size = tuple[int, int]
_GIVEN_UP = "given up when settings changed"


class Channel:
    """See the module.

    Attributes:
        name: of the model, for people. model: what runs. belt: what it runs on. trace: what it
            answered. neurons: of each spiking layer. stream: what runs now, or ran last.
        error: what ended it, None while all is well. has_ended: its thread does nothing more.

    Args:
        options: of the source; policy: as the command line gives them.
        source: the live one that fills the belt; None for files. metrics: where it is watched.
        say: called with a line for people. ended: called when the thread ends.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        options: StreamOptions,
        policy: Policy,
        *,
        source: LiveSource | None,
        metrics: Metrics,
        say: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        self.name, self.model, self.trace = name, model, Trace()
        self.belt = Belt(source_options(options).largest_queue, waits=source is None)
        self.error: MpslError | None = None
        self.has_ended = False
        self._given, self._policy = options, policy
        self.settings = Settings.of(policy, options)
        self.neurons = [math.prod(layer.output_shape) for layer in model.plan.spiking]
        self._say, self._ended = say, ended
        self._size: Size | None = None
        self._source, self._metrics = source, metrics
        self.stream, self._tap = self._made()
        metrics.watch(model, self.stream, name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"mpsl view {name}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends soon; the window that runs is finished."""
        self._stop.set()
        self.belt.close()
        self._tap.stop()

    def join(self) -> None:
        """Waits for the end, where it has begun."""
        if self._thread.ident is not None:
            self._thread.join()

    def check(self, settings: Settings) -> None:
        """Raises UsageError where the model cannot do what is asked."""
        settings.policy_from(self._policy).check(self.model.binning.steps)

    def change(self, settings: Settings, *, restart: bool) -> None:
        """Other settings from now on. restart: of a live source, which cannot be wound back."""
        self.settings = settings
        if restart:
            self.belt.interrupt()

    def camera(self, size: Size | None) -> None:
        """The size of the camera, before its first event."""
        self._size = size
        self._tap.sensor_size = self._size_for(self._tap.options)

    def window(self, camera: Size) -> tuple[int, int, int, int] | None:
        """What of the camera the model sees: left, top, width, height in its pixels; None where it
        cannot be."""
        view: View = source_options(self._given).view
        binning = self.model.binning
        try:
            pixels = view.onto(camera, binning.sensor_size, self.name)
        except MpslError:
            return None
        left, top, width, height = binning.window
        columns = _seen(pixels.columns, left, width)
        rows = _seen(pixels.rows, top, height)
        return columns[0], rows[0], columns[1], rows[1]

    def _work(self) -> None:
        try:
            while self._run() and not self._stop.is_set():
                self._begin_anew()
        except MpslError as error:
            self.error = error
        finally:
            self.has_ended = True
            self._ended()

    def _run(self) -> bool:
        """Runs the stream; True where another one is to go on with other settings."""
        if self._stop.is_set():
            self._tap.stop()
        with closing(self.stream):
            try:
                for item in self.stream:
                    if isinstance(item, Step):
                        self.trace.step(item, time.monotonic() - self.belt.put_s)
                    else:
                        self.trace.prediction(item)
                return False
            except AbandonedError:
                if self._source is not None:
                    self._tap.lose(_GIVEN_UP, self._in_flight())
                return True

    def _made(self) -> tuple[Loop, Tap]:
        """A stream with the settings of now, and the tap that it runs on."""
        # Before the settings are read: a change after that abandons this stream too.
        turn = self.belt.turn
        settings = self.settings
        options = settings.options_from(self._given)
        policy = settings.policy_from(self._policy)
        tap = Tap(
            self.name, source_options(options), (self.belt, turn), self._source, self.trace.begin
        )
        tap.sensor_size = self._size_for(tap.options)
        feed = self.model.feed([tap], say=self._say, **options)
        return self.model.stream(feed, policy, feed=feed), tap

    def _begin_anew(self) -> None:
        """Another stream, which counts on where the one before has ended."""
        stream, tap = self._made()
        tap.count_on(self._tap)
        stream.count_on(self.stream)
        self._metrics.count_on(self.stream, stream)
        self.stream, self._tap = stream, tap
        if self._stop.is_set():
            tap.stop()

    def _in_flight(self) -> int:
        """Events that have come through the belt and were not accounted for yet."""
        totals, feed = self.stream.totals, self.stream.feed
        if feed is None:
            return 0
        before_belt = sum(self._tap.losses.values()) - self._tap.lost_behind()
        lost = sum(feed.losses.values()) - before_belt
        seen = totals.events + totals.idle + totals.onsets.idle + totals.truncated
        return self.belt.taken - seen - lost - sum(feed.taken.values())

    def _size_for(self, options: SourceOptions) -> Size | None:
        """Of the camera. Of one that nobody names it is the model's where filters, which may be
        switched on at any time, must know it; else the feed decides."""
        if options.sensor_size is not None or self._size is not None:
            return options.sensor_size or self._size
        is_plain = options.filters.is_off or options.view != View()
        return None if is_plain else self.model.binning.sensor_size


def _seen(axis: NDArray[np.int32], first: int, number: int) -> tuple[int, int]:
    """(first, number) of the camera's pixels that are among the model's first … first+number−1."""
    found = np.flatnonzero((axis >= first) & (axis < first + number))
    return (int(found[0]), len(found)) if found.size else (0, 0)
