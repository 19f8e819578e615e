"""`mpsl run --plot`: what the camera saw, what the network was given, and what it answered when.

matplotlib comes with the extra `mpsl-runtime[plot]`, and is imported only here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import MissingExtraError, OutputError, UsageError
from mpsl_runtime.events.geometry import PixelMap
from mpsl_runtime.run.answers import NONE
from mpsl_runtime.run.plotting_time import draw_answers, draw_rate, draw_scores
from mpsl_runtime.run.watcher import Watcher

__all__ = ["check_plot", "drawn_as_it_is", "save_plot"]

_SUFFIXES = (".pdf", ".png", ".svg")
_PLAIN, _CHOSEN, _DARK = "#c8c8c8", "#d95f02", "#333333"
_FRAME = "#1b9e77"
# Of one event beside the busiest pixels: it is seen, on a page of 400 pixels too.
_FAINTEST, _FAINTEST_INPUT = 0.45, 0.15
_PAGE_PIXELS = 360
_MOST_BARS, _MOST_IN_TITLE = 14, 5


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


@contextmanager
def drawn_as_it_is() -> Iterator[None]:
    """Names of strangers are drawn as they stand: a $ begins no formula, and a letter that the
    font lacks is a box, without a word about it."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        yield


def save_plot(path: Path, watcher: Watcher, class_names: Sequence[str]) -> None:
    """Draws the first recording or image.

    Raises:
        MissingExtraError, UsageError: see `check_plot`; or nothing was run, so that there is
            neither a recording nor an image. OutputError: the file cannot be written.
    """
    check_plot(path)
    if not watcher.file:
        raise UsageError("nothing to plot", got="no recording and no image", where=path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawn_as_it_is():
        figure: Any = Figure(figsize=(11, 3.9 if watcher.image is not None else 6.4), dpi=110)
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        figure.suptitle(_title(watcher, class_names), fontsize=12)
        if watcher.image is not None:
            left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.6, 1.0))
            _draw_image(left, watcher.image)
            draw_scores(middle, watcher, class_names)
            _draw_bars(right, watcher, class_names)
        else:
            top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1.0))
            _draw_top(top, watcher, class_names)
            _draw_bottom(bottom, watcher, class_names)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lower()[1:])


def _title(watcher: Watcher, class_names: Sequence[str]) -> str:
    name = Path(watcher.file).name or watcher.file
    answers = watcher.predictions
    named = [item for item in answers if item.label is not None]
    nothing = watcher.image is None and not len(watcher.camera)
    if nothing:
        return f"{name}: no events, no answer"
    if not named:
        return f"{name}: answered “{NONE}”" if answers else f"{name}: no answer"
    if len(answers) == 1:
        target = answers[0].target
        truth = "" if target is None else f", true class “{class_names[target]}”"
        return f"{name}: answered “{named[0].class_name}”{truth}"
    if len(answers) <= _MOST_IN_TITLE:
        return f"{name}: answered {', '.join(f'“{item.class_name}”' for item in answers)}"
    none = f", {len(answers) - len(named):,} of them “{NONE}”" if len(named) < len(answers) else ""
    return f"{name}: {len(answers):,} answers{none}"


def _draw_top(figure: Any, watcher: Watcher, class_names: Sequence[str]) -> None:
    begin_us, end_us = watcher.slice_us()
    zero_us = watcher.begin_us
    begin_ms, end_ms = (begin_us - zero_us) / 1000, (end_us - zero_us) / 1000
    counts = watcher.camera_counts(begin_us, end_us)
    frame = watcher.input_frame(begin_us, end_us)
    shape = counts.shape[2] / counts.shape[1]
    left, middle, right = figure.subplots(1, 3, width_ratios=(min(max(shape, 1), 1.8), 1.0, 1.0))
    height, width = counts.shape[1:]
    _draw_events(left, _summed(counts), (width, height), _FAINTEST)
    what = f"{int(counts.sum()):,} events of {_span(begin_ms, end_ms)}"
    what = what if counts.any() else "no events"
    left.set_title(f"camera, {width}x{height}: {what}", fontsize=9)
    if watcher.pixels is not None:
        _draw_crop(left, watcher.pixels)
    _draw_events(middle, frame, (frame.shape[2], frame.shape[1]), _FAINTEST_INPUT)
    middle.set_title(f"the network's input, {frame.shape[2]}x{frame.shape[1]}", fontsize=9)
    middle.set_xlabel("orange: brighter, blue: darker", fontsize=8)
    if not counts.any():
        for axes in (left, middle):
            axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center")
    _draw_bars(right, watcher, class_names)


def _span(begin_ms: float, end_ms: float) -> str:
    if end_ms - begin_ms < 2:
        return f"{begin_ms:.1f}–{end_ms:.1f} ms"
    return f"{begin_ms:,.0f}–{end_ms:,.0f} ms"


def _summed(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """k x k pixels of a large camera as one: a pixel that the page has no room for is not lost."""
    _, height, width = counts.shape
    k = max(1, -(-max(width, height) // _PAGE_PIXELS))
    if k == 1:
        return counts
    padded = np.pad(counts, ((0, 0), (0, -height % k), (0, -width % k)))
    rows, columns = padded.shape[1] // k, padded.shape[2] // k
    summed: NDArray[np.int64] = padded.reshape(2, rows, k, columns, k).sum(axis=(2, 4))
    return summed


def _draw_events(axes: Any, counts: NDArray[Any], size: tuple[int, int], faintest: float) -> None:
    """ON takes green and blue from a white page, OFF red and green: both together turn dark, so
    that a pixel that grew brighter and darker does not look silent."""
    some = counts[counts > 0]
    strongest = max(float(np.percentile(some, 98)) if some.size else 1.0, 1.0)
    level = faintest + (1 - faintest) * np.sqrt(np.minimum(counts / strongest, 1.0))
    off, on = np.where(counts > 0, level, 0.0)
    page = np.stack([1 - 0.85 * off, 1 - 0.5 * on - 0.5 * off, 1 - 0.85 * on], axis=-1)
    extent = (-0.5, size[0] - 0.5, size[1] - 0.5, -0.5)
    axes.imshow(page.clip(0, 1), interpolation="nearest", extent=extent)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_crop(axes: Any, pixels: PixelMap) -> None:
    """A frame around what the network sees of the camera, where that is not all of it."""
    columns, rows = np.flatnonzero(pixels.columns >= 0), np.flatnonzero(pixels.rows >= 0)
    if not (len(columns) and len(rows)) or pixels.is_identity:
        return
    from matplotlib.patches import Rectangle

    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=_FRAME, linewidth=2)
    )
    k = max(1, round(width / pixels.model[0]))
    summed = f", {k}x{k} pixels summed" if k > 1 else ""
    axes.set_xlabel(f"frame: seen by the network, {width}x{height}{summed}", fontsize=8)


def _draw_image(axes: Any, pixels: NDArray[np.uint8]) -> None:
    page = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    axes.imshow(page, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(f"{pixels.shape[2]}x{pixels.shape[1]} pixels", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_bars(axes: Any, watcher: Watcher, class_names: Sequence[str]) -> None:
    """Of one answer its scores, of several how often each class was answered."""
    answers = watcher.predictions
    names = list(class_names)
    if len(answers) > 1:
        words = [item.class_name for item in answers]
        names += [NONE] if NONE in words and NONE not in names else []
        values = np.array([words.count(name) for name in names], np.float64)
        chosen = {name for name in names if name != NONE and name in words}
        title, label = "answers", "windows"
    else:
        last = answers[0] if answers else watcher.steps[-1] if watcher.steps else None
        values = np.zeros(len(names)) if last is None else np.asarray(last.scores, np.float64)
        chosen = set() if not answers or answers[0].label is None else {answers[0].class_name}
        title, label = ("scores: nothing is answered", "score at the end")
        title = f"answered: {answers[0].class_name}" if chosen else title
    places = list(range(len(names)))
    if len(names) > _MOST_BARS:  # names would overlap: the best, best first
        places = np.argsort(-values, kind="stable")[:_MOST_BARS].tolist()
    colours = [_CHOSEN if names[k] in chosen else _PLAIN for k in places]
    axes.barh(range(len(places)), values[places], color=colours)
    axes.set_yticks(range(len(places)), [_short(names[k]) for k in places], fontsize=8)
    axes.invert_yaxis()
    if not values.any():
        axes.set_xlim(0, 1)
    if len(answers) > 1:
        axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(label, fontsize=9)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _draw_bottom(figure: Any, watcher: Watcher, class_names: Sequence[str]) -> None:
    """Over time: how many events came, which answer held, and the scores."""
    rate, band, scores = figure.subplots(3, 1, sharex=True, height_ratios=(0.7, 0.45, 2.2))
    draw_rate(rate, watcher)
    draw_answers(band, watcher)
    draw_scores(scores, watcher, class_names)
