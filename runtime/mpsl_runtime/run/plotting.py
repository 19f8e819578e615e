"""`mpsl run --plot`: what the camera saw, how the scores grew, what was decided.

matplotlib comes with the extra `mpsl-runtime[plot]`, and is imported only here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data.images import Image
from mpsl_runtime.errors import MissingExtraError, OutputError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.run.decisions import Prediction, Step

__all__ = ["Watcher", "check_plot", "save_plot"]

_SUFFIXES = (".pdf", ".png", ".svg")
_LARGEST_STEPS = 20_000
_LARGEST_EVENTS = 5_000_000
_SLICES = 10
_PLAIN, _CHOSEN = "#bbbbbb", "#d95f02"


class Watcher:
    """Keeps what a picture of the first recording or image needs, while it runs.

    Args:
        sensor_size: (width, height) in pixels of the camera; of no use for images.
    """

    def __init__(self, sensor_size: tuple[int, int] = (0, 0)) -> None:
        self.sensor_size = sensor_size
        self.image: NDArray[np.uint8] | None = None
        self.events: list[Events] = []
        self.steps: list[Step] = []
        self.prediction: Prediction | None = None
        self._watching = True
        self._begun = False

    def watch(self, found: Iterable[Recording | Image]) -> Iterator[Any]:
        """The same recordings or images; what the first shows is kept on its way."""
        for shown in found:
            self._watching = not self._begun
            if self._begun:
                yield shown
                continue
            self._begun = True
            if isinstance(shown, Image):
                self.image = shown.pixels
                yield shown
            else:
                yield replace(shown, chunks=self._keep(shown.chunks))

    def _keep(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        kept = 0
        for chunk in chunks:
            if kept < _LARGEST_EVENTS:
                self.events.append(chunk.events)
                kept += len(chunk.events)
            yield chunk

    def busiest(self) -> tuple[NDArray[np.int64], float, float]:
        """Events per polarity and pixel, int64 [2, H, W], in the busiest tenth of the recording,
        and its beginning and end in ms. The whole would smear what moves."""
        width, height = self.sensor_size
        counts: NDArray[np.int64] = np.zeros((2, height, width), np.int64)
        events = [piece for piece in self.events if len(piece)]
        if not events:
            return counts, 0.0, 0.0
        t, x, y, p = (np.concatenate([getattr(e, name) for e in events]) for name in "txyp")
        begin_us = self.steps[0].t_us if self.steps else int(t[0])
        slice_us = max(1, -(-(int(t[-1]) + 1 - begin_us) // _SLICES))
        place = (t - begin_us) // slice_us
        best = int(np.bincount(place[place >= 0], minlength=1).argmax())
        chosen = (place == best) & (x < width) & (y < height)
        np.add.at(counts, (p[chosen], y[chosen], x[chosen]), 1)
        return counts, best * slice_us / 1000, (best + 1) * slice_us / 1000

    def see(self, item: Step | Prediction) -> None:
        """Takes in what the stream yields."""
        if not self._watching:
            return
        if isinstance(item, Step):
            if len(self.steps) < _LARGEST_STEPS:
                self.steps.append(item)
        else:
            self.prediction = item


def check_plot(path: Path) -> None:
    """Says before any work is done that the picture could not be made.

    Raises:
        MissingExtraError: no matplotlib. UsageError: a suffix that is no picture.
        OutputError: the folder is absent or not writable.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            "unknown picture format", got=repr(path.suffix), expected=" ".join(_SUFFIXES)
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError("cannot write output", expected="a folder to write into", where=path)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib, which draws the picture,", "mpsl-runtime[plot]") from (
            None
        )


def save_plot(
    path: Path, watcher: Watcher, class_names: Sequence[str], step_us: int | None
) -> None:
    """Draws the first recording or image: what was seen, scores over time, decision.

    Args:
        step_us: length of a step; None for images, where time has no unit.

    Raises:
        MissingExtraError, UsageError: see `check_plot`. OutputError: the file cannot be written.
    """
    check_plot(path)
    if not watcher.steps:
        raise UsageError("nothing to plot", got="no time step", where=path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.6, 1.0))
    last = watcher.prediction or watcher.steps[-1]
    target = watcher.prediction.target if watcher.prediction is not None else None
    title = f"{Path(last.file).name or last.file}: decided “{last.class_name}”"
    if target is not None:
        title += f", true class “{class_names[target]}”"
    figure.suptitle(title, fontsize=11)
    if watcher.image is not None:
        _draw_image(left, watcher.image)
    else:
        _draw_events(left, *watcher.busiest())
    best = int(np.argmax(last.scores)) if last.label is None else last.label
    _draw_scores(middle, watcher.steps, class_names, best, step_us)
    _draw_decision(right, last.scores, class_names, best)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:])


def _draw_events(axes: Any, counts: NDArray[np.int64], begin_ms: float, end_ms: float) -> None:
    """ON takes green and blue from a white page, OFF red and green: both together turn dark, so
    that a pixel that grew brighter and darker does not look silent."""
    some = counts[counts > 0]
    strongest = float(np.percentile(some, 98)) if some.size else 1.0
    off, on = np.minimum(np.sqrt(counts / strongest), 1.0)
    page = np.stack([1 - 0.85 * off, 1 - 0.5 * on - 0.5 * off, 1 - 0.85 * on], axis=-1)
    axes.imshow(page.clip(0, 1), interpolation="nearest")
    axes.set_title(f"{int(counts.sum()):,} events of {begin_ms:.0f}–{end_ms:.0f} ms", fontsize=9)
    axes.set_xlabel("orange: brighter, blue: darker", fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_image(axes: Any, pixels: NDArray[np.uint8]) -> None:
    page = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    axes.imshow(page, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(f"{pixels.shape[2]}x{pixels.shape[1]} pixels", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_scores(
    axes: Any, steps: Sequence[Step], class_names: Sequence[str], chosen: int, step_us: int | None
) -> None:
    begin_us = steps[0].t_us
    if step_us is None:
        time = [step.step + 1.0 for step in steps]
    else:
        time = [(step.t_us - begin_us + step_us) / 1000 for step in steps]
    scores = np.stack([step.scores for step in steps])
    others = [int(k) for k in np.argsort(-scores.max(axis=0), kind="stable") if k != chosen]
    for k in range(scores.shape[1]):
        if k != chosen:
            axes.plot(time, scores[:, k], color=_PLAIN, linewidth=1)
    if others:
        name = f"{class_names[others[0]]} (next)"
        axes.plot(time, scores[:, others[0]], color="#555555", linewidth=1.2, label=name)
    name = f"{class_names[chosen]} (decided)"
    axes.plot(time, scores[:, chosen], color=_CHOSEN, linewidth=2.2, label=name)
    axes.set_xlabel("time (ms)" if step_us is not None else "steps", fontsize=9)
    if step_us is None:
        axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("score", fontsize=9)
    axes.set_title("scores over time", fontsize=9)
    low, high = min(0.0, float(scores.min())), float(scores.max())
    axes.set_ylim(low, low + max(high - low, 1.0) * 1.2)  # room for the legend
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_decision(
    axes: Any, scores: NDArray[np.float32], class_names: Sequence[str], chosen: int
) -> None:
    places = list(range(len(scores)))
    if len(scores) > 12:  # names would overlap: the best twelve, best first
        places = np.argsort(-scores, kind="stable")[:12].tolist()
    colours = [_CHOSEN if k == chosen else _PLAIN for k in places]
    axes.barh(range(len(places)), scores[places], color=colours)
    axes.set_yticks(range(len(places)), [class_names[k] for k in places], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("score at the end", fontsize=9)
    axes.set_title("decision", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
