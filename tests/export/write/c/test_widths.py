"""The proof that an integer membrane is wide enough: no input that it covers goes beyond it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpsl_export.write.c.lower import lowered
from mpsl_export.write.c.widths import Membrane, integer_membrane
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.grid import LayerGrid
from mpsl_runtime.model.plan import Neuron
from mpsl_runtime.zoo import known_models


def layer(weight: Any, bias: Any, threshold: int, input_max: int = 1) -> LayerGrid:
    weight = np.array(weight, np.int8)
    worst = int(np.abs(weight.astype(int)).sum(axis=1).max()) * input_max
    return LayerGrid("w", weight, np.array(bias, np.int32), 0.5, 1.0, input_max, threshold, worst)


def population(size: int, decay: float, reset: Any = "subtract", **changes: Any) -> Neuron:
    def full(value: float) -> Any:
        return np.full(size, value, np.float32)

    neuron = Neuron(
        "n", "spiking", full(decay), full(1), reset, full(0), full(1), full(0), False, None, None,
        (size,), (size,),
    )  # fmt: skip
    return replace(neuron, **changes)


def extremes(grid: LayerGrid, decay: Fraction, reset: str, steps: int, rows: Any) -> Fraction:
    """The largest |value| of one neuron in a simulation, in quanta: before, within and behind each
    sum, its weights added in the order that goes furthest."""
    bias, theta = int(grid.bias[0]), grid.threshold or 0
    held, largest = Fraction(bias), Fraction(abs(bias))
    for inputs in rows[:steps]:
        parts = (grid.weight[0].astype(int) * inputs).tolist()
        for order in (sorted(parts), sorted(parts, reverse=True)):
            partial = held
            for part in order:
                partial += part
                largest = max(largest, abs(partial))
        U = held + sum(parts)
        V = U
        if theta <= U:
            V = U - theta if reset == "subtract" else Fraction(0)
        held = decay * V + bias
        largest = max(largest, abs(V), abs(held))
    return largest


@pytest.mark.parametrize("reset", ["subtract", "value"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("negative", [False, True])
def test_no_input_goes_beyond_what_is_proven(decay: float, reset: str, negative: bool) -> None:
    random = np.random.default_rng(int(8 * decay))
    steps, tight = 5, 0
    for _ in range(150):
        weight = random.integers(-127, 128, (1, int(random.integers(1, 9))))
        top = int(random.integers(1, 4))
        grid = layer(weight, random.integers(-60, 61, 1), int(random.integers(1, 200)), top)
        found = integer_membrane(grid, population(1, decay, reset), steps, negative_input=negative)
        assert found is not None
        low = -top if negative else 0
        above, below = np.where(weight[0] > 0, top, low), np.where(weight[0] < 0, top, low)
        rows = [
            (above, below, random.integers(low, top + 1, weight.shape[1]))[int(random.integers(3))]
            for _ in range(steps)
        ]
        seen = extremes(grid, Fraction(decay), reset, steps, rows)
        always = max(
            extremes(grid, Fraction(decay), reset, steps, [row] * steps) for row in (above, below)
        )
        unit = 1 << found.places
        bits = {"int8_t": 7, "int16_t": 15, "int32_t": 31}[found.ctype]
        assert max(seen, always) * unit <= found.largest < 1 << bits
        tight += max(seen, always) * unit > found.largest * 0.9
    # The intervals are no wild guess: mostly some input comes near.
    assert tight > 50


def test_the_narrowest_type_is_taken_and_none_where_float32_would_round() -> None:
    one = population(1, 1.0)

    def ctype(grid: LayerGrid, neuron: Neuron, steps: int) -> str | None:
        found: Membrane | None = integer_membrane(grid, neuron, steps, negative_input=False)
        return None if found is None else found.ctype

    assert ctype(layer([[5, -3]], [0], 9), one, 8) == "int8_t"
    assert ctype(layer([[100, -90]], [0], 90), one, 8) == "int16_t"
    assert ctype(layer([[100, -90]], [0], 90, 300), one, 8) == "int32_t"
    # 14 binary places behind a bound of 2^11 quanta are more than float32 holds.
    assert ctype(layer([[127] * 10], [0], 90), population(1, 0.75), 8) is None
    assert ctype(layer([[127] * 10], [0], 90), population(1, 0.75), 3) == "int32_t"
    assert ctype(layer([[5]], [0], 9), population(1, 0.9), 8) is None
    for changes in (
        {"many": True}, {"reset": "lost"}, {"drop": np.ones(1, np.float32)},
        {"initial": np.ones(1, np.float32)}, {"synaptic_decay": np.ones(1, np.float32)},
        {"kind": "integrating"}, {"has_input_map": True},
    ):  # fmt: skip
        assert ctype(layer([[5]], [0], 9), population(1, 1.0, **changes), 8) is None
    assert ctype(replace(layer([[5]], [0], 9), threshold=None), one, 8) is None


def test_the_model_for_microcontrollers_has_integer_membranes_alone() -> None:
    program = lowered(load_plan(known_models()["nmnist8-micro"]), "mpsl")
    kinds = Counter(membrane.ctype for membrane in program.membranes.values())
    assert kinds == {"int16_t": 3, "int32_t": 1}
    assert program.horizon == 8
    assert not any("float" in part for part in program.parts)
