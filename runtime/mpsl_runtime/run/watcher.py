"""What a picture of a run needs, kept while it runs: of the first recording or image alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.images import Image
from mpsl_runtime.events.binning import Binning, frames
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.geometry import PixelMap
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.run.decisions import Prediction, Step

__all__ = ["Span", "Watcher"]

_MOST_EVENTS = 2_000_000
_MOST_ITEMS = 20_000
_SLICES, _LONGEST_SLICE_US = 10, 50_000


@dataclass(frozen=True)
class Span:
    """A stretch of time in which one answer holds: µs, and the class or `none`."""

    begin_us: int
    end_us: int
    label: int | None
    class_name: str


class Watcher:
    """Keeps the beginning of the first recording: at most 2 M events and 20,000 steps.

    Attributes:
        binning: of the model; None for a model of images.
        image: uint8 [C, H, W], where it is one.
        pixels: of the camera's pixels, which ones the network sees; None before the first event.
        steps, predictions: of the recording.
        file: its name; "" before it begins.
    """

    def __init__(self, binning: Binning | None = None) -> None:
        self.binning = binning
        self.image: NDArray[np.uint8] | None = None
        self.pixels: PixelMap | None = None
        self.steps: list[Step] = []
        self.predictions: list[Prediction] = []
        self.file = ""
        self._camera: list[Events] = []
        self._seen: list[Events] = []
        self._is_watching = True

    def watch(self, found: Iterable[Recording | Image]) -> Iterator[Any]:
        """The same recordings or images; what the first shows is kept on its way."""
        for shown in found:
            self._is_watching = not self.file
            if not self._is_watching:
                yield shown
                continue
            self.file = shown.file
            if isinstance(shown, Image):
                self.image = shown.pixels
                yield shown
            else:
                yield replace(shown, chunks=self._keep(shown.chunks))

    def _keep(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._add(self._seen, chunk.events)
            yield chunk

    def see_camera(self, events: Events, pixels: PixelMap) -> None:
        """Events of the camera, before filters and the view; as `Feed.on_camera`."""
        if self._is_watching:
            self.pixels = pixels
            self._add(self._camera, events)

    @staticmethod
    def _add(kept: list[Events], events: Events) -> None:
        if len(events) and sum(map(len, kept)) < _MOST_EVENTS:
            kept.append(events)

    def see(self, item: Step | Prediction) -> None:
        """Takes in what the stream yields."""
        if not self._is_watching:
            return
        kept: list[Any] = self.steps if isinstance(item, Step) else self.predictions
        if len(kept) < _MOST_ITEMS:
            kept.append(item)

    @property
    def camera(self) -> Events:
        """What the camera sent; what the network saw, where nobody told."""
        return _joined(self._camera or self._seen)

    @property
    def seen(self) -> Events:
        """What the network saw."""
        return _joined(self._seen)

    @property
    def begin_us(self) -> int:
        """When the recording begins: with its first event or its first step."""
        times = [int(t_us) for t_us in self.camera.t[:1]]
        return min([*times, *(step.t_us for step in self.steps[:1])], default=0)

    @property
    def end_us(self) -> int:
        """When it ends: behind its last event and its last answer."""
        times = [self.begin_us + 1000, *(int(t_us) for t_us in self.camera.t[-1:])]
        times += [item.t_us for item in self.predictions[-1:]]
        if self.steps and self.binning is not None:
            times.append(self.steps[-1].t_us + self.binning.step_us)
        return max(times)

    def slice_us(self) -> tuple[int, int]:
        """Beginning and end of a busy stretch: a tenth of the recording, at most 50 ms. The whole
        would smear what moves. One of ten is busier: a flash of all pixels, as when a camera is
        switched on, shows nothing. What no window took counts only where no window was."""
        t = self.camera.t
        if not len(t):
            return 0, 0
        if self.steps and self.binning is not None:
            step_us = self.binning.step_us
            begin = np.array([step.t_us for step in self.steps])
            at = np.searchsorted(begin, t, "right") - 1
            inside = t[(at >= 0) & (t < begin[at] + step_us)]
            t = inside if len(inside) else t
        length_us = max(1, min(_LONGEST_SLICE_US, -(-(int(t[-1]) + 1 - int(t[0])) // _SLICES)))
        place = (t - t[0]) // length_us
        starts, counts = np.unique(place, return_counts=True)
        busy = np.argsort(counts, kind="stable")[-1 - len(counts) // 10]
        begin_us = int(t[0]) + int(starts[busy]) * length_us
        return begin_us, begin_us + length_us

    def input_frame(self, begin_us: int, end_us: int) -> NDArray[np.float32]:
        """What the network is given of a stretch of time, as one step: [2, H, W]."""
        if self.binning is None:
            return np.zeros((2, 1, 1), np.float32)
        events = _between(self.seen, begin_us, end_us)
        events = replace(events, t=np.zeros_like(events.t))
        step: NDArray[np.float32] = frames(events, replace(self.binning, steps=1, origin="zero"))[0]
        return step

    def camera_counts(self, begin_us: int, end_us: int) -> NDArray[np.int64]:
        """Events of each polarity and pixel of the camera in a stretch of time: [2, H, W]."""
        width, height = self.camera_size
        events = _between(self.camera, begin_us, end_us)
        inside = (events.x < width) & (events.y < height)
        place = (events.p[inside].astype(np.int64) * height + events.y[inside]) * width
        counts = np.bincount(place + events.x[inside], minlength=2 * height * width)
        return counts.reshape(2, height, width)

    @property
    def camera_size(self) -> tuple[int, int]:
        """(width, height)."""
        if self.pixels is not None:
            return self.pixels.camera
        return (1, 1) if self.binning is None else self.binning.sensor_size

    def answers(self) -> list[Span]:
        """When which answer holds, in order; nothing where nothing was answered."""
        if self.binning is None:
            return []
        step_us = self.binning.step_us
        spans: list[Span] = []
        if len(self.predictions) == 1 and len(self.steps) > self.binning.steps:
            # One answer at the end of a state that runs on: what led at each step.
            found = [
                Span(step.t_us, step.t_us + step_us, step.label, step.class_name)
                for step in self.steps
            ]
        else:
            found = [
                Span(item.begin_us, item.t_us, item.label, item.class_name)
                for item in self.predictions
                if item.t_us > item.begin_us
            ]
        for span in found:
            last = spans[-1] if spans else None
            if last is not None and span.begin_us < last.end_us:
                span = replace(span, begin_us=last.end_us)  # of windows that overlap, the newest
            goes_on = last is not None and span.begin_us == last.end_us
            if last is not None and goes_on and span.class_name == last.class_name:
                spans[-1] = replace(last, end_us=span.end_us)
            elif span.end_us > span.begin_us:
                spans.append(span)
        return spans


def _joined(pieces: list[Events]) -> Events:
    if not pieces:
        return Events.empty()
    t, x, y, p = (np.concatenate([getattr(e, name) for e in pieces]) for name in "txyp")
    return Events(t, x, y, p, pieces[0].sensor_size)


def _between(events: Events, begin_us: int, end_us: int) -> Events:
    low, high = np.searchsorted(events.t, [begin_us, end_us]).tolist()
    return events.slice(low, high)
