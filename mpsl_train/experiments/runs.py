"""Finished run folders as networks, and the samples that an experiment shows to them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.acquire import locate
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.network import Network
from mpsl_train.network.winner_take_all import WinnerTakeAll, class_scores, neurons_in
from mpsl_train.recipe import Recipe, load
from mpsl_train.training.build import build
from mpsl_train.training.stdp_training import WEIGHTS_FILE

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
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    recipe, metadata = _read_recipe(folder)
    pixels, neurons = int(np.prod(input_shape(metadata))), neurons_in(recipe.network)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError("weights cannot be read", got=error, where=path) from error
    for name, shape in (("weights", (pixels, neurons)), ("theta", (neurons,)),
                        ("assigned", (neurons,))):  # fmt: skip
        if name not in tensors or tensors[name].shape != shape:
            got = list(tensors[name].shape) if name in tensors else "absent"
            raise RunError("weights do not belong to the recipe", got=f"{name} {got}",
                           expected=list(shape), where=path)  # fmt: skip
    network = WinnerTakeAll(tensors["weights"], tensors["theta"], torch.Generator())
    return StdpRun(folder, recipe, metadata, network, tensors["assigned"])


def load_run(folder: Path, *, rules: bool = False) -> TrainedRun:
    """Reads a run folder.

    Args:
        folder: as `mpsl train` left it.
        rules: also the parameters of the rules, which only the checkpoint has.

    Raises:
        RunError: it is no run, is not finished, or its parts do not belong together.
    """
    if not (folder / "recipe.toml").is_file():
        raise RunError("no such run", expected="a folder that `mpsl train` wrote", where=folder)
    recipe, metadata = _read_recipe(folder)
    state = torch.get_rng_state()
    network = build(recipe, input_shape(metadata), len(metadata.class_names))
    torch.set_rng_state(state)  # building draws weights; whoever called has a seed of their own
    if rules:
        _read_checkpoint(network, folder, recipe)
    _read_banks(network, folder)
    network.quantise(recipe.quantize == "int8", read_by_membrane=metadata.readout == "membrane")
    return TrainedRun(folder, recipe, metadata, network.eval())


def _read_recipe(folder: Path) -> tuple[Recipe, ModelMetadata]:
    """The recipe, and the metadata with the hash of its text as the run wrote it."""
    path = folder / "recipe.toml"
    recipe = load(path)
    return recipe, metadata_of(recipe, hashlib.sha256(path.read_bytes()).hexdigest())


@torch.no_grad()
def _read_banks(network: Network, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "banks.safetensors"
    if not path.is_file():
        raise RunError("run is not finished", expected="banks.safetensors", where=folder)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError("banks cannot be read", got=error, where=path) from error
    for layer in network.layer_list:
        targets = {f"W{k}": bank for k, bank in enumerate(layer.banks, start=1)}
        targets |= {"lambda": layer.coefficients, "bias": layer.bias}
        norm = layer.batchnorm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            targets |= {"bn.weight": norm.weight, "bn.bias": norm.bias}
            targets |= {"bn.mean": norm.running_mean, "bn.var": norm.running_var}
        for part, target in targets.items():
            name = f"{layer.spec.name}.{part}"
            found = tensors.get(name)
            if found is None or found.shape != target.shape:
                raise RunError(
                    "banks do not belong to the recipe",
                    got=f"{name} {'absent' if found is None else list(found.shape)}",
                    expected=list(target.shape),
                    where=path,
                )
            target.copy_(found)


def _read_checkpoint(network: Network, folder: Path, recipe: Recipe) -> None:
    best = folder / "best.ckpt"
    wanted = best if recipe.training.checkpoint == "best" and best.is_file() else None
    path = wanted or folder / "last.ckpt"
    if not path.is_file():
        raise RunError(
            "run has no checkpoint, and only that knows the rules' parameters",
            expected=path.name, where=folder,
        )  # fmt: skip
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({key.removeprefix("network."): v for key, v in state.items()})
    except Exception as error:
        # torch raises whatever unpickling meets; every one of them means the same to a user.
        raise RunError("checkpoint cannot be read", got=type(error).__name__, where=path) from error


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
