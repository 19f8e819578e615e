"""Firing rates of a network: counted on data, or as the model's card has them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine

__all__ = ["Rates", "rates_of_card", "rates_on"]

_CARD = "report.json"
_LARGEST_CARD_BYTES = 1 << 24


@dataclass(frozen=True)
class Rates:
    """Of each of `Plan.spiking` the share of its neurons that fire in a step, 0 … 1.

    Attributes:
        source: where they come from, in words.
    """

    values: tuple[float, ...]
    source: str


def rates_on(plan: Plan, samples: Iterable[NDArray[np.float32]], source: str) -> Rates:
    """Counts them while the network runs.

    Args:
        samples: each float32 [T, *input_shape], run from rest.

    Raises:
        DataError: there is no sample, or an int8 model gets input that its proof does not cover.
    """
    engine = Engine(plan)
    fired = np.zeros(len(plan.spiking), np.int64)
    steps = 0
    for frames in samples:
        engine.reset()
        for frame in frames:
            engine.step(frame)
            fired += np.array(engine.fired, np.int64)
            steps += 1
    if not steps:
        raise DataError("no sample to measure", where=plan.source)
    sizes = [math.prod(node.output_shape) for node in plan.spiking]
    values = (float(n) / steps / size for n, size in zip(fired, sizes, strict=True))
    return Rates(tuple(values), source)


def rates_of_card(plan: Plan, model: Path) -> Rates | None:
    """Those in the `report.json` beside a model of the zoo; None where there is none of this very
    model. The card is a stranger's file: what does not fit is left alone."""
    path = model.parent / _CARD
    metadata = plan.metadata
    try:
        if metadata is None or path.stat().st_size > _LARGEST_CARD_BYTES:
            return None
        card: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(card, dict) or card.get("recipe_hash") != metadata.recipe_hash:
        return None
    layers = card.get("layers")
    sizes = [math.prod(node.output_shape) for node in plan.spiking]
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return None
    values = [layer.get("firing_rate") for layer in layers]
    is_known = all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    if not is_known or [layer.get("neurons") for layer in layers] != sizes:
        return None
    return Rates(tuple(values), "on the test set, by the model's card")
