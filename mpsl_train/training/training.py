"""`mpsl train`: from a recipe and a data set to a run folder."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import UsageError
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.data.acquire import locate
from mpsl_train.data.augmentation import check_augmentation
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.plasticity import find_rule
from mpsl_train.network.processes import find_processes
from mpsl_train.network.step_choice import check_step
from mpsl_train.recipe import Recipe
from mpsl_train.training.build import build
from mpsl_train.training.finish import finish
from mpsl_train.training.fit import fit
from mpsl_train.training.prepare import (
    check_resume,
    choose_device,
    choose_samples,
    hold_run,
    open_loaders,
    prepare_run,
)
from mpsl_train.training.report import commit_of_checkout
from mpsl_train.training.stdp_training import check_stdp, train_stdp

__all__ = ["Result", "train"]


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and what report.json says, nothing in processes but the first."""

    run: Path
    report: dict[str, Any]


def train(
    recipe: Recipe,
    run: Path,
    *,
    data: Path | None = None,
    device: str = "auto",
    devices: int | None = None,
    resume: bool = False,
) -> Result:
    """Trains, evaluates on the test set once, and writes the run folder.

    Args:
        recipe: as `mpsl_train.recipe.load` returned it.
        run: the folder to write. data: the data set's folder or its parent.
        device: `auto`, `cpu` or `cuda`.
        devices: processes on this host, each with a device of its own and its share of every batch;
            None: as many as torchrun started, else one. The program that called is started again
            for each but the first.
        resume: go on from the last finished epoch; ends at the same banks, bit for bit on CPU.

    Raises:
        MpslError: anything a user can cause. KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    try:
        return _train(recipe, run, data, device, devices, resume)
    except RuntimeError as error:
        # torch.OutOfMemoryError on CUDA; on a CPU nothing but the text tells it from others.
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise UsageError(
                "not enough memory for this training",
                expected="a smaller training.batch_size, data.steps or network", where=device,
            ) from error  # fmt: skip
        raise


def _train(
    recipe: Recipe, run: Path, data: Path | None, device: str, devices: int | None, resume: bool
) -> Result:
    started = time.monotonic()
    commit_of_checkout()  # now, of the code that is loaded: a long run outlives it
    device, processes = choose_device(device), find_processes(devices)
    folder = RunFolder(run)
    if resume:
        check_resume(folder)
    if "stdp" in recipe.mechanisms:
        check_stdp(recipe)
        processes.check(recipe.training.batch_size, False, device, recipe.mechanisms)
        root = locate(recipe.data.dataset, data)
        with hold_run(folder):
            metadata = metadata_of(recipe, prepare_run(folder, recipe, resume))
            return Result(run, train_stdp(recipe, folder, root, metadata))
    metadata = metadata_of(recipe)
    check_augmentation(recipe.augmentation, metadata, input_shape(metadata))
    network = build(recipe, input_shape(metadata), len(metadata.class_names))
    network.step = recipe.training.step
    if network.plastic:
        check_step(network.step, network.layer_list, device, recipe.quantize == "int8")
    normalised = any(layer.batchnorm is not None for layer in network.layer_list)
    alone = [name for name in recipe.mechanisms if not find_rule(name).shared]
    processes.check(recipe.training.batch_size, normalised, device, alone)
    root = locate(recipe.data.dataset, data)
    chosen = choose_samples(recipe, root)
    with hold_run(folder) if processes.first else nullcontext():
        if processes.first:
            metadata = metadata_of(recipe, prepare_run(folder, recipe, resume))
        loaders = open_loaders(recipe, chosen, metadata, processes)
        history = fit(network, recipe, folder, loaders, device, processes, resume)
        if not processes.first:
            return Result(run, {})
        network.check_parameters()
        del loaders, chosen  # the test set takes their place in memory
        report = finish(network.to(device), recipe, folder, metadata, root, device, history)
    report["run"], report["processes"] = str(run), processes.world
    report["seconds_now"] = round(time.monotonic() - started, 1)
    return Result(run, report)
