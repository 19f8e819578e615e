"""Pictures of curves with error bars: one panel a corruption, one colour a method."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

__all__ = ["draw_curves"]

_STYLE = {
    "frozen": ("-", "o"),
    "aligned": ("--", "s"),
    "modulated": ("-.", "D"),
    "plastic": (":", "^"),
}


def draw_curves(path: Path, result: Mapping[str, Any]) -> None:
    """Draws what `robustness` measured.

    Args:
        path: of the picture. result: as `robustness` returns it.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    corruptions, curves = result["corruptions"], result["curves"]
    columns = min(3, len(corruptions))
    lines = ceil(len(corruptions) / columns)
    legend_lines = ceil(len(curves) / 3)
    figure = Figure(
        figsize=(max(4.2 * columns, 7), 3.3 * lines + 0.6 + 0.25 * legend_lines),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    seeds = result["corruption_seeds"]
    break_ = "\n" if columns < 3 else " "  # narrow pictures would lose the ends of the line
    figure.suptitle(
        f"{result['dataset']}: {result['samples']} {result['split']} samples, "
        f"{seeds} corruption seed{'s' * (seeds != 1)};{break_}"
        "mean ± sd over runs, of a single run over the seeds",
        fontsize=10,
    )
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    methods = list(dict.fromkeys(_method(curve) for curve in curves))
    colours = colormaps["tab10"]
    handles: dict[str, Any] = {}
    for panel, (name, corruption) in zip(panels, corruptions.items(), strict=False):
        # At equal distances: levels grow by factors, and their numbers would overlap.
        places = range(len(corruption["levels"]))
        panel.set_xticks(places, [f"{level:g}" for level in corruption["levels"]])
        lowest = min(min(curve["mean"][name]) for curve in curves)
        # Never closer than 20 points: noise of a sample or two would fill the panel.
        panel.set_ylim(min(80, 100 * lowest - 5), 101)
        for curve in curves:
            line, marker = _STYLE[curve["variant"]]
            handles[curve["label"]] = panel.errorbar(
                places,
                [100 * value for value in curve["mean"][name]],
                [100 * value for value in curve["sd"][name]],
                ls=line, marker=marker, ms=4, lw=1.4, elinewidth=0.9, capsize=2,
                color=colours(methods.index(_method(curve)) % 10),
            )  # fmt: skip
        panel.set_title(corruption["title"], fontsize=10)
        panel.set_xlabel(corruption["unit"], fontsize=9)
        panel.set_ylabel("accuracy in %", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    for panel in panels[len(corruptions) :]:
        panel.axis("off")
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip
    figure.savefig(path, dpi=100)


def _method(curve: Mapping[str, Any]) -> str:
    return str(curve["label"]).replace(f", {curve['variant']}", "")
