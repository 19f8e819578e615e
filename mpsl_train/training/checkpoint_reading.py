"""Checkpoints of strangers: every key, shape, type and number is held against the network first.

torch and Lightning believe what they load. Moments of another shape than their weights, for
example, are read out of bounds by the fused optimiser, and end the process.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mpsl_runtime.errors import RunError
from mpsl_train.training.module import TrainingModule

__all__ = ["check_training_state", "check_weights", "read_checkpoint"]

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
_KEYS = {
    "epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks",
    "optimizer_states", "lr_schedulers",
}  # fmt: skip
_METRICS = {
    "epoch", "training_loss", "training_accuracy", "validation_loss", "validation_accuracy",
    "learning_rate", "seconds",
}  # fmt: skip
_NEEDED_METRICS = {"epoch", "training_loss", "training_accuracy", "seconds"}
_LARGEST_COUNT = 1 << 50
_LARGEST_PICKLE = 1 << 26


def read_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads a checkpoint whose weights are those of a network.

    Args:
        weights: `state_dict` of the module that the checkpoint must be of.

    Returns:
        what the file holds; its `state_dict` fits `weights`, the rest is not checked.

    Raises:
        RunError: it cannot be read, or is of another network.
    """
    _check_size(path, weights)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises whatever unpickling meets; every one of them means the same to a user.
        raise RunError("checkpoint cannot be read", got=type(error).__name__, where=path) from error
    if not isinstance(loaded, dict):
        raise _wrong(path, "content", type(loaded).__name__, "a dict")
    check_weights(loaded.get("state_dict"), weights, path)
    return loaded


def _check_size(path: Path, weights: Mapping[str, Tensor]) -> None:
    """A zip may say that its parts are larger than the memory."""
    # Weights, two moments of each, and counters.
    expected = sum(value.numel() * value.element_size() + 4096 for value in weights.values())
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError("checkpoint cannot be read", got=error, where=path) from error
    if size > 4 * expected + _LARGEST_PICKLE:
        raise _wrong(path, "size", f"{size} bytes", f"about {3 * expected} of this network")


def check_weights(found: Any, weights: Mapping[str, Tensor], where: Path) -> None:
    """Whether `found` has the names, shapes and types of `weights`.

    Raises:
        RunError: it has not.
    """
    _match(found, dict(weights), "weights", where)


def check_training_state(
    state: Mapping[str, Any], module: TrainingModule, trainer: Trainer, key: str, path: Path
) -> None:
    """Whether all of a checkpoint but its weights is of this training.

    Args:
        state: of `read_checkpoint`. module, trainer: fresh. key: of our callback's state.

    Raises:
        RunError: it is of another training, or damaged.
    """
    if state.keys() != _KEYS:
        odd = sorted(map(str, state.keys() ^ _KEYS))
        raise _wrong(path, "keys", ", ".join(odd[:3]), "those that Lightning writes for it")
    _match(state["pytorch-lightning_version"], "", "version", path)
    callbacks = state.get("callbacks")
    if not isinstance(callbacks, dict) or key not in callbacks:
        raise _wrong(path, "history", "absent", "a row for each epoch")
    epochs = _check_history(callbacks[key], module.recipe.training.epochs, path)
    steps = epochs * module.batches
    _equal(state.get("epoch"), epochs - 1, "epoch", path)
    _equal(state.get("global_step"), steps, "global_step", path)
    loops = {name: getattr(trainer, name).state_dict() for name in _LOOPS}
    _match(state.get("loops"), loops, "loops", path)
    configured = module.configure_optimizers()
    for name, part, check in (
        ("optimizer_states", configured["optimizer"], _check_optimiser),
        ("lr_schedulers", configured["lr_scheduler"]["scheduler"], _check_schedule),
    ):
        states = state.get(name)
        if not isinstance(states, list) or len(states) != 1 or not isinstance(states[0], dict):
            raise _wrong(path, name, type(states).__name__, "a list of one dict")
        check(states[0], part, steps, path)


def _check_history(state: Any, most: int, path: Path) -> int:
    """The number of epochs that the history tells of."""
    template = {"history": [], "best": 0.0, "best_epoch": 0}
    history = state.get("history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not 1 <= len(history) <= most:
        got = len(history) if isinstance(history, list) else type(history).__name__
        raise _wrong(path, "history", got, f"1…{most} epochs")
    _match({**state, "history": []}, template, "history", path)
    columns = history[0].keys() if isinstance(history[0], dict) else set()
    for number, row in enumerate(history, 1):
        keys = row.keys() if isinstance(row, dict) else set()
        if not _NEEDED_METRICS <= keys <= _METRICS or keys != columns:
            raise _wrong(path, f"history of epoch {number}", "other columns", "its metrics")
        _match(
            row, {**dict.fromkeys(row, 0.0), "epoch": number}, f"history of epoch {number}", path
        )
        _equal(row["epoch"], number, "epoch of the history", path)
    return len(history)


def _check_optimiser(
    found: Mapping[str, Any], optimiser: torch.optim.Optimizer, steps: int, path: Path
) -> None:
    expected = optimiser.state_dict()
    groups = found.get("param_groups")
    rates = [dict(group, lr=0.0) for group in expected["param_groups"]]
    _match(groups, rates, "optimiser", path)
    for group, template in zip(groups or [], rates, strict=True):
        for key, value in template.items():
            if key != "lr":
                _equal(group[key], value, f"optimiser's {key}", path)
    parameters = [value for group in optimiser.param_groups for value in group["params"]]
    states = found.get("state")
    if not isinstance(states, dict):
        raise _wrong(path, "optimiser's state", type(states).__name__, "a dict")
    for index, state in states.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise _wrong(path, "optimiser's parameter", index, f"0…{len(parameters) - 1}")
        _check_moments(state, optimiser, parameters[index], f"moments of parameter {index}", path)


def _check_moments(
    state: Any, optimiser: torch.optim.Optimizer, parameter: Tensor, part: str, path: Path
) -> None:
    template: dict[str, Any] = {"momentum_buffer": parameter}
    if isinstance(optimiser, torch.optim.Adam | torch.optim.AdamW):
        template = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
    elif isinstance(state, dict) and state.get("momentum_buffer", 0) is None:
        template = {"momentum_buffer": None}
    _match(state, template, part, path)
    for key, value in state.items():
        # The fused optimiser walks through memory; it does not look at strides.
        if isinstance(value, Tensor) and not value.is_contiguous():
            raise _wrong(path, f"{part}, {key}", "strides", "one value beside the other")


def _check_schedule(
    found: Mapping[str, Any], schedule: torch.optim.lr_scheduler.LRScheduler, steps: int, path: Path
) -> None:
    expected = schedule.state_dict()
    _match(found, {**expected, "_last_lr": [0.0] * len(expected["base_lrs"])}, "schedule", path)
    _equal(found["base_lrs"], expected["base_lrs"], "schedule's base_lrs", path)
    _equal(found["last_epoch"], steps, "schedule's last_epoch", path)


def _match(found: Any, template: Any, part: str, path: Path) -> None:
    """Whether two values have one structure: keys, lengths, types, shapes; numbers are finite."""
    if isinstance(template, Mapping):
        if not isinstance(found, dict) or found.keys() != template.keys():
            keys = set(found) if isinstance(found, dict) else set()
            odd = sorted(map(str, keys ^ set(template)))[:3]
            raise _wrong(path, part, f"{', '.join(odd) or type(found).__name__}", "the same keys")
        for key, value in template.items():
            _match(found[key], value, f"{part}, {key}", path)
    elif isinstance(template, list | tuple):
        if type(found) is not type(template) or len(found) != len(template):
            raise _wrong(path, part, type(found).__name__, f"{len(template)} values")
        for value, wanted in zip(found, template, strict=True):
            _match(value, wanted, part, path)
    elif isinstance(template, Tensor):
        _match_tensor(found, template, part, path)
    elif type(found) is not type(template):
        raise _wrong(path, part, type(found).__name__, type(template).__name__)
    elif type(found) is int and not 0 <= found <= _LARGEST_COUNT:
        raise _wrong(path, part, "a number out of range", f"0…{_LARGEST_COUNT}")
    elif isinstance(found, float) and not math.isfinite(found):
        raise _wrong(path, part, found, "a finite number")


def _match_tensor(found: Any, template: Tensor, part: str, path: Path) -> None:
    wanted = f"{list(template.shape)} of {template.dtype}"
    if not isinstance(found, Tensor):
        raise _wrong(path, part, type(found).__name__, wanted)
    plain = found.layout == torch.strided and not found.is_quantized and found.device.type == "cpu"
    if not plain or found.shape != template.shape or found.dtype != template.dtype:
        raise _wrong(path, part, f"{list(found.shape)} of {found.dtype}", wanted)


def _equal(found: Any, expected: Any, part: str, path: Path) -> None:
    if type(found) is not type(expected) or found != expected:
        raise _wrong(path, part, str(found)[:40], expected)


def _wrong(path: Path, part: str, got: object, expected: object) -> RunError:
    return RunError(
        f"checkpoint is not of this training: {part}", got=got, expected=expected, where=path
    )
