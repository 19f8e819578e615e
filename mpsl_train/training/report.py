"""report.json: what a training gave, and what deserves a second look."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import RunError
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network
from mpsl_train.training.current_shares import norm_share
from mpsl_train.training.report_plot import BUSY, SILENT

__all__ = [
    "commit_of_checkout",
    "layer_facts",
    "parameter_counts",
    "read_report",
    "save_report",
]

_LARGEST_REPORT, _LARGEST_COUNT = 1 << 24, 1 << 50


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
def layer_facts(layer: SpikingLayer, rate: float, current_share: float | None) -> dict[str, Any]:
    """λ, the share ‖λk·Wk‖ of each bank, that of the local banks in norm and in current,
    cos(W2, W3), rule parameters and the firing rate.

    With the paper's δ the cosine is near 1: λ2 and λ3 are then hardly identifiable.

    Args:
        rate: spikes a neuron and step. current_share: of `current_shares`.
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
        "norm_share": norm_share(layer),
        "current_share": current_share,
        "cosine_w2_w3": _cosine(banks[1], banks[2]) if len(banks) > 2 else None,
        "rules": rules,
        "firing_rate": rate,
        "warning": warning,
    }


class _Report(BaseModel):
    """What others of our verbs read of report.json; each may be absent but the accuracy."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    accuracy: Annotated[float, Field(ge=0, le=1)]
    validation_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    test_samples: Annotated[int, Field(ge=0, le=_LARGEST_COUNT)] = 0
    training_seconds: Annotated[float, Field(ge=0)] = 0.0
    device: str = ""
    commit: str | None = None


def read_report(path: Path) -> dict[str, Any]:
    """What report.json says.

    Raises:
        RunError: it is absent, no JSON, or a value that we read has another type or range.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_REPORT + 1)
        if len(content) > _LARGEST_REPORT:
            raise ValueError("more than 16 MiB")
        found = json.loads(content, parse_constant=_refuse)
        # Halves of characters, which no file and no terminal takes.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError("report cannot be read", got=error, where=path) from error
    try:
        _Report.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "report"
        raise RunError("report cannot be read", got=f"{key}: {first['msg']}", where=path) from None
    return dict(found)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def save_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
