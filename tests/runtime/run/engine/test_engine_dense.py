"""Steps in which most neurons fire: dense loops instead of lists, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Equal = Callable[..., None]
Frames = Callable[..., Array]
METADATA = ModelMetadata(
    mpsl=2, dataset="nmnist", network="", input_kind="events", steps=5, step_us=1000,
    coding="count", origin="zero", downsample=1, sensor_width=8, sensor_height=6, crop="",
    image_mean="", image_std="", input_grid=1.0, classes="", readout="count", dt_s=1e-4,
    recipe_hash="0" * 64, weights="int8", input_max=99,
)  # fmt: skip


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is crowded takes the dense loops, whether or not lists would be faster."""
    monkeypatch.setenv("MPSL_CROSSOVER", "0.4")


def crowded(plan: Plan, weights: str) -> Plan:
    """The same network; any event makes three quarters of the first population fire."""
    first = plan.nodes[0]
    assert isinstance(first, Convolution)
    weight = np.abs(first.weight) + np.float32(0.25)
    weight[::4] = -1
    bias = np.full_like(first.bias, -0.25)
    nodes: list[Any] = [replace(first, weight=weight, bias=bias), *plan.nodes[1:]]
    if weights == "float32":
        return replace(plan, nodes=tuple(nodes))
    nodes = [replace(n, weight_grid=-2) if hasattr(n, "weight_grid") else n for n in nodes]
    return replace(plan, nodes=tuple(nodes), metadata=METADATA)


GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"kernel": (1, 1), "padding": ((0, 0), (0, 0))},
    {"kernel": (5, 5), "padding": ((2, 2), (2, 2))},
    {"kernel": (2, 4), "padding": ((0, 3), (1, 2))},
    {"padding": ((0, 0), (0, 0))},
    {"stride": (2, 2)},
    {"stride": (3, 1), "padding": ((2, 0), (0, 2))},
    {"dilation": (2, 2), "padding": ((2, 2), (2, 2))},
    {"dilation": (1, 2), "stride": (2, 3), "padding": ((1, 1), (3, 3))},
]


@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.usefixtures("dense")
def test_crowded_steps_equal_the_reference(
    weights: str,
    pooled: bool,
    geometry: dict[str, Any],
    make_plan: type[Any],
    make_frames: Frames,
    equal: Equal,
) -> None:
    builder = make_plan((2, 17, 15)).conv(67).fire(reset="value")
    if pooled:
        builder.pool()
    plan = crowded(builder.conv(70, **geometry).fire().conv(130).fire().plan(), weights)
    frames = make_frames(plan, density=0.5)
    frames[2] = 0  # a step with lists between two that are dense
    spikes = Reference(plan).record(frames)[0]
    assert spikes[1].mean() > 0.5
    assert spikes[2].mean() < 0.1
    equal(plan, frames, busy=False)


@pytest.mark.parametrize("columns", range(1, 15))
@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.usefixtures("dense")
def test_any_number_of_columns(
    columns: int, weights: str, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    plan = crowded(make_plan((2, 3, columns)).conv(64).fire().conv(200).fire().plan(), weights)
    frames = make_frames(plan, density=1.0)
    assert Reference(plan).record(frames)[0][0].mean() > 0.5
    equal(plan, frames, busy=False)


@pytest.mark.usefixtures("dense")
def test_crowded_steps_with_real_weights_are_close(
    make_plan: type[Any], make_frames: Frames
) -> None:
    plan = crowded(make_plan((2, 12, 10)).conv(64).fire().pool().conv(128).fire().plan(), "float32")
    second = plan.nodes[3]
    assert isinstance(second, Convolution)
    weight = np.random.default_rng(2).normal(0, 1, second.weight.shape).astype(np.float32)
    plan = replace(plan, nodes=(*plan.nodes[:3], replace(second, weight=weight), plan.nodes[4]))
    frames = make_frames(plan, steps=1, density=1.0)
    ours = Engine(plan).record_membrane(frames)[1]
    np.testing.assert_allclose(ours, Reference(plan).record_membrane(frames)[1], atol=2e-4)


@pytest.mark.parametrize("pooled", [False, True])
def test_whole_numbers_give_the_same_bits_at_any_crossover(
    pooled: bool, make_plan: type[Any], make_frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = make_plan((2, 9, 8)).conv(70).fire()
    if pooled:
        builder.pool()
    plan = crowded(builder.conv(130).fire().dense(4).fire().plan(), "int8")
    engines = {}
    for crossover in ("", "0", "1"):
        monkeypatch.setenv("MPSL_CROSSOVER", crossover)
        engines[crossover] = Engine(plan)
    frames = make_frames(plan, density=0.5)
    measured = engines[""].crossovers
    assert [value == 1 for value in measured] == [True, measured[1] == 1, True]
    if engines[""].isa != "baseline":  # which has no dense loops for int8
        low, high = (1 / 16, 4 / 16) if pooled else (2.5 / 16, 10 / 16)
        assert low <= measured[1] <= high
        assert engines["0"].crossovers == (1, 0, 1)
    assert engines["1"].crossovers == (1, 1, 1)
    spikes = {key: engine.record(frames)[0] for key, engine in engines.items()}
    assert spikes[""][1].any()
    for key in ("0", "1"):
        for mine, other in zip(spikes[key], spikes[""], strict=True):
            np.testing.assert_array_equal(mine, other)


def test_the_crossover_of_float32_is_the_same_every_time(
    make_plan: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPSL_CROSSOVER", raising=False)
    plan = make_plan((2, 9, 8)).conv(70).fire().pool().conv(70).fire().conv(70).fire().plan()
    assert Engine(plan).crossovers == (1, 0.36, 0.85)


@pytest.mark.parametrize("value", ["half", "1.5", "-0.1", "nan", "0.5x"])
def test_a_crossover_that_is_no_share_is_refused(
    value: str, make_plan: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSL_CROSSOVER", value)
    plan = make_plan((2, 5, 5)).conv(70).fire().conv(70).fire().plan()
    with pytest.raises(UsageError, match=f"MPSL_CROSSOVER is no share; got {value}; expected 0"):
        Engine(plan)


def test_rows_from_memory_are_rounded_like_rows_from_a_cache(
    isa: str, make_plan: type[Any]
) -> None:
    """Of 17 MB of weights nearly all rows are read one after the other, of fewer columns eight side
    by side: real numbers show the order of the sums."""
    inputs, outputs = 4229, 1000
    whole = make_plan((inputs,)).dense(outputs).fire(kind="integrating").plan()
    whole = make_plan.with_real_weights(whole, seed=2)
    layer = whole.nodes[0]
    assert isinstance(layer, Dense)
    part = make_plan((inputs,)).dense(40).fire(kind="integrating").plan()
    few = replace(layer, weight=layer.weight[:40], bias=layer.bias[:40], output_shape=(40,))
    part = replace(part, nodes=(few, part.nodes[1]))
    random = np.random.default_rng(4)
    frames = random.uniform(0.5, 1.5, (2, inputs)).astype(np.float32)
    frames[1] *= random.random(inputs) < 0.97
    all_sums, few_sums = Engine(whole).run(frames), Engine(part).run(frames)
    np.testing.assert_array_equal(all_sums[:, :40], few_sums)
    exact = frames[0].astype(np.float64) @ layer.weight.astype(np.float64).T + layer.bias
    np.testing.assert_allclose(all_sums[0], exact, rtol=0, atol=1e-2)
    assert not np.array_equal(all_sums[0], exact.astype(np.float32))
