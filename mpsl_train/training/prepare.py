"""Before the first epoch: the device, the run folder, and the batches of all samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import OutputError, RunError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.batches import Batch, BatchOrder, Samples
from mpsl_train.data.frames import load_frames
from mpsl_train.network.processes import Processes
from mpsl_train.recipe import Recipe, parse

__all__ = [
    "ChosenSamples",
    "Loaders",
    "choose_device",
    "choose_samples",
    "open_loaders",
    "prepare_run",
]

_OWN_FILES = (
    "recipe.toml", "banks.safetensors", "evaluation.npz", "metrics.csv", "last.ckpt", "best.ckpt",
    "report.json", "report.png", "stdp.safetensors",
)  # fmt: skip


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


def prepare_run(run: Path, recipe: Recipe, resume: bool) -> str:
    """Makes the folder and puts the complete recipe into it.

    Returns:
        the recipe hash: sha256 of recipe.toml as it was written when the run began. An earlier
        version may have called a key otherwise, and what was written stays.

    Raises:
        RunError: nothing to resume, another recipe, or an unfinished run that is not resumed.
        OutputError: the folder holds something else or cannot be written.
    """
    path = run / "recipe.toml"
    if resume:
        if not path.is_file():
            raise RunError("no run to resume", expected="a run folder with recipe.toml", where=run)
        text = path.read_bytes()
        if parse(text.decode("utf-8", "replace"), path) != recipe:
            raise RunError(
                "run was started with another recipe; give the same RECIPE and --set",
                where=path,
            )
        return hashlib.sha256(text).hexdigest()
    if (run / "last.ckpt").is_file() and not (run / "report.json").is_file():
        raise RunError(
            "run is unfinished", expected="--resume to go on, or another --out", where=run
        )
    if run.is_dir() and not path.is_file() and any(run.iterdir()):
        raise OutputError("folder holds something else", expected="a new folder", where=run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        # Exports of the weights that are about to go must not outlive them.
        stale = [run / name for name in _OWN_FILES]
        stale += [file for file in run.glob("model*") if file.suffix in (".nir", ".onnx")]
        for file in stale:
            file.unlink(missing_ok=True)
        for file in (run / "tensorboard").glob("events.out.*"):
            file.unlink()
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=run) from error
    with replacing(path) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")
    return recipe.hash()


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
    return DataLoader(samples, batch_size=None, sampler=order)
