"""The network as Lightning trains it: loss, optimiser, schedule, and the guards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F

from mpsl_runtime.errors import MpslError
from mpsl_train.data.batches import Batch, to_window
from mpsl_train.network.finite import NonFiniteError
from mpsl_train.network.local_learning import is_local, local_loss
from mpsl_train.network.network import Network, Output
from mpsl_train.network.processes import everyone, total
from mpsl_train.recipe import Recipe

__all__ = ["TrainingModule", "loss_of", "parameter_groups", "predictions_of"]


def loss_of(name: str, output: Output, labels: Tensor) -> Tensor:
    """`mse` of the mean spike rate against one-hot, `ce` on the rate, `ce-membrane` on the last U.

    The rate of `ce` is the spike count: rates themselves lie in [0, 1], too flat for a softmax.

    Args:
        labels: classes [B], or how much of each class a mixed sample is, [B, K].
    """
    dtype = output.spikes.dtype
    target = labels if labels.dim() == 1 else labels.to(dtype)
    if name == "ce-membrane":
        return F.cross_entropy(output.membrane, target)
    if name == "ce":
        return F.cross_entropy(output.spikes.sum(0), target)
    if target.dim() == 1:
        target = F.one_hot(target, output.membrane.shape[1]).to(dtype)
    return F.mse_loss(output.spikes.mean(0), target)


def predictions_of(name: str, output: Output) -> Tensor:
    """The class of each sample by the read-out that belongs to the loss. [B]"""
    scores = output.membrane if name == "ce-membrane" else output.spikes.sum(0)
    return scores.argmax(1)


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """W1 (with weight decay), biases and batch norm (without), and the parameters of the rules.

    Adam's ε is 1e-12 for the rules: λ_p's gradient is 1e-9 … 1e-7.
    """
    training = recipe.training
    banks: list[Tensor] = []
    rules: list[Tensor] = []
    for layer in network.layer_list:
        rules += [layer.shared_coefficients, *layer.rules.parameters()]
        banks += [bank for bank in layer.banks if isinstance(bank, torch.nn.Parameter)]
    special = {id(parameter) for parameter in [*banks, *rules]}
    others = [value for value in network.parameters() if id(value) not in special]
    unique = list({id(parameter): parameter for parameter in rules}.values())
    rate, rule_rate = training.learning_rate, training.rule_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": banks, "lr": rate, "weight_decay": training.weight_decay},
        {"params": others, "lr": rate, "weight_decay": 0.0},
        {"params": unique, "lr": rule_rate, "weight_decay": 0.0},
    ]
    if training.optimiser == "adam":
        groups[2]["eps"] = 1e-12
    for group in groups:
        group["params"] = [value for value in group["params"] if value.requires_grad]
    return [group for group in groups if group["params"]]


_LOOKS = 50  # batches between two looks at a GPU


class TrainingModule(LightningModule):  # type: ignore[misc]
    """One window a batch.

    Attributes:
        network: with its banks. recipe: decides everything. silent: the last layer, which is read
            by its spikes, fired in no step of the last epoch.
    """

    def __init__(self, network: Network, recipe: Recipe, batches: int) -> None:
        """
        Args:
            batches: of one epoch, for the schedule.
        """
        super().__init__()
        self.network, self.recipe, self.batches = network, recipe, batches
        # Loss, right answers and spikes of the last layer, and of how many samples.
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.silent = False
        self.broken: NonFiniteError | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and schedule of the recipe."""
        training = self.recipe.training
        groups = parameter_groups(self.network, self.recipe)
        optimiser: torch.optim.Optimizer
        if training.optimiser == "adam":
            optimiser = torch.optim.AdamW(groups, fused=True)
        else:
            optimiser = torch.optim.SGD(groups, momentum=training.momentum)
        warmup, total = training.warmup_epochs * self.batches, training.epochs * self.batches

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
            if training.schedule == "constant":
                return rise
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _seed(self, batch_index: int) -> None:
        """Dropout depends on seed, epoch and batch alone. Data loaders draw from the same global
        state, and not equally often in a resumed run."""
        generator = np.random.default_rng([self.recipe.seed, 4, self.current_epoch, batch_index])
        seed = int(generator.integers(2**62))
        # Not torch.manual_seed, which looks for devices of other kinds in a millisecond.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _warmth(self, batch_index: int) -> float:
        """What part of their rates the rules have, which follows from the step alone."""
        rise = self.recipe.rules.warmup_epochs * self.batches
        step = self.current_epoch * self.batches + batch_index
        return min(1.0, (step + 1) / rise) if rise > 0 else 1.0

    def _window(self, batch: Batch, split: str) -> Tensor:
        values, labels = batch
        window = to_window(values, self.network.layer_list[0].bias.dtype)
        # Of a mixed sample the class that is most of it.
        classes = labels if labels.dim() == 1 else labels.argmax(1)
        told = classes if split == "training" else None
        local = told is not None and is_local(self.network)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not local):
            output = self.network(window, self.recipe.data.steps, record=local, labels=told)
        loss = loss_of(self.recipe.training.loss, output, labels)
        right = (predictions_of(self.recipe.training.loss, output) == classes).sum()
        seen = loss.detach().double() * len(labels), right, output.spikes.detach().sum()
        new = torch.stack([value.double() for value in seen])
        # On the device: to look at them is to wait for it.
        sums, count = self.sums.get(split, (torch.zeros_like(new), 0))
        self.sums[split] = sums.add_(new), count + len(labels)
        return local_loss(self.network, window, output, labels) if local else loss

    def on_train_epoch_start(self) -> None:
        """From which epoch on the network is int8 follows from the epoch alone, so that a resumed
        run does the same."""
        self.quantise(self.current_epoch >= self.recipe.first_int8_epoch)

    def quantise(self, quantised: bool) -> None:
        """Sets whether windows run on int8 grids."""
        by_membrane = self.recipe.training.loss == "ce-membrane"
        self.network.quantise(quantised, read_by_membrane=by_membrane)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One window; the banks are committed at its end."""
        if batch_index == 0:
            self.sums = {}
        self._seed(batch_index)
        self.network.warm(self._warmth(batch_index))
        try:
            return self._window(batch, "training")
        except NonFiniteError as error:
            raise self._located(error, batch_index) from None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """λ is held from `freeze_epoch` on, when the recipe says `frozen`."""
        rules = self.recipe.rules
        if rules.coefficients == "frozen" and self.current_epoch >= rules.freeze_epoch:
            for layer in self.network.layer_list:
                layer.shared_coefficients.grad = None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Stops before a broken parameter reaches a checkpoint. On a GPU to look is to wait: only
        some batches are looked at, and each epoch's last."""
        done = batch_index + 1
        if self.device.type == "cuda" and done % _LOOKS and done != self.batches:
            return
        try:
            self.network.settle()
            self.network.check_parameters()
        except NonFiniteError as error:
            raise self._located(error, batch_index) from None

    def on_validation_epoch_start(self) -> None:
        """Nothing is broken yet."""
        self.broken = None

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Not plastic. Each process validates in its own time, so that what one of them stops at is
        told at the end of the epoch, to all."""
        try:
            self._window(batch, "validation")
        except NonFiniteError as error:
            self.broken = self.broken or error

    def on_validation_epoch_end(self) -> None:
        """Raises NonFiniteError in all processes if a window of one was not finite."""
        if not everyone(self.broken is None, self.device):
            raise self.broken or NonFiniteError("a window in another process is not finite")

    def running(self) -> tuple[float, float]:
        """(loss, accuracy) of this epoch so far."""
        if "training" not in self.sums:
            return 0.0, 0.0
        sums, count = self.sums["training"]
        loss, right, _ = sums.tolist()
        return loss / count, right / count

    def epoch_metrics(self) -> dict[str, float]:
        """Means over the epoch and all processes, and the learning rate as it stands; `silent` is
        known afterwards."""
        metrics = {}
        for split in sorted(self.sums):
            sums, seen = self.sums[split]
            loss, right, spikes, count = total([*sums.tolist(), float(seen)], self.device)
            if split == "training":
                self.silent = spikes == 0 and self.recipe.training.loss != "ce-membrane"
            metrics[f"{split}_loss"], metrics[f"{split}_accuracy"] = loss / count, right / count
        metrics["learning_rate"] = float(self.optimizers().param_groups[0]["lr"])
        return metrics

    def _located(self, error: MpslError, batch_index: int) -> MpslError:
        return NonFiniteError(
            error.what,
            expected="finite values; try a lower learning rate, rules.delta = 'l1' or a cap",
            where=f"{error.where}, step {batch_index + 1} of epoch {self.current_epoch + 1}",
        )
