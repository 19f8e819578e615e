"""What a person sees while a network trains: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from mpsl_runtime.terminal import show

__all__ = ["TrainingBar"]


class TrainingBar(ProgressBar):  # type: ignore[misc]
    """Loss, accuracy and the time left of the whole training, on stderr."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs, self.done, self.started = epochs, 0, 0.0
        self.enabled = True
        self.bar: Any = None
        self.said = ""
        self.warned = False

    def disable(self) -> None:
        """Shows nothing."""
        self.enabled = False

    def enable(self) -> None:
        """Shows again."""
        self.enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        self.done, self.started = trainer.current_epoch, time.monotonic()
        if self.enabled and sys.stderr.isatty():
            from tqdm import tqdm  # type: ignore[import-untyped]

            batches = int(trainer.num_training_batches)
            self.bar = tqdm(
                total=self.epochs * batches,
                initial=self.done * batches,
                file=sys.stderr,
                unit="batch",
                dynamic_ncols=True,
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """Moves the bar; says how windows are trained, whenever that changes."""
        if pl_module.network.taken != self.said:
            self.said = pl_module.network.taken
            self._line(f"step: {self.said}")
        if self.bar is not None:
            loss, accuracy = pl_module.running()
            self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{self.epochs}", False)
            self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.1%}", False)
            self.bar.update()

    def epoch_done(self, row: dict[str, float]) -> None:
        """A line for each finished epoch."""
        epoch = int(row["epoch"])
        elapsed = time.monotonic() - self.started
        left = elapsed / max(1, epoch - self.done) * (self.epochs - epoch)
        validation = ""
        if "validation_accuracy" in row:
            validation = f", validation {row['validation_accuracy']:.1%}"
        line = (
            f"epoch {epoch}/{self.epochs}: loss {row['training_loss']:.4f}, "
            f"accuracy {row['training_accuracy']:.1%}{validation}, "
            f"{row['seconds']:.1f} s, left {int(left) // 60}:{int(left) % 60:02d}"
        )
        self._line(line)

    def is_silent(self) -> None:
        """Says, once, that the last layer fires no more: no error reaches a layer below it."""
        if not self.warned:
            self.warned = True
            self._line(
                "warning: the last layer fired in no step of this epoch and hardly learns; "
                "begin anew with a lower learning rate, longer rules.warmup_epochs or another seed"
            )

    def _line(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        elif self.enabled:
            show(line, err=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar, so that the message stands on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
