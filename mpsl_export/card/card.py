"""A model card: everything in it came out of runs.

`make_card` reads finished runs, verifies the first one's exports, measures its work on the test set
and gathers all that in one mapping, the card's report.json. `card_text` turns exactly that mapping
into card.md, so a figure can neither be typed nor forgotten.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mpsl_export.card.card_runs import LAYER_FACTS, CardRun, check_recipe, read_run, sort_runs
from mpsl_export.card.card_text import card_text
from mpsl_export.card.published import PUBLISHED, Published
from mpsl_export.card.synaptic_operations import measure_operations
from mpsl_export.export import export
from mpsl_export.merge import parameter_counts
from mpsl_export.recipe_file import holdout_of
from mpsl_export.verify.own_record import check_own_record
from mpsl_export.verify.samples import check_record, open_samples, open_test_split
from mpsl_export.verify.verify import verify
from mpsl_export.write.format import format_of, formats
from mpsl_runtime.atomic import replacing_together
from mpsl_runtime.bench.inputs import synthetic
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import OutputError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.model import Model
from mpsl_runtime.run_folder import RunFolder

__all__ = ["LARGEST_MODEL", "SYNOPS_SAMPLES", "make_card", "model_probe", "save_card"]

FORMAT = 2  # 1 called the runs of other methods otherwise
LARGEST_MODEL = 15_000_000  # bytes of a model.nir that a repository should carry
SYNOPS_SAMPLES = 1000
_PROBE_SEED = 3


def make_card(
    paths: Sequence[Path],
    folder: Path,
    *,
    data: Path | None = None,
    limit: int | None = None,
    backends: Sequence[str] = (),
    changed: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Gathers what runs have produced.

    Args:
        paths: run folders: the first is the model that is published; then its other seeds, and runs
            of other methods, which have the same recipe but for seed and method.
        folder: the model's, with its recipe.toml.
        data, limit, progress: see `mpsl_export.verify.verify.verify`.
        backends: default all that are installed.
        changed: recipe keys that the runs have otherwise than the folder's recipe.toml, as
            `training.epochs`; the card says which, and what was planned.

    Returns:
        The card's report.json; its `verification` says whether the exports passed.

    Raises:
        RunError: a run is damaged, or its record contradicted by the data set or its own banks.
        UsageError: runs that do not belong on one card. DataError: the data set is absent.
    """
    runs = [read_run(path) for path in paths]
    groups = sort_runs(runs)
    first = runs[0]
    changes = check_recipe(folder, first, changed)
    test = open_test_split(first.checkpoint.model.dataset, data)
    for run in runs:
        check_record(run.checkpoint, run.evaluation, test)
    for run in runs[1:]:  # the first is verified with its exports
        samples = open_samples(run.checkpoint, run.evaluation, test, limit)
        check_own_record(run.checkpoint, samples, progress)
    model = _exported(first.path, data)
    wanted = list(backends) or _backends(first.path)
    verification = verify(
        first.path,
        data=data,
        limit=limit,
        backends=wanted,
        stamp=True,
        test=test,
        progress=progress,
    )
    for entry in verification["models"]:
        entry["file"] = Path(entry["file"]).name
    root = datasets.find(test.split.name, data)
    figures = {
        "data": _data(first, datasets.open_split(test.split.name, root, "train")),
        "operations": _operations(first, model, test.split),
        "verification": verification,
        "model": _model(model),
        "changed": changes,
    }
    return _card(first, groups, figures)


def _card(
    first: CardRun, groups: Mapping[str, Sequence[CardRun]], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """The card's report.json.

    Args:
        groups: runs by method. figures: what was measured here.
    """
    published = PUBLISHED.get(first.checkpoint.model.dataset, Published())
    own = groups[first.method]
    others = {method: group for method, group in groups.items() if method != first.method}
    return {
        "format": FORMAT,
        "name": first.recipe["name"],
        "network": first.checkpoint.network,
        "mechanisms": list(first.recipe["mechanisms"]),
        "recipe": dict(first.recipe),
        "recipe_hash": first.checkpoint.model.recipe_hash,
        "changed": figures["changed"],
        "data": figures["data"],
        "published": asdict(published),
        "accuracy": _statistics(own),
        "runs": [run.facts() for run in own],
        "other_methods": [
            {"method": method, "accuracy": _statistics(group),
             "runs": [run.facts() for run in group]}
            for method, group in others.items()
        ],
        "parameters": asdict(parameter_counts(first.checkpoint)),
        "layers": _layers(first),
        "operations": figures["operations"],
        "verification": figures["verification"],
        "model": figures["model"],
        "warnings": first.report["warnings"],
    }  # fmt: skip


def save_card(folder: Path, card: Mapping[str, Any], model: Path) -> list[Path]:
    """Writes report.json, card.md and, where the card has one, model.nir into a model's folder: all
    of them in one step, so that a card is never beside the model of another.

    Raises:
        OutputError: it cannot be written.
    """
    if not folder.is_dir():
        raise OutputError("cannot write output", got="no such folder", where=folder)
    contents = {
        "report.json": (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode(),
        "card.md": card_text(card).encode(),
    }
    if card["model"]["published"]:
        contents["model.nir"] = model.read_bytes()
    # Without a model of its own, an older and smaller one goes.
    with replacing_together(folder, [*contents, "model.nir"]) as stage:
        for name, content in contents.items():
            (stage / name).write_bytes(content)
    return [folder / name for name in contents]


def model_probe(path: Path) -> dict[str, Any]:
    """What the engine makes of one synthetic sample: to see that a model still does what it did."""
    plan = load_plan(path)
    sample = synthetic(plan, _PROBE_SEED).samples[0]
    result = Model(plan, Engine(plan)).run(sample)
    return {
        "seed": _PROBE_SEED,
        "scores": [round(float(score), 4) for score in result.scores],
        "synops": result.synops,
    }


def _exported(run: Path, data: Path | None) -> Path:
    """The run's model.nir, exported where it has none."""
    model = RunFolder(run).export(".nir")
    if not model.is_file():
        export(run, "nir", out=model, data=data)
    return model


def _backends(run: Path) -> list[str]:
    """Every back end that is installed and has a file to read, also those that `verify` does not
    run by default."""
    found = {format_of(path) for path in RunFolder(run).exports()}
    return [
        kind.name
        for each in formats().values()
        if each in found
        for kind in each.backends
        if importlib.util.find_spec(kind.needs) is not None
    ]


def _statistics(group: Sequence[CardRun]) -> dict[str, Any]:
    """Mean and, of two runs or more, standard deviation (n − 1) of the test accuracy."""
    values = [float(run.report["accuracy"]) for run in group]
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "seeds": [run.report["seed"] for run in group],
    }


def _data(run: CardRun, split: datasets.Split) -> dict[str, Any]:
    """How many samples the run has seen, of which set."""
    held = holdout_of(run.recipe, run.path)
    training, held_out = stratified_split(
        split.labels, held.fraction, int(run.report["seed"]), held.limit
    )
    return {
        "name": split.name,
        "kind": split.kind,
        "train": len(training),
        "validation": len(held_out),
        "test": len(run.evaluation.ids),
        "test_hash": run.evaluation.record.get("test_hash"),
    }


def _layers(run: CardRun) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "weight_shape": list(layer.banks[0].shape),
            "neurons": int(np.prod(layer.neurons)),
            "mechanisms": list(layer.mechanisms),
            **{key: facts[key] for key in LAYER_FACTS if key in facts},
        }
        for layer, facts in zip(run.checkpoint.layers, run.report["layers"], strict=True)
    ]


def _operations(run: CardRun, model: Path, split: datasets.Split) -> dict[str, Any]:
    """Over test samples that lie evenly in the set's order, which is by class for recordings."""
    metadata = run.checkpoint.model
    count = min(SYNOPS_SAMPLES, len(split))
    chosen = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return measure_operations(
        load_plan(model), (split.input(int(index), metadata) for index in chosen)
    )


def _model(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "published": len(content) < LARGEST_MODEL,
        "probe": model_probe(path),
    }
