"""`mpsl compare`: methods × recipes × seeds at one budget (Table 2), in one resumable sweep."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import RunError, UsageError
from mpsl_train.data.acquire import locate
from mpsl_train.experiments.comparison import collapsed, compare, holm
from mpsl_train.experiments.journal import Outcome
from mpsl_train.experiments.method_plot import draw_comparison
from mpsl_train.experiments.raw_numbers import write_raw
from mpsl_train.experiments.sweep import sweep
from mpsl_train.experiments.variants import Variant, variants
from mpsl_train.recipe import Recipe, find_recipe, load

__all__ = ["DEFAULT_METHODS", "Entry", "compare_methods", "entries", "same_budget", "table"]

DEFAULT_METHODS = ("stdp", "sbp", "stbp", "hgll", "mpsl")


@dataclass(frozen=True)
class Entry:
    """One method on one recipe.

    Attributes:
        recipe: name of the recipe. variant: the method. recipes: as trained, by seed.
        samples: that one run is shown, each as often as it is shown. batch: samples an update.
    """

    recipe: str
    variant: Variant
    recipes: Mapping[int, Recipe]
    samples: int
    batch: int

    @property
    def method(self) -> str:
        """As tables show it."""
        return self.variant.label

    @property
    def name(self) -> str:
        """As in the names of its runs."""
        return f"{self.recipe}-{self.variant.word}"


def same_budget(recipe: Recipe, labels: NDArray[np.int64], samples: int) -> list[str]:
    """Changes after which training shows exactly `samples` samples, whole batches of them.

    The fewest epochs, from the recipe's own number on, whose samples the data set has.

    Args:
        labels: of the whole training split.

    Raises:
        UsageError: not a whole number of batches.
    """
    size = recipe.training.batch_size
    updates, rest = divmod(samples, size)
    if rest or not updates:
        raise UsageError(
            "budget is not a whole number of updates", got=f"{samples} samples",
            expected=f"a multiple of the batch, {size}", where=recipe.method or recipe.name,
        )  # fmt: skip
    epochs = recipe.training.epochs
    while epochs <= updates:
        each = updates // epochs
        if updates % epochs == 0:
            # Half a batch more than needed: the held-out part is rounded class by class.
            limit = round((each + 0.5) * size / (1 - recipe.data.validation))
            if limit < len(labels) and _updates(recipe, labels, limit) == each:
                return [f"training.epochs={epochs}", f"data.train_limit={limit}"]
            if _updates(recipe, labels, 0) == each:
                return [f"training.epochs={epochs}", "data.train_limit=0"]
        epochs += 1
    raise UsageError(
        "fewer training samples than one batch" if len(labels) < size else "no such budget",
        got=f"{updates} updates in {recipe.training.epochs} epochs of {len(labels)} samples",
        expected="more updates, or fewer epochs: --set training.epochs", where=recipe.name,
    )  # fmt: skip


def _updates(recipe: Recipe, labels: NDArray[np.int64], limit: int) -> int:
    training, _ = stratified_split(labels, recipe.data.validation, recipe.seed, limit)
    return len(training) // recipe.training.batch_size


def entries(
    recipes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: int = 5,
    updates: int = 0,
    data: Path | None = None,
    plugins: Sequence[str] = (),
) -> list[Entry]:
    """Every method on every recipe, but for methods that are made for other data sets.

    Args:
        recipes: names or paths. overrides: `--set`, after the method's own changes.
        methods: as `variants` takes them.
        updates: of the recipe's batch size; methods with batches of their own are shown as many
            samples. 0: as long as each recipe says.
        data: a data set's folder or the parent of several; read for the number of samples.
        plugins: that the user has named, as `load` takes them.

    Raises:
        MpslError: a recipe, a method or the data cannot be read; nothing to compare.
    """
    if seeds < 1:
        raise UsageError("too few seeds", got=seeds, expected="≥ 1")
    if updates < 0:
        raise UsageError("number of updates is negative", got=updates, expected="≥ 0")
    chosen_methods = variants(list(methods))
    found: list[Entry] = []
    for word in dict.fromkeys(recipes):
        path = find_recipe(word)
        plain = load(path, [*overrides, "seed=0"], plugins)
        if plain.name in {entry.recipe for entry in found}:
            raise UsageError("two recipes have one name", got=plain.name, where=word)
        dataset = plain.data.dataset
        labels = datasets.open_split(dataset, locate(dataset, data), "train").labels
        for variant in chosen_methods:
            if variant.facts.datasets and dataset not in variant.facts.datasets:
                continue
            chosen = {}
            for seed in range(seeds):
                own = [f"method={variant.method}", *overrides, *variant.overrides]
                own.append(f"seed={seed}")
                recipe = load(path, own, plugins)
                if updates:
                    budget = updates * plain.training.batch_size
                    recipe = load(path, [*own, *same_budget(recipe, labels, budget)], plugins)
                chosen[seed] = recipe
            size, first = chosen[0].training.batch_size, chosen[0]
            each = _updates(first, labels, first.data.train_limit) * size
            found.append(
                Entry(plain.name, variant, chosen, each * first.training.epochs, size)
            )  # fmt: skip
    if not found:
        raise UsageError("nothing to compare", got=", ".join(methods) or "no method",
                         expected="a method that suits the data sets")  # fmt: skip
    return found


def compare_methods(
    chosen: Sequence[Entry],
    out: Path,
    *,
    data: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    ray: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains what is not there yet; writes `comparison.json`, `.csv`, `.md` and `.png` into `out`.

    Each method is compared with STBP, or where that is absent with the first one, seed by seed.
    The CSV has every run's numbers, of which the rest is made.

    Args:
        chosen: of `entries`. out: folder of the sweep.
        data, device, workers, ray, say: as `sweep` takes them.

    Raises:
        MpslError: the folder cannot be used, or a method has no run that finished.
    """
    # Seed by seed, so that a sweep that is stopped has whole seeds of every method.
    seeds = sorted({seed for entry in chosen for seed in entry.recipes})
    jobs = {
        f"{entry.name}-s{seed}": entry.recipes[seed]
        for seed in seeds
        for entry in chosen
        if seed in entry.recipes
    }
    outcomes = sweep(out, jobs, data=data, device=device, workers=workers, ray=ray, say=say)
    rows = []
    for recipe in dict.fromkeys(entry.recipe for entry in chosen):
        rows += _rows([entry for entry in chosen if entry.recipe == recipe], outcomes)
    adjusted = holm([row["statistics"]["p_t"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["statistics"]["p_holm_table"] = p
    result = {
        "seeds": len(seeds),
        "rows": rows,
        "failed": {
            name: outcome.error for name, outcome in outcomes.items() if outcome.report is None
        },
    }
    write_raw(out / "comparison.csv", _raw(chosen, outcomes))
    with replacing(out / "comparison.png") as temporary:
        draw_comparison(temporary, result)
    with replacing(out / "comparison.md") as temporary:
        temporary.write_text(table(result), "utf-8")
    with replacing(out / "comparison.json") as temporary:
        temporary.write_text(json.dumps(result) + "\n", "utf-8")
    return result


def _raw(chosen: Sequence[Entry], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """One row a run, those that failed without an accuracy."""
    rows = []
    for entry in chosen:
        for seed, recipe in entry.recipes.items():
            outcome = outcomes[f"{entry.name}-s{seed}"]
            report = outcome.report or {}
            rows.append(
                {
                    "recipe": entry.recipe,
                    "dataset": recipe.data.dataset,
                    "method": entry.method,
                    "seed": seed,
                    "accuracy": report.get("accuracy"),
                    "validation_accuracy": report.get("validation_accuracy"),
                    "test_samples": report.get("test_samples"),
                    "epochs": report.get("epochs"),
                    "updates": entry.samples // entry.batch,
                    "batch": entry.batch,
                    "training_seconds": report.get("training_seconds"),
                    "device": report.get("device"),
                    "commit": report.get("commit"),
                    "recipe_hash": recipe.hash(),
                    "error": outcome.error,
                }
            )
    return rows


def _rows(chosen: Sequence[Entry], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """The methods of one recipe."""
    reports: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in chosen:
        runs = {seed: outcomes[f"{entry.name}-s{seed}"] for seed in entry.recipes}
        reports[entry.method] = {
            str(seed): run.report for seed, run in runs.items() if run.report is not None
        }
        if not reports[entry.method]:
            broken = next(iter(runs.values()))
            raise RunError(f"every run of {entry.name} failed", got=broken.error,
                           where=broken.run.parent)  # fmt: skip
    reference = "stbp" if "stbp" in reports else chosen[0].method
    order = [reference, *(method for method in reports if method != reference)]
    accuracies = {
        method: {seed: report["accuracy"] for seed, report in reports[method].items()}
        for method in order
    }
    statistics = dict(zip(order, compare(accuracies), strict=True))
    usual = float(np.median([a for values in accuracies.values() for a in values.values()]))
    rows = []
    for entry in chosen:
        own = list(reports[entry.method].values())
        first = entry.recipes[0]
        class_names = datasets.facts_of(first.data.dataset).class_names
        seconds = [one.get("training_seconds", 0.0) for one in own]
        rows.append(
            {
                "recipe": entry.recipe,
                "dataset": first.data.dataset,
                "method": entry.method,
                "network": first.network,
                "steps": first.data.steps,
                "samples": entry.samples,
                "batch": entry.batch,
                "updates": entry.samples // entry.batch,
                "epochs": first.training.epochs,
                "train_limit": first.data.train_limit,
                "test_samples": own[0].get("test_samples"),
                "accuracy": accuracies[entry.method],
                "collapsed": collapsed(
                    list(accuracies[entry.method].values()), usual, len(class_names)
                ),
                "reference": reference,
                "statistics": statistics[entry.method],
                "training_seconds": float(np.mean(seconds)),
                "device": own[0].get("device"),
                "commit": own[0].get("commit"),
            }
        )
    return rows


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown: accuracies, differences from the reference, and the budget."""
    rows = result["rows"]
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["recipe"], row["method"]): row for row in rows}
    lines = [
        f"Test accuracy in %, mean ± sd over {result['seeds']} seeds.",
        "",
        "| | " + " | ".join(recipes) + " |",
        "|---" * (len(recipes) + 1) + "|",
    ]
    for method in methods:
        values = [_accuracy(cells.get((recipe, method))) for recipe in recipes]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    reference = rows[0]["reference"]
    lines += [
        "",
        f"Points against {reference}, paired by seed: mean difference (95 % interval), "
        "p of the t test after Holm within the column"
        + (", then over all of the table." if len(recipes) > 1 else "."),
        "",
        "| | " + " | ".join(recipes) + " |",
        "|---" * (len(recipes) + 1) + "|",
    ]
    for method in methods:
        found = [cells.get((recipe, method)) for recipe in recipes]
        values = [_difference(row, len(recipes) > 1) for row in found]
        if method != reference:
            lines.append(f"| {method} | " + " | ".join(values) + " |")
    lines += ["", "Budget of each run, the same for every seed:", "",
              "| recipe | method | network | T | samples shown | updates × batch | epochs | "
              "test samples | seconds |", "|---" * 9 + "|"]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['recipe']} | {row['method']} | `{row['network']}` | {row['steps']} | "
            f"{row['samples']} | {row['updates']} × {row['batch']} | {row['epochs']} | "
            f"{row['test_samples']} | {row['training_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _accuracy(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    statistics = row["statistics"]
    sd = "" if statistics["sd"] is None else f" ± {100 * statistics['sd']:.2f}"
    text = f"{100 * statistics['mean']:.2f}{sd}"
    if not row.get("collapsed"):
        return text
    ends = "collapses" if row["collapsed"] == 1 else "collapse"
    return f"{text}, {row['collapsed']} of {statistics['seeds']} seeds {ends}"


def _difference(row: Mapping[str, Any] | None, several: bool) -> str:
    statistics = {} if row is None else row["statistics"]
    if statistics.get("difference") is None:
        return "–"
    text = f"{100 * statistics['difference']:+.2f}"
    if statistics["interval"] is None:
        return text
    low, high = statistics["interval"]
    text = f"{text} ({100 * low:+.2f} … {100 * high:+.2f}), p = {statistics['p_holm']:.3f}"
    return f"{text}, {statistics['p_holm_table']:.3f}" if several else text
