"""The runs behind a model card: read whole, held against each other, sorted into methods.

A run folder's four files must tell of one training. Runs of one card share their recipe but for the
seed; rivals differ in the method as well, and in nothing else: that is the same budget.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mpsl_export.checkpoint import Checkpoint, Evaluation, read_checkpoint, read_evaluation
from mpsl_runtime.errors import RunError, UsageError

__all__ = ["ADDED", "CardRun", "check_recipe", "flat", "read_run", "sort_runs"]

# Recipe keys that runs have not had from the start, and what a run without them did.
ADDED: Mapping[str, Any] = MappingProxyType(
    {
        "method": "",
        "quantize": "none",
        "training.init_gain": 1.0,
        "training.quantize_epochs": 0,
        "training.step": "auto",
    }
)
# Recipe keys that had another name before.
_RENAMED: Mapping[str, str] = MappingProxyType({"rules.tau_w": "rules.tau_w_steps"})
# What makes another method of the same recipe. `training.step` chooses between two exact ways.
_METHOD = ("mechanisms", "method", "plugins", "rules.")
_REPORTED: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
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
        "training_seconds": (int, float),
        "validation_accuracy": (float, type(None)),
        "warnings": list,
    }
)
_REPORTED_OF_LAYERS = ("cosine_w2_w3", "firing_rate", "lambda", "share")
_NEEDED = (
    "data.coding", "data.downsample", "data.step_us", "data.steps", "data.train_limit",
    "data.validation", "mechanisms", "name", "neuron.threshold", "rules.cap", "rules.eta_hat",
    "rules.tau_w_steps", "training.batch_size", "training.epochs", "training.learning_rate",
    "training.optimiser",
)  # fmt: skip


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
    """`{"data": {"steps": 8}}` as `{"data.steps": 8}`, with the names that keys have now."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[_RENAMED.get(prefix + key, prefix + key)] = value
    return found


def read_run(path: Path) -> CardRun:
    """Reads a run folder and holds its parts against each other.

    Raises:
        RunError: a part is absent, damaged, or of another training than the rest.
    """
    checkpoint, evaluation = read_checkpoint(path), read_evaluation(path)
    text, recipe = _recipe(path / "recipe.toml")
    missing = [key for key in _NEEDED if key not in flat(recipe)]
    if missing:
        raise RunError(
            "recipe is not complete", got=f"no {missing[0]!r}", expected="as `mpsl train` wrote it",
            where=path / "recipe.toml",
        )  # fmt: skip
    try:
        report = json.loads((path / "report.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            "report cannot be read", got=error, expected="report.json of `mpsl train`", where=path
        ) from error
    for key, kind in _REPORTED.items():
        value = report.get(key) if isinstance(report, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RunError(
                f"report has no usable {key!r}", got=repr(value), where=path / "report.json"
            )
    layers = [layer if isinstance(layer, dict) else {} for layer in report["layers"]]
    if len(layers) != len(checkpoint.layers) or any(
        key not in layer for layer in layers for key in _REPORTED_OF_LAYERS
    ):
        raise RunError("report does not fit the banks", got="other layers", where=path)
    hashes = {
        "recipe.toml": hashlib.sha256(text.encode()).hexdigest(),
        "report.json": report.get("recipe_hash"),
        "evaluation.npz": evaluation.record.get("recipe_hash"),
        "banks.safetensors": checkpoint.model.recipe_hash,
    }
    if len(set(hashes.values())) > 1:
        odd = next(name for name, value in hashes.items() if value != hashes["recipe.toml"])
        raise RunError(
            "parts of the run are of different recipes",
            got=f"{odd}: {str(hashes[odd])[:12]}",
            expected=f"{hashes['recipe.toml'][:12]}, the hash of recipe.toml",
            where=path,
        )
    accuracy = float((evaluation.predictions == evaluation.labels).mean())
    if report["accuracy"] != accuracy or report["test_samples"] != len(evaluation.ids):
        raise RunError(
            "report and record differ in the accuracy",
            got=f"{report['accuracy']} of {report['test_samples']} samples",
            expected=f"{accuracy} of {len(evaluation.ids)}, from evaluation.npz",
            where=path / "report.json",
        )
    return CardRun(path, recipe, report, checkpoint, evaluation)


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8")
        recipe = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise RunError("recipe cannot be read", got=error, where=path) from error
    return text, recipe


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


def check_recipe(folder: Path, run: CardRun) -> None:
    """Whether a run is of the recipe that lies in a model's folder.

    Raises:
        UsageError: there is none, or the run changed a key of it.
    """
    path = folder / "recipe.toml"
    if not path.is_file():
        raise UsageError("model's folder has no recipe.toml", where=folder)
    given, used = flat(_recipe(path)[1]), _whole(run.recipe)
    for key, value in given.items():
        if key != "seed" and used.get(key) != value:
            raise UsageError(
                "run is not of the model's recipe",
                got=f"{key} = {used.get(key)}",
                expected=f"{value}, as {path} has it",
                where=run.path,
            )
