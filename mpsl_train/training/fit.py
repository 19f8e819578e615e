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
from lightning.pytorch.loggers import TensorBoardLogger

from mpsl_runtime.errors import RunError
from mpsl_train.network.network import Network
from mpsl_train.network.processes import Processes
from mpsl_train.recipe import Recipe
from mpsl_train.training.checkpoints import EpochCheckpoints
from mpsl_train.training.module import TrainingModule
from mpsl_train.training.prepare import Loaders
from mpsl_train.training.progress import TrainingBar

__all__ = ["fit"]


def fit(
    network: Network,
    recipe: Recipe,
    run: Path,
    loaders: Loaders,
    device: str,
    processes: Processes,
    resume: bool,
) -> list[dict[str, float]]:
    """Trains `network` in place; returns the history, one row an epoch.

    Args:
        resume: go on from `last.ckpt`, if it is there.

    Raises:
        MpslError: a checkpoint cannot be read, or a number is not finite.
        KeyboardInterrupt: Ctrl-C.
    """
    training = recipe.training
    module = TrainingModule(network, recipe, len(loaders.training))
    bar = TrainingBar(training.epochs)
    bar.enabled = processes.first
    checkpoints = EpochCheckpoints(run, training.patience, bar, recipe.float_epochs)
    last = run / "last.ckpt"
    resume = resume and last.is_file()
    if resume:
        state = _load(last)
        checkpoints.load_state_dict(state["callbacks"][checkpoints.state_key])
        if checkpoints.finished_early or len(checkpoints.history) >= training.epochs:
            module.load_state_dict(state["state_dict"])
            module.quantise(recipe.quantize == "int8")
            return checkpoints.history
    with _quiet():
        trainer = _trainer(recipe, run, [bar, checkpoints], device, processes)
        _run(trainer, module, loaders, last if resume else None)
    if processes.first and training.checkpoint == "best" and (run / "best.ckpt").is_file():
        module.load_state_dict(_load(run / "best.ckpt")["state_dict"])
    module.quantise(recipe.quantize == "int8")
    return checkpoints.history


def _trainer(
    recipe: Recipe, run: Path, callbacks: list[Callback], device: str, processes: Processes
) -> Trainer:
    training = recipe.training
    return Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        **processes.trainer_options(device),
        max_epochs=training.epochs,
        logger=TensorBoardLogger(run, name="tensorboard", version=""),
        callbacks=callbacks,
        gradient_clip_val=training.gradient_clip or None,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=True,
        log_every_n_steps=1 << 30,
        default_root_dir=run,
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


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises whatever unpickling meets; every one of them means the same to a user.
        raise RunError("checkpoint cannot be read", got=type(error).__name__, where=path) from error
    return loaded
