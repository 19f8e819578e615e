"""Reads the recipe of a run, as far as export needs it: no plug-in runs, and nothing is trusted."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsl_export.strict_json import check_document
from mpsl_runtime.errors import RunError

__all__ = ["Holdout", "holdout_of", "read_recipe"]

_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Holdout:
    """How training split its data, see `mpsl_runtime.data.holdout.stratified_split`.

    Attributes:
        fraction: that was held out. seed: of the recipe. limit: on the samples in all, 0 = none.
    """

    fraction: float
    seed: int
    limit: int


def read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a recipe.toml, and what it says.

    Raises:
        RunError: it is absent, damaged or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ValueError(f"more than {_LARGEST_BYTES:,} bytes")
        text = content.decode("utf-8")
        recipe = tomllib.loads(text)
        check_document(recipe)
        return text, recipe
    except OSError as error:
        raise RunError("recipe cannot be read", got=error.strerror, where=path) from error
    except (ValueError, RecursionError) as error:
        raise RunError("recipe cannot be read", got=error, where=path) from error


def holdout_of(recipe: Mapping[str, Any], where: Path) -> Holdout:
    """How a recipe splits the training data; a key that it lacks has the value of `mpsl train`'s
    first runs, which held out nothing.

    Raises:
        RunError: a value that cannot be meant.
    """
    data = recipe.get("data", {})
    if not isinstance(data, Mapping):
        raise RunError("recipe key data is no table", where=where)
    fraction, limit = data.get("validation", 0.0), data.get("train_limit", 0)
    seed = recipe.get("seed", 0)
    if not (isinstance(fraction, int | float) and math.isfinite(fraction) and 0 <= fraction < 1):
        raise RunError(
            "recipe key data.validation is no part", got=fraction, expected="0 … 1", where=where
        )
    for name, value in (("data.train_limit", limit), ("seed", seed)):
        if not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise RunError(
                f"recipe key {name} is no count", got=value, expected="0, 1, 2, …", where=where
            )
    return Holdout(float(fraction), seed, limit)
