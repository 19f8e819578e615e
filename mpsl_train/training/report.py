"""report.json and report.png: what a training gave, and what deserves a second look."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mpsl_runtime.atomic import replacing
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network

__all__ = [
    "commit_of_checkout",
    "draw_report",
    "layer_facts",
    "parameter_counts",
    "save_report",
]

SILENT, BUSY = 0.005, 0.5


@cache
def commit_of_checkout() -> str | None:
    """The checkout's commit when this process first asked, where there is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def parameter_counts(network: Network) -> dict[str, int]:
    """`banks`: weights of all banks and biases; `merged`: of the model that is deployed, the same
    as of a network with one rule; `trainable`: what the optimiser changes."""
    layers = network.layer_list
    return {
        "banks": sum(bank.numel() for layer in layers for bank in layer.banks)
        + sum(layer.bias.numel() for layer in layers),
        "merged": sum(layer.spec.parameters for layer in layers),
        "trainable": sum(value.numel() for value in network.parameters() if value.requires_grad),
    }


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    a, b = a.double(), b.double()
    norms = float(a.norm() * b.norm())
    return float((a * b).sum()) / norms if norms > 0 else None


@torch.no_grad()
def layer_facts(layer: SpikingLayer, rate: float) -> dict[str, Any]:
    """λ, the share ‖λk·Wk‖ of each bank, cos(W2, W3), rule parameters and the firing rate.

    With the paper's δ the cosine is near 1: λ2 and λ3 are then hardly identifiable.
    """
    coefficients = layer.coefficients.detach().cpu()
    banks = [bank.detach().cpu() for bank in layer.banks]
    weighted = []
    for value, bank in zip(coefficients, banks, strict=True):
        scale = value.view(-1, *([1] * (bank.dim() - 1))) if value.dim() else value
        weighted.append(float((scale * bank).norm()))
    total = sum(weighted)
    rules: dict[str, dict[str, float]] = {}
    for name, rule in layer.rules.items():
        values = {key: float(value.detach().mean()) for key, value in rule.named_parameters()}
        if values:
            rules[name] = values
    warning = None
    if rate < SILENT:
        warning = f"fires in {rate:.2%} of all steps: nearly silent"
    elif rate > BUSY:
        warning = f"fires in {rate:.0%} of all steps: little is told by a spike"
    return {
        "name": layer.spec.name,
        "mechanisms": list(layer.mechanisms),
        "lambda": [float(value.mean()) for value in coefficients],
        "share": [value / total if total > 0 else 0.0 for value in weighted],
        "cosine_w2_w3": _cosine(banks[1], banks[2]) if len(banks) > 2 else None,
        "rules": rules,
        "firing_rate": rate,
        "warning": warning,
    }


def save_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")


def draw_report(
    path: Path, report: Mapping[str, Any], history: Sequence[Mapping[str, float]]
) -> None:
    """Writes report.png: curves; λ and bank shares of each layer; firing rates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    test = report["accuracy"]
    figure.suptitle(
        f"{report['name']}: {report['network']}  ·  {' + '.join(report['mechanisms'])}  ·  "
        f"test accuracy {test:.2%} ({report['test_samples']} samples)"
    )
    epochs = [row["epoch"] for row in history]
    for column, (metric, scale) in enumerate((("loss", 1), ("accuracy", 100))):
        plot = axes[0, column]
        for split in ("training", "validation"):
            key = f"{split}_{metric}"
            if history and key in history[0]:
                plot.plot(epochs, [scale * row[key] for row in history], ".-", label=split)
        plot.set(xlabel="epoch", ylabel=metric + (" in %" if scale == 100 else ""), title=metric)
        plot.grid(alpha=0.3)
        if metric == "accuracy":
            plot.axhline(100 * test, color="black", ls=":", lw=1, label="test, at the end")
        plot.legend()
    layers = report["layers"]
    names = [layer["name"] for layer in layers]
    places = range(len(layers))
    axes[0, 2].bar(places, [100 * layer["firing_rate"] for layer in layers], color="tab:purple")
    axes[0, 2].axhline(100 * SILENT, color="grey", ls=":", label=f"{SILENT:.1%}: nearly silent")
    axes[0, 2].axhline(100 * BUSY, color="grey", ls="--", label=f"{BUSY:.0%}: too busy")
    axes[0, 2].set(title="firing rate (test set)", ylabel="% of neurons and steps", yscale="log")
    axes[0, 2].legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2)
    mechanisms = report["mechanisms"]
    for plot, key, title in (
        (axes[1, 0], "lambda", "coefficients λ at the end"),
        (axes[1, 1], "share", "share of the banks, ‖λW‖/Σ, in %"),
    ):
        for number, mechanism in enumerate(mechanisms):
            offset = (number - (len(mechanisms) - 1) / 2) * 0.8 / len(mechanisms)
            scale = 100 if key == "share" else 1
            pairs = [
                (place + offset, scale * layer[key][layer["mechanisms"].index(mechanism)])
                for place, layer in zip(places, layers, strict=True)
                if mechanism in layer["mechanisms"]
            ]
            label = f"W{number + 1} {mechanism}"
            plot.bar([p for p, _ in pairs], [v for _, v in pairs], 0.8 / len(mechanisms),
                     label=label)  # fmt: skip
        plot.set(title=title)
        # Below the bars: a legend inside hides the smallest ones, which are the news.
        plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=len(mechanisms))
    shares = [100 * value for layer in layers for value in layer["share"] if value > 0]
    axes[1, 1].set(yscale="log", ylim=(min([*shares, 1.0]) / 3, 150))
    cosines = [layer["cosine_w2_w3"] for layer in layers]
    axes[1, 2].bar(places, [value or 0.0 for value in cosines], color="tab:brown")
    axes[1, 2].set(title="cos(W2, W3); near 1: λ2, λ3 alike", ylim=(-1.05, 1.05))
    if all(value is None for value in cosines):
        axes[1, 2].text(0.5, 0.5, "fewer than three banks", ha="center",
                        transform=axes[1, 2].transAxes)  # fmt: skip
    for plot in (axes[0, 2], axes[1, 0], axes[1, 1], axes[1, 2]):
        plot.set_xticks(list(places), names)
        plot.grid(alpha=0.3, axis="y")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
