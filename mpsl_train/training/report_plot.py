"""report.png: the curves of a training, and what its banks, λ and firing rates have become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpsl_runtime.atomic import replacing

__all__ = ["BUSY", "SILENT", "draw_report"]

# Firing rates, in spikes a neuron and step, outside which a layer tells little.
SILENT, BUSY = 0.005, 0.5


def draw_report(
    path: Path, report: Mapping[str, Any], history: Sequence[Mapping[str, float]]
) -> None:
    """Writes report.png.

    Args:
        report: as `finish` made it. history: one row an epoch.

    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.add_gridspec(2, 12)
    top = [figure.add_subplot(places[0, 4 * n : 4 * n + 4]) for n in range(3)]
    bottom = [figure.add_subplot(places[1, 3 * n : 3 * n + 3]) for n in range(4)]
    figure.suptitle(
        f"{report['name']}: {report['network']}  ·  {' + '.join(report['mechanisms'])}  ·  "
        f"test accuracy {report['accuracy']:.2%} ({report['test_samples']} samples)"
    )
    _draw_history(top[:2], report["accuracy"], history)
    layers = report["layers"]
    _draw_rates(top[2], layers)
    _draw_banks(bottom[0], report, "lambda", "coefficients λ at the end", 1)
    _draw_banks(bottom[1], report, "share", "share of the banks, ‖λW‖/Σ, in %", 100)
    shares = [100 * value for layer in layers for value in layer["share"] if value > 0]
    bottom[1].set(yscale="log", ylim=(min([*shares, 1.0]) / 3, 150))
    _draw_local_shares(bottom[2], layers)
    _draw_cosines(bottom[3], layers)
    for plot in (top[2], *bottom):
        plot.set_xticks(range(len(layers)), [layer["name"] for layer in layers])
        plot.grid(alpha=0.3, axis="y")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_history(plots: Any, test: float, history: Sequence[Mapping[str, float]]) -> None:
    epochs = [row["epoch"] for row in history]
    for plot, metric, scale in zip(plots, ("loss", "accuracy"), (1, 100), strict=True):
        for split in ("training", "validation"):
            key = f"{split}_{metric}"
            if history and key in history[0]:
                plot.plot(epochs, [scale * row[key] for row in history], ".-", label=split)
        plot.set(xlabel="epoch", ylabel=metric + (" in %" if scale == 100 else ""), title=metric)
        plot.grid(alpha=0.3)
        if metric == "accuracy":
            plot.axhline(100 * test, color="black", ls=":", lw=1, label="test, at the end")
        plot.legend()


def _draw_rates(plot: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    rates = [100 * layer["firing_rate"] for layer in layers]
    plot.bar(range(len(layers)), rates, color="tab:purple")
    plot.axhline(100 * SILENT, color="grey", ls=":", label=f"{SILENT:.1%}: nearly silent")
    plot.axhline(100 * BUSY, color="grey", ls="--", label=f"{BUSY:.0%}: too busy")
    plot.set(title="firing rate (test set)", ylabel="% of neurons and steps", yscale="log")
    plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2)


def _draw_banks(plot: Any, report: Mapping[str, Any], key: str, title: str, scale: int) -> None:
    """A bar for each bank of each layer."""
    mechanisms = report["mechanisms"]
    width = 0.8 / len(mechanisms)
    for number, mechanism in enumerate(mechanisms):
        offset = (number - (len(mechanisms) - 1) / 2) * width
        pairs = [
            (place + offset, scale * layer[key][layer["mechanisms"].index(mechanism)])
            for place, layer in enumerate(report["layers"])
            if mechanism in layer["mechanisms"]
        ]
        label = f"W{number + 1} {mechanism}"
        plot.bar([p for p, _ in pairs], [v for _, v in pairs], width, label=label)
    plot.set(title=title)
    # Below the bars: a legend inside hides the smallest ones, which are the news.
    plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3, fontsize=8)


def _draw_local_shares(plot: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    """The local banks against the whole, in norm and in what they drive."""
    shown = (("norm_share", "in norm", -0.2), ("current_share", "in current", 0.2))
    for key, label, offset in shown:
        values = [100 * (layer[key] or 0.0) for layer in layers]
        plot.bar([place + offset for place in range(len(layers))], values, 0.4, label=label)
    plot.set(title="λ2W2 + λ3W3 of the whole, in %")
    plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2)
    if all(layer["current_share"] is None for layer in layers):
        plot.text(0.5, 0.5, "no local bank", ha="center", transform=plot.transAxes)


def _draw_cosines(plot: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    cosines = [layer["cosine_w2_w3"] for layer in layers]
    plot.bar(range(len(layers)), [value or 0.0 for value in cosines], color="tab:brown")
    plot.set(title="cos(W2, W3); 1: λ2, λ3 alike", ylim=(-1.05, 1.05))
    if all(value is None for value in cosines):
        plot.text(0.5, 0.5, "fewer than three banks", ha="center", transform=plot.transAxes)
