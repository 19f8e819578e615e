"""The picture of a comparison: each recipe's methods, run by run, with mean and spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw_comparison"]


def draw_comparison(path: Path, result: Mapping[str, Any]) -> None:
    """Draws what `compare_methods` found: a panel a recipe, a line a method.

    Args:
        path: of the picture. result: as `compare_methods` returns it.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["rows"]
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(max(5.0, 3.3 * len(recipes)), 1.9 + 0.36 * len(methods)),
                    layout="constrained")  # fmt: skip
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(recipes), squeeze=False)[0]
    title = (
        f"{result['seeds']} seeds, mean ± sd; p: paired t test against {rows[0]['reference']}, Holm"
    )
    figure.suptitle(title if result["seeds"] > 1 else "one seed", fontsize=9)
    for panel, recipe in zip(panels, recipes, strict=True):
        for row in rows:
            if row["recipe"] != recipe:
                continue
            place = methods.index(row["method"])
            colour, statistics = colormaps["tab10"](place % 10), row["statistics"]
            values = [100 * value for value in row["accuracy"].values()]
            panel.plot(values, [place] * len(values), "o", ms=4, alpha=0.5, color=colour, mew=0)
            panel.errorbar(
                100 * statistics["mean"], place, xerr=100 * (statistics["sd"] or 0), fmt="|",
                ms=14, color=colour, capsize=4, mew=2,
            )  # fmt: skip
            p = statistics["p_holm"]
            if p is not None:
                panel.annotate(
                    "p < 0.001" if p < 0.001 else f"p = {p:.2g}", (0.02, place + 0.33), fontsize=7,
                    xycoords=("axes fraction", "data"), va="center", color="0.35",
                )  # fmt: skip
        panel.set(title=recipe, xlabel="accuracy in %", ylim=(len(methods) - 0.4, -0.6))
        panel.set_yticks(range(len(methods)), methods if panel is panels[0] else [])
        panel.title.set_size(10)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
