"""A recipe: everything that decides what a training run becomes.

What comes in: TOML text, `--set key=value` and the names of methods. What goes out: a `Recipe`,
every value of it checked, and its complete text, whose sha256 names it. This room knows no network
and no data set.
"""

from __future__ import annotations

from mpsl_train.recipe.fields import Augmentation, Data, Neuron, Recipe, Rules, Training
from mpsl_train.recipe.reading import find_recipe, load, parse
from mpsl_train.recipe.toml import to_toml

__all__ = [
    "Augmentation",
    "Data",
    "Neuron",
    "Recipe",
    "Rules",
    "Training",
    "find_recipe",
    "load",
    "parse",
    "to_toml",
]
