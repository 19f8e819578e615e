"""One model on the stream, in a thread of its own: it runs, is watched, and is told what to change.

A change ends the stream that runs and begins another one, where it was: the next events go on.
Events that were in the window by then are counted as given up.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MpslError
from mpsl_runtime.events.geometry import View
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.live.options import SourceOptions, StreamOptions, source_options
from mpsl_runtime.run.decisions import Step, Summary
from mpsl_runtime.run.loop import Loop
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.view.belt import AbandonedError, Belt, Tap
from mpsl_runtime.view.settings import Settings
from mpsl_runtime.view.trace import Trace

__all__ = ["Channel"]

Size = tuple[int, int]
_FULL = "queue of the model was full"
_GIVEN_UP = "given up when settings changed"


class Channel:
    """See the module.

    Attributes:
        name: of the model, for people. model: what runs. belt: what it runs on. trace: what it
            answered. neurons: of each spiking layer.
        error: what ended it, None while all is well. has_ended: its thread does nothing more.

    Args:
        options: of the source; policy: as the command line gives them.
        waits: see `Belt`. say: called with a line for people. ended: called when the thread ends.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        options: StreamOptions,
        policy: Policy,
        *,
        waits: bool,
        say: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        self.name, self.model, self.trace = name, model, Trace()
        self.belt = Belt(source_options(options).largest_queue, waits=waits)
        self.error: MpslError | None = None
        self.has_ended = False
        self._given, self._policy = options, policy
        self.settings = Settings.of(policy, options)
        self.neurons = [math.prod(layer.output_shape) for layer in model.plan.spiking]
        self._say, self._ended = say, ended
        self._size: Size | None = None
        self._lost: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._summaries: list[Summary] = []
        self._feed: Feed | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"mpsl view {name}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends soon; the window that runs is finished."""
        self._stop.set()
        self.belt.close()
        feed = self._feed
        if feed is not None:
            feed.stop()

    def join(self) -> None:
        """Waits for the end."""
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

    def losses(self) -> dict[str, int]:
        """Events that did not come through, by cause."""
        found = Counter(self._lost)
        feed = self._feed
        if feed is not None:
            found.update(feed.losses)
        if self.belt.lost:
            found[_FULL] = self.belt.lost
        return dict(found)

    def left_out(self) -> dict[str, int]:
        """Events that filters and the view have taken, by name."""
        found = Counter(self._left_out)
        feed = self._feed
        if feed is not None:
            found.update(feed.taken)
        return dict(found)

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and self._run_once():
                pass
        except MpslError as error:
            self.error = error
        finally:
            self.has_ended = True
            self._ended()

    def _run_once(self) -> bool:
        """Runs with the settings of now; True where it is to go on with others."""
        settings = self.settings
        options = settings.options_from(self._given)
        policy = settings.policy_from(self._policy)
        tap = Tap(self.name, source_options(options), self.belt, self.trace.begin)
        tap.sensor_size = tap.sensor_size or self._size or self._unsaid_size(tap.options)
        feed = self.model.feed([tap], say=self._say, **options)
        stream = self.model.stream(feed, policy, feed=feed)
        self._feed = feed
        if self._stop.is_set():
            feed.stop()
        with closing(stream):
            try:
                for item in stream:
                    if isinstance(item, Step):
                        self.trace.step(item, time.monotonic() - self.belt.put_s)
                    else:
                        self.trace.prediction(item)
                return False
            except AbandonedError:
                return True
            finally:
                self._keep(stream, feed)

    def _unsaid_size(self, options: SourceOptions) -> Size | None:
        """Of a camera that nobody names: filters, switched on here, must know its size too."""
        is_plain = options.filters.is_off or options.view != View()
        return None if is_plain else self.model.binning.sensor_size

    def _keep(self, stream: Loop, feed: Feed) -> None:
        """The totals of a stream that has ended."""
        summary = stream.summary
        self._summaries.append(summary)
        self._feed = None
        self._lost.update(feed.losses)
        self._left_out.update(feed.taken)


def _seen(axis: NDArray[np.int32], first: int, number: int) -> tuple[int, int]:
    """(first, number) of the camera's pixels that are among the model's first … first+number−1."""
    found = np.flatnonzero((axis >= first) & (axis < first + number))
    return (int(found[0]), len(found)) if found.size else (0, 0)
