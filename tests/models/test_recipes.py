"""Every recipe in models/ can be loaded and built."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpsl_runtime import datasets
from mpsl_train.frames import input_shape, metadata_of
from mpsl_train.recipe import find_recipe, load
from mpsl_train.training import build

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/recipe.toml"))


def test_there_are_recipes_for_all_data_sets_of_the_first_version() -> None:
    assert set(NAMES) >= {"dvs-digits", "fashion-mnist", "mnist", "nmnist", "nmnist8"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_a_network(name: str) -> None:
    recipe = load(find_recipe(name))
    assert recipe.name == name
    assert recipe.data.dataset in datasets.NAMES
    metadata = metadata_of(recipe)
    network = build(recipe, input_shape(metadata), len(metadata.class_names))
    assert sum(layer.spec.parameters for layer in network.layer_list) > 1000
    assert recipe.mechanisms == ["stbp", "hebbian", "sbp"]
    # What learns reliably (η̂ > 1 loses points or dies).
    assert (recipe.rules.sign, recipe.rules.cap) == ("+", 0.25)
    assert 0 < recipe.rules.eta_hat <= 1
