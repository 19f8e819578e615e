"""The runs behind a model card: read whole, held against each other, sorted into methods.

A run folder's four files must tell of one training. Runs of one card share their recipe but for the
seed; runs of other methods differ in the method as well, and in nothing else: the same budget.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mpsl_export.checkpoint import Checkpoint, read_checkpoint
from mpsl_export.evaluation import Evaluation, read_evaluation
from mpsl_export.recipe_file import holdout_of, read_recipe
from mpsl_export.strict_json import LARGEST_JSON_BYTES, parse_json
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.run_folder import RunFolder

__all__ = [
    "ADDED",
    "LAYER_FACTS",
    "RENAMED",
    "CardRun",
    "check_recipe",
    "flat",
    "read_run",
    "sort_runs",
]

# Recipe keys that runs have not had from the start, and what a run without them did.
ADDED: Mapping[str, Any] = MappingProxyType(
    {
        "augmentation.colour_jitter": 0.0,
        "augmentation.cutout": 0,
        "augmentation.drop": 0.0,
        "augmentation.drop_area": 0.0,
        "augmentation.mixup": 0.0,
        "augmentation.time_shift": 0,
        "method": "",
        "rules.activity": "tanh",
        "rules.current_share": 0.0,
        "rules.eta_hat_layers": [],
        "rules.normalise": "none",
        "rules.warmup_epochs": 0.0,
        "quantize": "none",
        "training.init_gain": 1.0,
        "training.quantize_epochs": 0,
        "training.step": "auto",
    }
)
# Recipe keys that had another name before.
RENAMED: Mapping[str, str] = MappingProxyType({"rules.tau_w": "rules.tau_w_steps"})
# What makes another method of the same recipe. `training.step` chooses between two exact ways.
_METHOD = ("mechanisms", "method", "plugins", "rules.")
_Kind = type | tuple[type, ...]
_NUMBER = (int, float)
_REPORTED: Mapping[str, _Kind] = MappingProxyType(
    {
        "accuracy": float,
        "checkpoint": str,
        "commit": (str, type(None)),
        "device": str,
        "epochs": int,
        "layers": list,
        "parameters": dict,
        "seed": int,
        "test_samples": int,
        "threads": int,
        "torch": str,
        "training_seconds": _NUMBER,
        "validation_accuracy": (float, type(None)),
        "warnings": list,
    }
)
_REPORTED_OF_LAYERS: Mapping[str, _Kind] = MappingProxyType(
    {
        "cosine_w2_w3": (int, float, type(None)),
        "firing_rate": _NUMBER,
        "lambda": list,
        "share": list,
    }
)
# Reports have not had these from the start; a card shows them where its first run does.
_OPTIONAL_OF_LAYERS: Mapping[str, _Kind] = MappingProxyType(
    {
        "current_share": (int, float, type(None)),
        "norm_share": (int, float, type(None)),
    }
)
LAYER_FACTS = (*_REPORTED_OF_LAYERS, *_OPTIONAL_OF_LAYERS)
"""What a card says of each layer, where its run's report does."""
_NEEDED: Mapping[str, _Kind] = MappingProxyType(
    {
        "data.coding": str,
        "data.downsample": int,
        "data.step_us": int,
        "data.steps": int,
        "data.train_limit": int,
        "data.validation": _NUMBER,
        "mechanisms": list,
        "name": str,
        "neuron.threshold": _NUMBER,
        "rules.cap": _NUMBER,
        "rules.eta_hat": _NUMBER,
        "rules.tau_w_steps": _NUMBER,
        "training.batch_size": int,
        "training.epochs": int,
        "training.learning_rate": _NUMBER,
        "training.optimiser": str,
    }
)


@dataclass(frozen=True, eq=False)
class CardRun:
    """A finished run.

    Attributes:
        path: the folder. recipe: as `recipe.toml` has it. report: report.json.
    """

    path: Path
    recipe: Mapping[str, Any]
    report: Mapping[str, Any]
    checkpoint: Checkpoint
    evaluation: Evaluation

    @property
    def method(self) -> str:
        """The recipe's word for it, or the mechanisms."""
        return str(self.recipe.get("method") or "+".join(self.recipe["mechanisms"]))

    def facts(self) -> dict[str, Any]:
        """What a card says of each run."""
        kept = [key for key in _REPORTED if key not in ("layers", "parameters", "warnings")]
        return {key: self.report[key] for key in kept}


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"steps": 8}}` as `{"data.steps": 8}`, keys by their present names."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[RENAMED.get(prefix + key, prefix + key)] = value
    return found


def read_run(path: Path) -> CardRun:
    """Reads a run folder and holds its parts against each other.

    Raises:
        RunError: a part is absent, damaged, or of another training than the rest.
    """
    checkpoint, evaluation = read_checkpoint(path), read_evaluation(path)
    folder = RunFolder(path)
    text, recipe = read_recipe(folder.recipe)
    _check_recipe(recipe, folder.recipe)
    report = _read_report(folder.report, len(checkpoint.layers))
    hashes = {
        folder.recipe.name: hashlib.sha256(text.encode()).hexdigest(),
        folder.report.name: report.get("recipe_hash"),
        folder.evaluation.name: evaluation.record.get("recipe_hash"),
        folder.banks.name: checkpoint.model.recipe_hash,
    }
    right = hashes[folder.recipe.name]
    odd = next((name for name, value in hashes.items() if value != right), None)
    if odd is not None:
        raise RunError(
            "parts of the run are of different recipes",
            got=f"{odd}: {str(hashes[odd])[:12]}",
            expected=f"{str(right)[:12]}, the hash of recipe.toml",
            where=path,
        )
    accuracy = float((evaluation.predictions == evaluation.labels).mean())
    if report["accuracy"] != accuracy or report["test_samples"] != len(evaluation.ids):
        raise RunError(
            "report and record differ in the accuracy",
            got=f"{report['accuracy']} of {report['test_samples']} samples",
            expected=f"{accuracy} of {len(evaluation.ids)}, from evaluation.npz",
            where=folder.report,
        )
    return CardRun(path, recipe, report, checkpoint, evaluation)


def _check_recipe(recipe: Mapping[str, Any], path: Path) -> None:
    """Every key that a card shows is there, of a type that it can show."""
    found = flat(recipe)
    for key, kind in _NEEDED.items():
        value = found.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RunError(
                "recipe is not complete",
                got=f"{key} = {value!r}" if key in found else f"no {key!r}",
                expected="as `mpsl train` wrote it",
                where=path,
            )
    if not all(isinstance(name, str) for name in recipe["mechanisms"]):
        raise RunError("recipe names mechanisms by something else than text", where=path)
    if Path(recipe["name"]).name != recipe["name"]:
        raise RunError("recipe has a name that is no file name", got=recipe["name"], where=path)
    if not isinstance(recipe.get("augmentation", {}), Mapping):
        raise RunError("recipe key augmentation is no table", where=path)
    holdout_of(recipe, path)


def _read_report(path: Path, layers: int) -> dict[str, Any]:
    """report.json, as far as a card shows it.

    Args:
        layers: number of layers of the banks.
    """
    try:
        with path.open("rb") as file:
            report = parse_json(file.read(LARGEST_JSON_BYTES + 1))
    except OSError as error:
        raise RunError("report cannot be read", got=error.strerror, where=path) from error
    except ValueError as error:
        raise RunError(
            "report cannot be read", got=error, expected="report.json of `mpsl train`", where=path
        ) from error
    _check_table(report, _REPORTED, path)
    if len(report["layers"]) != layers:
        raise RunError("report does not fit the banks", got="other layers", where=path)
    for layer in report["layers"]:
        _check_table(layer, _REPORTED_OF_LAYERS, path)
        more = {key: kind for key, kind in _OPTIONAL_OF_LAYERS.items() if key in layer}
        _check_table(layer, more, path)
    numbers = [layer[key] for layer in report["layers"] for key in ("lambda", "share")]
    if not all(type(v) in (int, float) for values in numbers for v in values) or not all(
        isinstance(warning, str) for warning in report["warnings"]
    ):
        raise RunError("report has something else than numbers and text", where=path)
    return dict(report)


def _check_table(table: Any, kinds: Mapping[str, _Kind], path: Path) -> None:
    for key, kind in kinds.items():
        is_there = isinstance(table, dict) and key in table
        value = table[key] if is_there else None
        if not is_there or not isinstance(value, kind) or isinstance(value, bool):
            raise RunError(f"report has no usable {key!r}", got=repr(value), where=path)


def _whole(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {**ADDED, **flat(recipe)}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Keys in which two complete recipes differ, but for the seed."""
    one, other = _whole(a), _whole(b)
    missing = object()
    return sorted(
        key
        for key in {*one, *other} - {"seed", "training.step"}
        if one.get(key, missing) != other.get(key, missing)
    )


def sort_runs(runs: Sequence[CardRun]) -> dict[str, list[CardRun]]:
    """Runs by method, the first run's before the others.

    Raises:
        UsageError: a run has another recipe in more than the method, other test data, or a seed
            that is there already.
    """
    first = runs[0]
    groups: dict[str, list[CardRun]] = {}
    for run in runs:
        odd = [key for key in _differing(first.recipe, run.recipe) if not key.startswith(_METHOD)]
        if odd:
            values = [flat(r.recipe).get(odd[0], ADDED.get(odd[0])) for r in (run, first)]
            raise UsageError(
                "runs of one card differ in more than seed and method",
                got=f"{odd[0]} = {values[0]}",
                expected=values[1],
                where=run.path,
            )
        if run.evaluation.record.get("test_hash") != first.evaluation.record.get("test_hash"):
            raise UsageError("runs were tested on different data", where=run.path)
        group = groups.setdefault(run.method, [])
        if group and (changed := _differing(group[0].recipe, run.recipe)):
            raise UsageError(
                f"runs of {run.method} differ in more than the seed",
                got=changed[0],
                where=run.path,
            )
        if any(other.report["seed"] == run.report["seed"] for other in group):
            raise UsageError(
                f"a seed of {run.method} is there twice", got=run.report["seed"], where=run.path
            )
        group.append(run)
    return groups


def check_recipe(folder: Path, run: CardRun, changed: Collection[str] = ()) -> dict[str, Any]:
    """Whether a run is of the recipe that lies in a model's folder.

    Args:
        changed: keys that the run may have otherwise.

    Returns:
        For each of these, what the recipe `planned` (None: it leaves that to the default) and what
        was `trained`.

    Raises:
        UsageError: there is none, the run changed another key of it, or has `changed` as it is.
    """
    path = RunFolder(folder).recipe
    if not path.is_file():
        raise UsageError("model's folder has no recipe.toml", where=folder)
    given, used = flat(read_recipe(path)[1]), _whole(run.recipe)
    for key in changed:
        if key not in used or (key in given and used[key] == given[key]):
            raise UsageError(
                "run did not change that key of the model's recipe",
                got=f"{key} = {used[key]}" if key in used else f"no {key!r}",
                where=run.path,
            )
    for key, value in given.items():
        if key != "seed" and key not in changed and used.get(key) != value:
            raise UsageError(
                "run is not of the model's recipe",
                got=f"{key} = {used.get(key)}",
                expected=f"{value}, as {path} has it",
                where=run.path,
            )
    return {key: {"planned": given.get(key), "trained": used[key]} for key in changed}
