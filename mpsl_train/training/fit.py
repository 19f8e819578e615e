"""The epochs: a network is trained in place, from its last checkpoint where there is one."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from mpsl_runtime.errors import RunError
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.network.network import Network
from mpsl_train.network.processes import Processes
from mpsl_train.recipe import Recipe
from mpsl_train.training.checkpoint_reading import check_training_state, read_checkpoint
from mpsl_train.training.checkpoints import EpochCheckpoints, WholeFiles
from mpsl_train.training.module import TrainingModule
from mpsl_train.training.prepare import Loaders
from mpsl_train.training.progress import TrainingBar

__all__ = ["fit"]


def fit(
    network: Network,
    recipe: Recipe,
    run: RunFolder,
    loaders: Loaders,
    device: str,
    processes: Processes,
    resume: bool,
) -> list[dict[str, float]]:
    """Trains `network` in place; returns the history, one row an epoch.

    Args:
        resume: go on from the last checkpoint, if there is one.

    Raises:
        MpslError: a checkpoint cannot be read, or a number is not finite.
        KeyboardInterrupt: Ctrl-C.
    """
    training = recipe.training
    module = TrainingModule(network, recipe, len(loaders.training))
    bar = TrainingBar(training.epochs)
    bar.enabled = processes.first
    checkpoints = EpochCheckpoints(run, training.patience, bar, recipe.float_epochs)
    resume = resume and run.last_checkpoint.is_file()
    with _quiet(), _products(training.precision):
        trainer = _trainer(recipe, run, [bar, checkpoints], device, processes)
        state: dict[str, Any] = {}
        if resume:
            state = _read_last(run, module, trainer, checkpoints)
        if checkpoints.finished_early or len(checkpoints.history) >= training.epochs:
            module.load_state_dict(state["state_dict"])
        else:
            _run(trainer, module, loaders, run.last_checkpoint if resume else None)
    if processes.first and training.checkpoint == "best" and checkpoints.best_epoch:
        _load_best(run, module, checkpoints)
    module.quantise(recipe.quantize == "int8")
    return checkpoints.history


def _read_last(
    run: RunFolder, module: TrainingModule, trainer: Trainer, checkpoints: EpochCheckpoints
) -> dict[str, Any]:
    """The state of the last epoch; `checkpoints` knows its history afterwards."""
    path, key = run.last_checkpoint, checkpoints.state_key
    state = read_checkpoint(path, module.state_dict())
    check_training_state(state, module, trainer, key, path)
    checkpoints.load_state_dict(state["callbacks"][key])
    return state


def _load_best(run: RunFolder, module: TrainingModule, checkpoints: EpochCheckpoints) -> None:
    path = run.best_checkpoint
    state = read_checkpoint(path, module.state_dict())
    epoch = state.get("epoch")
    if type(epoch) is not int or epoch + 1 != checkpoints.best_epoch:
        raise RunError(
            "checkpoint is of another epoch", got=epoch, expected=checkpoints.best_epoch - 1,
            where=path,
        )  # fmt: skip
    module.load_state_dict(state["state_dict"])


def _trainer(
    recipe: Recipe, run: RunFolder, callbacks: list[Callback], device: str, processes: Processes
) -> Trainer:
    training, options = recipe.training, processes.trainer_options(device)
    return Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        **{**options, "plugins": [*options.get("plugins", []), WholeFiles()]},
        max_epochs=training.epochs,
        logger=False,
        callbacks=callbacks,
        gradient_clip_val=training.gradient_clip or None,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=True,
        log_every_n_steps=1 << 30,
        default_root_dir=run.path,
    )


def _run(trainer: Trainer, module: TrainingModule, loaders: Loaders, last: Path | None) -> None:
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(
            module,
            loaders.training,
            loaders.validation if len(loaders.validation) else None,
            ckpt_path=last,
            weights_only=True,
        )
    except SystemExit:
        # Lightning turns Ctrl-C into exit code 1 and leaves SIGINT ignored.
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from None
    except BaseException:
        # The other processes may wait for this one in the midst of a mean, for ever.
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """TF32 where the recipe asks for it, and nowhere else: torch has it on for convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning announces devices, advertises, and warns of choices that are made on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
