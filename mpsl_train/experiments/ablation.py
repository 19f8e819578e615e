"""`mpsl ablate`: mechanisms × what becomes of λ × seeds (Fig. 4), through one resumable sweep."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.experiments.ablation_plot import draw_ablation
from mpsl_train.experiments.comparison import compare
from mpsl_train.experiments.journal import Outcome
from mpsl_train.experiments.raw_numbers import write_raw
from mpsl_train.experiments.sweep import sweep
from mpsl_train.network.plasticity import find_rule
from mpsl_train.network.plugins import run_plugin
from mpsl_train.recipe import Recipe, find_recipe, load

__all__ = ["MECHANISMS", "MODES", "Configuration", "ablate", "configurations"]

MECHANISMS = ("stbp", "stbp+hebbian", "stbp+hebbian+sbp")
MODES = ("fixed", "learnable", "frozen")


@dataclass(frozen=True)
class Configuration:
    """One cell of the table.

    Attributes:
        mechanisms: joined by `+`. mode: of λ. recipes: by seed.
    """

    mechanisms: str
    mode: str
    recipes: Mapping[int, Recipe]

    @property
    def name(self) -> str:
        """As in the names of its runs."""
        return f"{self.mechanisms}-{self.mode}"


def configurations(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    mechanisms: Sequence[str] = MECHANISMS,
    modes: Sequence[str] = MODES,
    seeds: int = 5,
    plugins: Sequence[str] = (),
) -> list[Configuration]:
    """Every combination; of a single bank only the first mode, since λ is then but a scale of W1.

    `frozen` learns λ for the first half of the epochs.

    Args:
        plugins: that the user has named, as `load` takes them.

    Raises:
        RecipeError: no such recipe or mechanism, or a wrong value. UsageError: nothing to compare.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise UsageError("unknown mode of λ", got=repr(unknown[0]), expected=", ".join(MODES))
    if seeds < 1:
        raise UsageError("too few seeds", got=seeds, expected="≥ 1")
    path = find_recipe(recipe)
    cells = []
    for kinds in dict.fromkeys(mechanisms):
        for mode in list(dict.fromkeys(modes))[: 1 if "+" not in kinds else None]:
            own = [*overrides, f"mechanisms={kinds}", f"rules.coefficients={mode}"]
            recipes = {}
            for seed in range(seeds):
                chosen = load(path, [*own, f"seed={seed}"], plugins)
                if mode == "frozen":
                    half = max(1, chosen.training.epochs // 2)
                    chosen = load(
                        path, [*own, f"seed={seed}", f"rules.freeze_epoch={half}"], plugins
                    )
                recipes[seed] = chosen
            # Now, not in every worker.
            for plugin in recipes[0].plugins:
                run_plugin(plugin)
            for kind in recipes[0].mechanisms:
                find_rule(kind)
            cells.append(Configuration(kinds, mode, recipes))
    if len(cells) < 2:
        raise UsageError("nothing to compare", got=cells[0].name if cells else "no mechanism",
                         expected="two configurations")  # fmt: skip
    return cells


def ablate(
    cells: Sequence[Configuration],
    out: Path,
    *,
    data: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    ray: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains what is not there yet; writes `ablation.json`, `.csv` and `.png` into `out`.

    Every configuration is compared with the first one, seed by seed.

    Args:
        cells: of `configurations`. out: folder of the sweep.
        data, device, workers, ray, say: as `sweep` takes them.

    Raises:
        MpslError: the folder cannot be used, or a configuration has no run that finished.
    """
    jobs = {
        f"{cell.name}-s{seed}": recipe for cell in cells for seed, recipe in cell.recipes.items()
    }
    outcomes = sweep(out, jobs, data=data, device=device, workers=workers, ray=ray, say=say)
    rows = [_row(cell, outcomes) for cell in cells]
    accuracies = {row["name"]: row["accuracy"] for row in rows}
    for row, compared in zip(rows, compare(accuracies), strict=True):
        row["against_first"] = compared
    first = next(iter(cells[0].recipes.values()))
    result = {
        "recipe": first.name,
        "dataset": first.data.dataset,
        "network": first.network,
        "epochs": first.training.epochs,
        "configurations": rows,
        "failed": {
            name: outcome.error for name, outcome in outcomes.items() if outcome.report is None
        },
    }
    write_raw(out / "ablation.csv", _raw(cells, outcomes))
    with replacing(out / "ablation.png") as temporary:
        draw_ablation(temporary, result)
    with replacing(out / "ablation.json") as temporary:
        temporary.write_text(json.dumps(result) + "\n", "utf-8")
    return result


def _raw(cells: Sequence[Configuration], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """One row a run, those that failed without an accuracy."""
    return [
        {
            "mechanisms": cell.mechanisms,
            "mode": cell.mode,
            "seed": seed,
            **{
                key: (outcomes[f"{cell.name}-s{seed}"].report or {}).get(key)
                for key in ("accuracy", "validation_accuracy", "test_samples", "epochs", "commit")
            },
            "recipe_hash": recipe.hash(),
            "error": outcomes[f"{cell.name}-s{seed}"].error,
        }
        for cell in cells
        for seed, recipe in cell.recipes.items()
    ]


def _row(cell: Configuration, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    runs = {seed: outcomes[f"{cell.name}-s{seed}"] for seed in cell.recipes}
    finished = {seed: run for seed, run in runs.items() if run.report is not None}
    if not finished:
        raise RunError(
            f"every run of {cell.name} failed", got=next(iter(runs.values())).error,
            where=next(iter(runs.values())).run.parent,
        )  # fmt: skip
    curves = [_curve(RunFolder(run.run).metrics) for run in finished.values()]
    # Early stopping may have ended some runs before others.
    epochs = min(len(curve["training_loss"]) for curve in curves)
    together = {
        key: np.array([curve[key][:epochs] for curve in curves])
        for key in curves[0]
        if all(key in curve for curve in curves)
    }
    return {
        "name": cell.name,
        "mechanisms": cell.mechanisms,
        "mode": cell.mode,
        "accuracy": {str(seed): (run.report or {})["accuracy"] for seed, run in finished.items()},
        "curves": {
            key: {"mean": values.mean(0).tolist(), "sd": _sd(values).tolist()}
            for key, values in together.items()
        },
    }


def _sd(values: Any) -> Any:
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def _curve(path: Path) -> dict[str, list[float]]:
    """The columns of metrics.csv that Fig. 4 shows."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {
            key: [float(row[key]) for row in rows]
            for key in ("training_loss", "training_accuracy", "validation_accuracy")
            if rows and key in rows[0]
        }
        if "training_loss" not in columns:
            raise ValueError("no column training_loss")
        if not all(math.isfinite(value) for column in columns.values() for value in column):
            raise ValueError("a value that is not finite")
        return columns
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError("metrics cannot be read", got=error, where=path) from error
