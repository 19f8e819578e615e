"""The time of a run as a picture: how many events came, which answer held, how the scores went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.run.watcher import Watcher

__all__ = ["draw_answers", "draw_rate", "draw_scores"]

_PLAIN, _CHOSEN, _DARK = "#bbbbbb", "#d95f02", "#555555"
# Colour-blind safe (Okabe and Ito), pale enough for black letters; the classes take them in turn.
_COLOURS = (
    *("#f2b45c", "#8ecdf0", "#59c7a3", "#f3ea82", "#6fa8dc", "#ea9a66", "#dfa6c6", "#c9c9a8"),
)
_BINS = 400
_WIDEST_TEXT = 0.012  # of the axis, for each letter
_MOST_WINDOWS = 2


def _unit(watcher: Watcher) -> tuple[float, str]:
    """µs of a unit of time, and its name."""
    return (1e6, "s") if watcher.end_us - watcher.begin_us > 10_000_000 else (1e3, "ms")


def draw_rate(axes: Any, watcher: Watcher) -> None:
    """Events of the camera a second."""
    begin_us, (unit_us, _) = watcher.begin_us, _unit(watcher)
    t = (watcher.camera.t - begin_us) / unit_us
    if len(t):
        counts, edges = np.histogram(t, _BINS)
        width_s = max(float(edges[1] - edges[0]) * unit_us / 1e6, 1e-9)
        axes.fill_between(edges[:-1], counts / width_s, step="post", color=_PLAIN, linewidth=0)
        # A flash, as when a camera is switched on, may leave the page.
        usual = float(np.percentile(counts[counts > 0], 98))
        axes.set_ylim(0, min(counts.max() * 1.15, 3 * usual) / width_s)
    axes.set_ylabel("events/s", fontsize=8, rotation=0, ha="right", va="center", labelpad=26)
    axes.set_yticks(axes.get_yticks()[[0, -2]] if len(t) else [])
    axes.yaxis.set_major_formatter(lambda value, _: _rate(value))
    axes.tick_params(labelsize=7, labelbottom=False)
    axes.spines[["top", "right"]].set_visible(False)


def _rate(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def draw_answers(axes: Any, watcher: Watcher) -> None:
    """A band: which answer held when; blank where no window was."""
    from matplotlib.patches import Rectangle

    begin_us, (unit_us, _) = watcher.begin_us, _unit(watcher)
    spans = watcher.answers()
    names = list(dict.fromkeys(span.class_name for span in spans if span.label is not None))
    axes.set_xlim(0, (watcher.end_us - begin_us) / unit_us)
    for span in spans:
        left = (span.begin_us - begin_us) / unit_us
        width = (span.end_us - span.begin_us) / unit_us
        is_none = span.label is None
        colour = "white" if is_none else _COLOURS[names.index(span.class_name) % len(_COLOURS)]
        axes.add_patch(
            Rectangle(
                (left, 0), width, 1,
                facecolor=colour, edgecolor="#999999" if is_none else "white",
                hatch="////" if is_none else None, linewidth=0.6,
            )
        )  # fmt: skip
        share = (span.end_us - span.begin_us) / (watcher.end_us - begin_us)
        if share > _WIDEST_TEXT * (len(span.class_name) + 1):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if is_none else None
            axes.text(
                left + width / 2, 0.48, span.class_name,
                ha="center", va="center", fontsize=9, bbox=box,
            )  # fmt: skip
    if not spans:
        axes.text(
            0.5, 0.5, "nothing is answered",
            transform=axes.transAxes, ha="center", va="center", fontsize=9, color=_DARK,
        )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("answer", fontsize=8, rotation=0, ha="right", va="center", labelpad=26)
    axes.set_yticks([])
    axes.tick_params(labelbottom=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_scores(axes: Any, watcher: Watcher, class_names: Sequence[str]) -> None:
    """Scores over time: lines for one or two windows, for more a map of their last scores, which
    would be a comb as lines."""
    begin_us, (unit_us, name) = watcher.begin_us, _unit(watcher)
    is_image = watcher.binning is None
    axes.set_xlabel("steps" if is_image else f"time ({name})", fontsize=9)
    axes.tick_params(labelsize=8)
    if not watcher.steps:
        axes.text(
            0.5, 0.5, "no window has begun",
            transform=axes.transAxes, ha="center", va="center", fontsize=9, color=_DARK,
        )  # fmt: skip
        axes.set_yticks([])
        return
    if len(watcher.predictions) > _MOST_WINDOWS:
        _draw_map(axes, watcher, class_names, begin_us, unit_us)
    else:
        _draw_lines(axes, watcher, class_names, begin_us, unit_us)
    if is_image:
        axes.set_title("scores over time", fontsize=9)
        axes.locator_params(axis="x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_lines(
    axes: Any, watcher: Watcher, class_names: Sequence[str], begin_us: float, unit_us: float
) -> None:
    time, scores = _curves(watcher, begin_us, unit_us)
    best = np.nanmax(scores, axis=0)
    order = np.argsort(-best, kind="stable").tolist()
    answered = [item.label for item in watcher.predictions if item.label is not None]
    chosen = list(dict.fromkeys(answered))
    others = [k for k in order if k not in chosen]
    for k in others[1:]:
        axes.plot(time, scores[:, k], color=_PLAIN, linewidth=1)
    if others:
        word = "next" if chosen else "highest"
        label = f"{class_names[others[0]]} ({word})" if best[others[0]] > 0 else None
        axes.plot(time, scores[:, others[0]], color=_DARK, linewidth=1.2, label=label)
    for k in chosen:
        label = f"{class_names[k]} (answered)"
        axes.plot(time, scores[:, k], color=_CHOSEN, linewidth=2.2, label=label)
    low, high = min(0.0, float(np.nanmin(scores))), float(np.nanmax(scores))
    axes.set_ylim(low, low + max(high - low, 1.0) * 1.25)  # room for the legend
    axes.set_ylabel("score", fontsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)


def _curves(
    watcher: Watcher, begin_us: float, unit_us: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time of each step's end and scores [n, K]; between two windows, where nothing is scored, one
    row of NaN, which breaks the lines."""
    if watcher.binning is None:
        steps = np.arange(1.0, len(watcher.steps) + 1)
        return steps, np.stack([step.scores for step in watcher.steps]).astype(np.float64)
    step_us = watcher.binning.step_us
    time: list[float] = []
    rows: list[NDArray[np.float64]] = []
    before: int | None = None
    nothing = np.full(len(watcher.steps[0].scores), np.nan)
    for step in watcher.steps:
        begins = before is not None and (step.t_us != before + step_us or step.step == 0)
        if begins:
            time.append(np.nan)
            rows.append(nothing)
        time.append((step.t_us + step_us - begin_us) / unit_us)
        rows.append(np.asarray(step.scores, np.float64))
        before = step.t_us
    return np.array(time), np.stack(rows)


def _draw_map(
    axes: Any, watcher: Watcher, class_names: Sequence[str], begin_us: float, unit_us: float
) -> None:
    """Last scores of each window, a column as wide as it: darker is higher."""
    edges: list[float] = []
    columns: list[NDArray[np.float64]] = []
    nothing = np.full(len(class_names), np.nan)
    for item in watcher.predictions:
        if item.t_us <= item.begin_us:
            continue
        begin = (item.begin_us - begin_us) / unit_us
        end = (item.t_us - begin_us) / unit_us
        if not edges:
            edges.append(begin)
        elif begin > edges[-1]:
            edges.append(begin)
            columns.append(nothing)
        if end > edges[-1]:
            edges.append(end)
            columns.append(np.asarray(item.scores, np.float64))
    if not columns:
        return
    image = np.stack(columns, axis=1)
    colours = axes.pcolormesh(
        np.array(edges), np.arange(len(class_names) + 1) - 0.5, image,
        cmap="Oranges",
        vmin=min(0.0, float(np.nanmin(image))),
        vmax=max(1.0, float(np.nanmax(image))),
    )  # fmt: skip
    every = max(1, len(class_names) // 14 + (len(class_names) > 14))
    axes.set_yticks(range(0, len(class_names), every), class_names[::every], fontsize=7)
    axes.invert_yaxis()
    axes.set_ylabel("scores of windows", fontsize=8)
    axes.figure.colorbar(colours, ax=axes, pad=0.01, aspect=12).ax.tick_params(labelsize=7)
