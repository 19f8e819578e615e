"""The picture of an ablation: curves over the epochs, and what the test set said at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw_ablation"]

_LINES = {"fixed": "-", "learnable": "--", "frozen": ":"}


def draw_ablation(path: Path, result: Mapping[str, Any]) -> None:
    """Draws what `ablate` found.

    Args:
        path: of the picture. result: as `ablate` returns it.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["configurations"]
    kinds = list(dict.fromkeys(row["mechanisms"] for row in rows))
    colours = {kind: colormaps["tab10"](number % 10) for number, kind in enumerate(kinds)}
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, test = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    figure.suptitle(
        f"{result['recipe']}: {result['network']}, {result['epochs']} epochs; mean ± sd over "
        f"{max(len(row['accuracy']) for row in rows)} seeds",
        fontsize=10,
    )
    for row in rows:
        colour = colours[row["mechanisms"]]
        _draw_curve(loss, row, "training_loss", 1, colour)
        _draw_curve(accuracy, row, "validation_accuracy", 100, colour)
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy in %")
    for place, row in enumerate(rows):
        _draw_test(test, place, row, colours[row["mechanisms"]])
    test.set_yticks(range(len(rows)), [_tick(row) for row in rows], fontsize=8)
    test.invert_yaxis()
    test.set_xlabel("test accuracy in %; p: paired t test against the first")
    for panel in (loss, accuracy, test):
        panel.grid(alpha=0.3)
        panel.xaxis.label.set_size(9)
    for panel in (loss, accuracy):
        panel.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(rows)), fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.savefig(path, dpi=80)


def _draw_curve(panel: Any, row: Mapping[str, Any], key: str, scale: int, colour: Any) -> None:
    """Mean over the seeds, one standard deviation around it."""
    if key not in row["curves"]:
        return
    mean, sd = row["curves"][key]["mean"], row["curves"][key]["sd"]
    epochs = range(1, len(mean) + 1)
    panel.plot(
        epochs, [scale * value for value in mean], _LINES[row["mode"]], color=colour, lw=1.5,
        label=_label(row),
    )  # fmt: skip
    panel.fill_between(
        epochs,
        [scale * (m - s) for m, s in zip(mean, sd, strict=True)],
        [scale * (m + s) for m, s in zip(mean, sd, strict=True)],
        color=colour, alpha=0.07, lw=0,
    )  # fmt: skip


def _draw_test(panel: Any, place: int, row: Mapping[str, Any], colour: Any) -> None:
    """A point for each seed, mean and standard deviation over them."""
    values = [100 * value for value in row["accuracy"].values()]
    statistics = row["against_first"]
    panel.plot(values, [place] * len(values), "o", ms=4, alpha=0.5, color=colour, mew=0)
    panel.errorbar(
        100 * statistics["mean"], place, xerr=100 * (statistics["sd"] or 0), fmt="|", ms=14,
        color=colour, capsize=4, mew=2,
    )  # fmt: skip


def _label(row: Mapping[str, Any]) -> str:
    # λ of a single bank is but a scale of it.
    kinds = str(row["mechanisms"])
    return f"{kinds}, λ {row['mode']}" if "+" in kinds else kinds


def _tick(row: Mapping[str, Any]) -> str:
    p = row["against_first"]["p_t"]
    second = f"λ {row['mode']}" if "+" in row["mechanisms"] else ""
    return f"{row['mechanisms']}\n{second}" + ("" if p is None else f", p = {p:.2g}")
