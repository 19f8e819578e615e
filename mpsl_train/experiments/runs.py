"""Finished run folders as networks, and the samples that an experiment shows to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.data.acquire import locate
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.network import Network
from mpsl_train.network.winner_take_all import WinnerTakeAll, class_scores, neurons_in
from mpsl_train.recipe import Recipe, load
from mpsl_train.training.build import build
from mpsl_train.training.checkpoint_reading import read_checkpoint

__all__ = ["StdpRun", "TrainedRun", "check_png", "choose", "load_run", "load_stdp", "open_test"]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run that was trained to its end.

    Attributes:
        folder: of the run. recipe, metadata: as they were used.
        network: with the banks of `banks.safetensors`, in evaluation.
    """

    folder: Path
    recipe: Recipe
    metadata: ModelMetadata
    network: Network


@dataclass(frozen=True, eq=False)
class StdpRun:
    """A run of competing neurons, which is no `Network`.

    Attributes:
        folder: of the run. recipe, metadata: as they were used.
        network: with the weights and thresholds of `stdp.safetensors`.
        assigned: the class of each neuron, int64 [N].
    """

    folder: Path
    recipe: Recipe
    metadata: ModelMetadata
    network: WinnerTakeAll
    assigned: Tensor

    def predict(self, images: NDArray[np.unsignedinteger]) -> Tensor:
        """Classes int64 [B] of images uint8 [B, C, H, W]; spikes from the network's generator."""
        pixels = torch.from_numpy(images.astype(np.uint8, copy=False)).flatten(1)
        spikes = self.network.encode(pixels, self.metadata.steps)
        counts = self.network.present(spikes, learn=False).sum(0)
        return class_scores(counts, self.assigned, len(self.metadata.class_names)).argmax(1)


def load_stdp(folder: Path) -> StdpRun | None:
    """Reads a run of `stdp`; None where the folder is no such run.

    Raises:
        RunError: its weights are damaged or do not belong to the recipe.
    """
    run = RunFolder(folder)
    if not run.stdp_weights.is_file():
        return None
    recipe, metadata = _read_recipe(run)
    pixels, neurons = int(np.prod(input_shape(metadata))), neurons_in(recipe.network)
    shapes = {"weights": (pixels, neurons), "theta": (neurons,), "assigned": (neurons,)}
    tensors = _read_tensors(
        run.stdp_weights,
        {name: (shape, torch.int64 if name == "assigned" else torch.float32)
         for name, shape in shapes.items()},
    )  # fmt: skip
    assigned, classes = tensors["assigned"], len(metadata.class_names)
    if int(assigned.min()) < 0 or int(assigned.max()) >= classes:
        raise RunError(
            "a neuron is assigned to no class", got=int(assigned.max()),
            expected=f"0…{classes - 1}", where=run.stdp_weights,
        )  # fmt: skip
    network = WinnerTakeAll(tensors["weights"], tensors["theta"], torch.Generator())
    return StdpRun(folder, recipe, metadata, network, assigned)


def load_run(folder: Path, *, rules: bool = False) -> TrainedRun:
    """Reads a run folder.

    Args:
        folder: as `mpsl train` left it.
        rules: also the parameters of the rules, which only the checkpoint has.

    Raises:
        RunError: it is no run, is not finished, or its parts do not belong together.
    """
    run = RunFolder(folder)
    if not run.is_begun:
        raise RunError("no such run", expected="a folder that `mpsl train` wrote", where=folder)
    recipe, metadata = _read_recipe(run)
    state = torch.get_rng_state()
    network = build(recipe, input_shape(metadata), len(metadata.class_names))
    torch.set_rng_state(state)  # building draws weights; whoever called has a seed of their own
    if rules:
        _read_rules(network, run, recipe)
    _read_banks(network, run)
    network.check_parameters()
    network.quantise(recipe.quantize == "int8", read_by_membrane=metadata.readout == "membrane")
    return TrainedRun(folder, recipe, metadata, network.eval())


def _read_recipe(run: RunFolder) -> tuple[Recipe, ModelMetadata]:
    """The recipe, and the metadata with the hash of its text as the run wrote it."""
    recipe = load(run.recipe)
    return recipe, metadata_of(recipe, hashlib.sha256(run.recipe.read_bytes()).hexdigest())


def _read_tensors(
    path: Path, wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, Tensor]:
    """Tensors of these names, shapes and types from a file of safetensors; all finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError("banks cannot be read", got=error, where=path) from error
    for name, (shape, dtype) in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            got = "absent" if found is None else f"{list(found.shape)} of {found.dtype}"
            raise RunError("banks do not belong to the recipe", got=f"{name} {got}",
                           expected=f"{list(shape)} of {dtype}", where=path)  # fmt: skip
        if not bool(torch.isfinite(found).all()):
            raise RunError("banks are not finite", got=name, where=path)
    return tensors


@torch.no_grad()
def _read_banks(network: Network, run: RunFolder) -> None:
    if not run.banks.is_file():
        raise RunError("run is not finished", expected=run.banks.name, where=run.path)
    targets: dict[str, Tensor] = {}
    for layer in network.layer_list:
        parts = {f"W{k}": bank for k, bank in enumerate(layer.banks, start=1)}
        parts |= {"lambda": layer.coefficients, "bias": layer.bias}
        norm = layer.batchnorm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            parts |= {"bn.weight": norm.weight, "bn.bias": norm.bias}
            parts |= {"bn.mean": norm.running_mean, "bn.var": norm.running_var}
        targets |= {f"{layer.spec.name}.{part}": value for part, value in parts.items()}
    wanted = {name: (tuple(value.shape), torch.float32) for name, value in targets.items()}
    for name, found in _read_tensors(run.banks, wanted).items():
        if name in targets:
            targets[name].copy_(found)


def _read_rules(network: Network, run: RunFolder, recipe: Recipe) -> None:
    best = recipe.training.checkpoint == "best" and run.best_checkpoint.is_file()
    path = run.best_checkpoint if best else run.last_checkpoint
    if not path.is_file():
        raise RunError(
            "run has no checkpoint, and only that knows the rules' parameters",
            expected=path.name, where=run.path,
        )  # fmt: skip
    prefix = "network."  # of the module that Lightning trains
    weights = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    state = read_checkpoint(path, weights)["state_dict"]
    network.load_state_dict({name.removeprefix(prefix): v for name, v in state.items()})


def open_test(run: TrainedRun | StdpRun, data: Path | None) -> tuple[datasets.Split, Path]:
    """The test split that a run belongs to, and the data set's folder."""
    root = locate(run.recipe.data.dataset, data)
    return datasets.open_split(run.recipe.data.dataset, root, "test"), root


def choose(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Indices of `limit` samples (0: all), drawn at random from the seed, ascending."""
    if limit < 0:
        raise UsageError("number of samples is negative", got=limit, expected="≥ 0, 0 for all")
    if limit == 0 or limit >= len(labels):
        return np.arange(len(labels))
    return np.sort(np.random.default_rng([seed, 5]).permutation(len(labels))[:limit])


def check_png(out: Path, folders: Sequence[Path]) -> None:
    """Before hours of work: the picture's name is one, its folder is there, runs are named once."""
    if out.suffix != ".png":
        raise UsageError("picture has another format", got=out.name, expected="a name in .png")
    if not out.resolve().parent.is_dir():
        raise UsageError("no such folder", where=out.parent)
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise UsageError("a run is named twice", got=", ".join(map(str, folders)))
