"""Before the first epoch: the device, the run folder, and the batches of all samples."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mpsl_runtime.atomic import replacing, sweep
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import OutputError, RunError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.data.batches import Batch, BatchOrder, Samples
from mpsl_train.data.frames import load_frames
from mpsl_train.network.processes import Processes
from mpsl_train.recipe import Recipe, parse
from mpsl_train.recipe.plugins import save_plugins

__all__ = [
    "ChosenSamples",
    "Loaders",
    "check_resume",
    "choose_device",
    "choose_samples",
    "hold_run",
    "open_loaders",
    "prepare_run",
]


@dataclass(frozen=True)
class Loaders:
    """The batches of an epoch, as the Trainer takes them.

    Attributes:
        training: whole batches, in an order of each epoch's own. validation: all that is held out.
    """

    training: DataLoader[Batch]
    validation: DataLoader[Batch]


@dataclass(frozen=True, eq=False)
class ChosenSamples:
    """Which samples of the training split are learned from, and which are held out.

    Attributes:
        split: all of them. training, held_out: indices, int64.
    """

    split: datasets.Split
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]


def choose_device(name: str) -> str:
    """`cpu` or `cuda`, where `auto` is the best that is there.

    Raises:
        UsageError: another word, or no such device.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if name not in ("cpu", "cuda"):
        raise UsageError("unknown device", got=repr(name), expected="auto, cpu or cuda")
    if name == "cuda" and not available:
        raise UsageError("no CUDA device is there", got="--device cuda", expected="auto or cpu")
    return name


@contextmanager
def hold_run(run: RunFolder) -> Iterator[None]:
    """Makes the folder and holds it while the block lasts: no other training writes there.

    The system lets go of it when the process ends, however it ends. Stages that a killed process
    left are removed.

    Raises:
        RunError: another training holds it. OutputError: it cannot be made.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=run.path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunError(
            "another training writes into this folder", expected="another --out, or wait for it",
            where=run.path,
        ) from None  # fmt: skip
    except OSError:
        pass  # a file system without locks
    try:
        sweep(run.path)
        yield
    finally:
        os.close(handle)


def prepare_run(run: RunFolder, recipe: Recipe, resume: bool) -> str:
    """Puts the complete recipe into the folder, which `hold_run` holds.

    Returns:
        the recipe hash: sha256 of recipe.toml as it was written when the run began. An earlier
        version may have called a key otherwise, and what was written stays.

    Raises:
        RunError: another recipe, or an unfinished run that is not resumed.
        OutputError: the folder holds something else or cannot be written.
    """
    if resume:
        text = run.recipe.read_bytes()
        if parse(text.decode("utf-8", "replace"), run.recipe) != recipe:
            raise RunError(
                "run was started with another recipe; give the same RECIPE and --set",
                where=run.recipe,
            )
        return hashlib.sha256(text).hexdigest()
    if run.last_checkpoint.is_file() and not run.is_finished:
        raise RunError(
            "run is unfinished", expected="--resume to go on, or another --out", where=run.path
        )
    if not run.is_begun and any(run.path.iterdir()):
        raise OutputError("folder holds something else", expected="a new folder", where=run.path)
    try:
        run.clear()
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=run.path) from error
    with replacing(run.recipe) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")
    try:
        save_plugins(recipe.plugins, run)
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=run.plugins) from error
    return recipe.hash()


def check_resume(run: RunFolder) -> None:
    """Before anything is made: a run that is to go on must have begun.

    Raises:
        RunError: it has not.
    """
    if not run.is_begun:
        raise RunError("no run to resume", expected="a run folder with recipe.toml", where=run.path)


def choose_samples(recipe: Recipe, root: Path) -> ChosenSamples:
    """Opens the training split and holds a part of it out.

    Raises:
        DataError: the data set cannot be read. UsageError: not even one batch.
    """
    split = datasets.open_split(recipe.data.dataset, root, "train")
    training, held_out = stratified_split(
        split.labels, recipe.data.validation, recipe.seed, recipe.data.train_limit
    )
    if len(training) < recipe.training.batch_size:
        raise UsageError(
            "fewer training samples than one batch",
            got=len(training), expected=f"≥ {recipe.training.batch_size}",
            where="recipe key training.batch_size",
        )  # fmt: skip
    return ChosenSamples(split, training, held_out)


def open_loaders(
    recipe: Recipe, chosen: ChosenSamples, metadata: ModelMetadata, processes: Processes
) -> Loaders:
    """Reads all samples into memory; each process gets its share of every batch.

    Raises:
        DataError: a sample cannot be read.
    """
    split, held_out, size = chosen.split, chosen.held_out, recipe.training.batch_size
    frames = load_frames(split, metadata, datasets.content_hash(split))
    share = (processes.rank, processes.world)
    samples = Samples(frames, split.labels, metadata, recipe.augmentation, share)
    if len(held_out) >= processes.world:  # fewer: each takes all of them, the means are equal
        held_out = held_out[processes.rank :: processes.world]
    return Loaders(
        _loader(samples, BatchOrder(chosen.training, size, recipe.seed)),
        _loader(samples, BatchOrder(held_out, max(size, 100))),
    )


def _loader(samples: Samples, order: BatchOrder) -> DataLoader[Batch]:
    pinned = torch.cuda.is_available()  # copied while the device works
    return DataLoader(samples, batch_size=None, sampler=order, pin_memory=pinned)
