"""Every recipe in models/ loads, builds its network, and takes a training step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mpsl_runtime.data import datasets
from mpsl_train.data.augmentation import check_augmentation
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.recipe import Recipe, find_recipe, load
from mpsl_train.training.build import build
from mpsl_train.training.module import loss_of, parameter_groups
from mpsl_train.training.report import parameter_counts

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/recipe.toml"))

CONVOLUTIONS = "128C3-AP2-256C3-AP2-256C3-AP2-512FC-10"
CIFAR10 = "128C3-256C3-AP2-512C3-AP2-1024C3-512C3-1024FC-512FC-10"
GESTURE = "64C3S2-BN-128C3S1-BN-256C3S1-BN-256C3S1-BN-256C3S1-BN-256C3S1-AP2-800FC-512FC-11FC"
# Table 1 of the paper: batch, T, τ_w, V_th, epochs, network, and its size in millions.
TABLE = {
    "mnist-paper": (100, 8, 40, 0.3, 100, CONVOLUTIONS, 2.07),
    "fashion-mnist-paper": (100, 8, 40, 0.4, 100, CONVOLUTIONS, 2.07),
    "nmnist-paper": (100, 8, 40, 0.4, 100, CONVOLUTIONS, 2.99),
    "cifar10-paper": (50, 8, 200, 0.5, 150, CIFAR10, 45.0),
    "dvs-gesture-paper": (32, 8, 200, 0.4, 150, GESTURE, 15.7),
}
SMALL = ["cifar10", "dvs-gesture", "fashion-mnist", "mnist", "nmnist"]


def recipe_of(name: str, *changes: str) -> Recipe:
    return load(find_recipe(name), list(changes))


def test_there_are_recipes_for_all_data_sets() -> None:
    assert set(NAMES) >= {"dvs-digits", "fashion-mnist", "mnist", "nmnist", "nmnist8"}
    assert set(NAMES) >= {*TABLE, "dvs-gesture-64", *(f"{name}-small" for name in SMALL)}
    used = {recipe_of(name).data.dataset for name in NAMES}
    assert used == set(datasets.DATASETS)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_keeps_to_what_learns_reliably(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.name == name
    if recipe.mechanisms == ["stbp", "hebbian", "sbp"]:
        # η̂ > 1 loses points or dies; a bank without a cap can silence the network.
        assert (recipe.rules.sign, recipe.rules.cap) == ("+", 0.25)
        assert 0 < recipe.rules.eta_hat <= 1


@pytest.mark.parametrize("name", TABLE)
def test_recipes_of_the_paper_are_its_table(name: str) -> None:
    recipe = recipe_of(name)
    batch, steps, tau_w, threshold, epochs, network, millions = TABLE[name]
    assert (recipe.training.batch_size, recipe.training.epochs) == (batch, epochs)
    assert (recipe.data.steps, recipe.rules.tau_w_steps) == (steps, tau_w)
    assert (recipe.neuron.threshold, recipe.network) == (threshold, network)
    assert recipe.mechanisms == ["stbp", "hebbian", "sbp"]
    metadata = metadata_of(recipe)
    with torch.device("meta"):  # shapes alone: the largest has 135 million numbers in its banks
        built = build(recipe, input_shape(metadata), len(metadata.class_names))
    counts = parameter_counts(built)
    assert counts["merged"] / 1e6 == pytest.approx(millions, abs=0.05 if millions > 10 else 0.005)
    assert counts["banks"] > 2.9 * counts["merged"]


@pytest.mark.parametrize("name", NAMES)
def test_augmentation_suits_the_data(name: str) -> None:
    recipe = recipe_of(name)
    metadata = metadata_of(recipe)
    check_augmentation(recipe.augmentation, metadata, input_shape(metadata))


def test_augmentation_and_resolution_are_those_of_the_paper() -> None:
    cifar = recipe_of("cifar10-paper")
    assert (cifar.augmentation.crop, cifar.augmentation.flip) == (4, True)
    assert metadata_of(cifar).input_grid == 1 / 64
    assert cifar.data.image_mean == [0.4914, 0.4822, 0.4465]
    assert cifar.data.image_std == [0.2470, 0.2435, 0.2616]
    assert input_shape(metadata_of(cifar)) == (3, 32, 32)
    assert input_shape(metadata_of(recipe_of("dvs-gesture-paper"))) == (2, 32, 32)
    assert input_shape(metadata_of(recipe_of("dvs-gesture-64"))) == (2, 64, 64)
    small, large = recipe_of("dvs-gesture-paper").dump(), recipe_of("dvs-gesture-64").dump()
    assert (small["data"].pop("downsample"), large["data"].pop("downsample")) == (4, 2)
    assert (small.pop("name"), large.pop("name")) == ("dvs-gesture-paper", "dvs-gesture-64")
    assert small == large


def test_the_first_weights_are_as_large_as_the_recipe_says() -> None:
    shape = input_shape(metadata_of(recipe_of("mnist-small")))
    one, other = (
        build(recipe_of("mnist-small", f"training.init_gain={gain}"), shape, 10)
        for gain in (1.0, 1.5)
    )
    for a, b in zip(one.layer_list, other.layer_list, strict=True):
        assert float(a.banks[0].detach().abs().max()) == pytest.approx(
            a.spec.fan_in**-0.5, rel=0.05
        )
        assert torch.equal(a.banks[0] * 1.5, b.banks[0])
        assert torch.equal(a.bias, b.bias)
        assert not bool(b.banks[1].any())


def window(recipe: Recipe, batch: int) -> torch.Tensor:
    """Random input of the kind that the recipe's network takes."""
    random = np.random.default_rng(0)
    metadata = metadata_of(recipe)
    shape = input_shape(metadata)
    if metadata.input_kind == "image":
        pixels = random.integers(0, 256, (batch, *shape), dtype=np.uint8)
        return torch.from_numpy(datasets.image_current(pixels, metadata))
    counts = random.poisson(0.3, (recipe.data.steps, batch, *shape))
    return torch.from_numpy(counts.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_a_training_step(name: str) -> None:
    # The banks of every step are held for the way back: 3 GB of them with CIFAR-10's T.
    large = name in ("cifar10-paper", "dvs-gesture-64")
    recipe = recipe_of(name, *(["data.steps=1"] if large else []))
    batch = 1 if large else 2
    metadata = metadata_of(recipe)
    network = build(recipe, input_shape(metadata), len(metadata.class_names))
    groups = parameter_groups(network, recipe)
    optimiser = torch.optim.SGD([{"params": group["params"]} for group in groups], lr=1e-2)
    first = network.layer_list[0]
    before = [bank.detach().clone() for bank in first.banks]
    output = network(window(recipe, batch), recipe.data.steps)
    # Of a silent network the squared error reaches only the right class, and only if its U > 0.
    loss = loss_of(recipe.training.loss, output, output.membrane.detach().argmax(1))
    loss.backward()
    optimiser.step()
    network.check_parameters()
    assert output.membrane.shape == (batch, len(metadata.class_names))
    assert bool(torch.isfinite(loss))
    assert float(output.membrane.detach().abs().max()) > 0
    # Every bank has moved, the first by the error, the others by their local rules; but one step of
    # the largest network does not reach back from its last layer.
    moved = [not torch.equal(bank, old) for bank, old in zip(first.banks, before, strict=True)]
    assert all(moved[1:])
    assert moved[0] or large
    last = network.layer_list[-1]
    assert last.bias.grad is not None
    assert bool(last.bias.grad.any())
