"""Keeps a run on disk while it trains: checkpoints, the history of epochs, early stop."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mpsl_runtime.atomic import replacing, replacing_together
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.training.event_file import EventFile
from mpsl_train.training.progress import TrainingBar

__all__ = ["EpochCheckpoints", "WholeFiles", "best_epoch", "write_history"]


def write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Writes metrics.csv: one row an epoch."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]) if history else [])
        writer.writeheader()
        writer.writerows(history)


def best_epoch(history: Sequence[Mapping[str, float]], skip: int) -> int | None:
    """The first epoch with the highest validation accuracy, from 1; None without validation.

    Args:
        history: one row an epoch. skip: epochs at the start that do not count.
    """
    rows = [row for row in history[skip:] if "validation_accuracy" in row]
    best = max(rows, key=lambda row: row["validation_accuracy"], default=None)
    return None if best is None else int(best["epoch"])


class WholeFiles(TorchCheckpointIO):  # type: ignore[misc]
    """Writes a checkpoint where it is told to, and not to a temporary folder first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Called by the Trainer; raises OSError when the disk is full."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).write_bytes(content.getbuffer())


class EpochCheckpoints(Checkpoint):  # type: ignore[misc]
    """After each epoch: a row of metrics.csv, last.ckpt, and best.ckpt when validation improved.

    A subclass of `Checkpoint` runs after all other callbacks, so that the checkpoint holds them as
    they stand at the end of the epoch.

    Attributes:
        history: one row for each epoch. best, best_epoch: of the validation accuracy, of epochs
            after the first `skip`: the others train another network than the one asked for.
    """

    def __init__(self, run: RunFolder, patience: int, bar: TrainingBar, skip: int = 0) -> None:
        super().__init__()
        self.run, self.patience, self.bar, self.skip = run, patience, bar, skip
        self.history: list[dict[str, float]] = []
        self.best, self.best_epoch = -1.0, 0
        self.started = 0.0
        self.curves = EventFile(run.tensorboard)

    @property
    def state_key(self) -> str:
        """What checkpoints call this state, whatever the class is called."""
        return "Keeper"

    @property
    def finished_early(self) -> bool:
        """Validation has not improved for `patience` epochs."""
        return 0 < self.patience <= len(self.history) - self.best_epoch and self.best >= 0

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoint."""
        return {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes out of the checkpoint."""
        self.history = list(state_dict["history"])
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what the epoch gave; decides whether to go on."""
        row = {"epoch": trainer.current_epoch + 1, **pl_module.epoch_metrics()}
        row["seconds"] = round(time.monotonic() - self.started, 3)
        self.history.append(row)
        accuracy = row.get("validation_accuracy")
        better = accuracy is not None and accuracy > self.best and row["epoch"] > self.skip
        if accuracy is not None and better:
            self.best, self.best_epoch = accuracy, int(row["epoch"])
        if trainer.is_global_zero:
            curves = {key: value for key, value in row.items() if key != "epoch"}
            self.curves.add(trainer.global_step, curves)
            write_history(self.run.metrics, self.history)
        self._save(trainer, better)
        self.bar.epoch_done(row)
        if pl_module.silent:
            self.bar.is_silent()
        if self.finished_early:
            trainer.should_stop = True

    def _save(self, trainer: Trainer, better: bool) -> None:
        """Both checkpoints of an epoch in one step: each knows of the other. The processes but the
        first take part in collecting the state, and write nothing."""
        names = [self.run.last_checkpoint.name]
        names += [self.run.best_checkpoint.name] if better else []
        writes = trainer.is_global_zero
        step = replacing_together(self.run.path, names) if writes else nullcontext(self.run.path)
        with step as folder:
            for name in names:
                trainer.save_checkpoint(folder / name)
