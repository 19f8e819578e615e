"""`mpsl run --plot`: what the camera saw, how the scores grew, what was decided.

matplotlib comes with the extra `mpsl-runtime[plot]`, and is imported only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import MissingExtraError, UsageError
from mpsl_runtime.steps import Chunk, Recording
from mpsl_runtime.stream import Prediction, Step

__all__ = ["Watcher", "check_plot", "save_plot"]

_SUFFIXES = (".pdf", ".png", ".svg")
_LARGEST_STEPS = 20_000
_OFF, _ON, _PLAIN, _CHOSEN = "#2166ac", "#b2182b", "#bbbbbb", "#d95f02"


class Watcher:
    """Keeps what a picture of the first recording needs, while it runs.

    Args:
        sensor_size: (width, height) in pixels.
    """

    def __init__(self, sensor_size: tuple[int, int]) -> None:
        width, height = sensor_size
        self.counts: NDArray[np.int64] = np.zeros((2, height, width), np.int64)
        self.steps: list[Step] = []
        self.prediction: Prediction | None = None
        self._watching = True
        self._begun = False

    def watch(self, recordings: Iterable[Recording]) -> Iterator[Recording]:
        """The same recordings; the events of the first are counted per pixel on their way."""
        for recording in recordings:
            if self._begun:
                self._watching = False
                yield recording
            else:
                self._begun = True
                yield replace(recording, chunks=self._count(recording.chunks))

    def _count(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        _, height, width = self.counts.shape
        for chunk in chunks:
            events = chunk.events
            inside = (events.x < width) & (events.y < height)
            place = (events.p[inside], events.y[inside], events.x[inside])
            np.add.at(self.counts, place, 1)
            yield chunk

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
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            "unknown picture format", got=repr(path.suffix), expected=" ".join(_SUFFIXES)
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib, which draws the picture,", "mpsl-runtime[plot]") from (
            None
        )


def save_plot(path: Path, watcher: Watcher, class_names: Sequence[str], step_us: int) -> None:
    """Draws the first recording: events, scores over time, decision.

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
    title = f"{Path(last.file).name or last.file}: decided “{class_names[last.label]}”"
    if target is not None:
        title += f", true class “{class_names[target]}”"
    figure.suptitle(title, fontsize=11)
    _draw_events(left, watcher.counts)
    _draw_scores(middle, watcher.steps, class_names, last.label, step_us)
    _draw_decision(right, last.scores, class_names, last.label)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:])


def _draw_events(axes: Any, counts: NDArray[np.int64]) -> None:
    """Red where pixels grew brighter, blue where darker, as strong as there were events."""
    balance = (counts[1] - counts[0]).astype(float)
    total = counts.sum(axis=0)
    limit = float(np.percentile(total[total > 0], 99)) if total.any() else 1.0
    axes.imshow(balance, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(f"{int(total.sum()):,} events (red ON, blue OFF)", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_scores(
    axes: Any, steps: Sequence[Step], class_names: Sequence[str], chosen: int, step_us: int
) -> None:
    begin_us = steps[0].t_us
    time_ms = [(step.t_us - begin_us + step_us) / 1000 for step in steps]
    scores = np.stack([step.scores for step in steps])
    rivals = [int(k) for k in np.argsort(-scores.max(axis=0), kind="stable") if k != chosen]
    for k in range(scores.shape[1]):
        if k != chosen:
            axes.plot(time_ms, scores[:, k], color=_PLAIN, linewidth=1)
    if rivals:
        name = f"{class_names[rivals[0]]} (next)"
        axes.plot(time_ms, scores[:, rivals[0]], color="#555555", linewidth=1.2, label=name)
    name = f"{class_names[chosen]} (decided)"
    axes.plot(time_ms, scores[:, chosen], color=_CHOSEN, linewidth=2.2, label=name)
    axes.set_xlabel("time (ms)", fontsize=9)
    axes.set_ylabel("score", fontsize=9)
    axes.set_title("scores over time", fontsize=9)
    axes.margins(y=0.18)  # room for the legend above the curves
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
