"""int8 models: whole numbers inside, the same bits as the reference outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.model.plan import Convolution, Dense, Neuron
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Equal = Callable[..., None]
Frames = Callable[..., Array]


CHANNELS = [1, 31, 32, 33, 64, 65, 128, 129, 200, 300]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pooled", [False, True])
def test_any_number_of_channels(
    channels: int, pooled: bool, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 7, 6)).conv(channels).fire()
    if pooled:
        builder.pool()
    builder.conv(channels).fire().dense(channels).fire().dense(5).fire()
    plan = make_plan.on_grid(builder.plan())
    equal(plan, make_frames(plan), busy=False)
    assert channels < 31 or Reference(plan).record(make_frames(plan))[1].any()


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel": (1, 1), "padding": ((0, 0), (0, 0))},
    {"kernel": (5, 5), "padding": ((2, 2), (2, 2))},
    {"kernel": (2, 4), "padding": ((0, 1), (1, 2))},
    {"stride": (3, 1), "padding": ((2, 0), (0, 2))},
    {"dilation": (2, 2), "padding": ((2, 2), (2, 2))},
    {"groups": 4},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("pooled", [False, True])
def test_any_convolution(
    geometry: dict[str, Any], pooled: bool, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 11, 9)).conv(8).fire()
    if pooled:
        builder.pool()
    plan = make_plan.on_grid(builder.conv(140, **geometry).fire().plan())
    equal(plan, make_frames(plan), busy=False)


@pytest.mark.parametrize("weight", [-127, 127])
@pytest.mark.parametrize("density", [0.05, 1.0])
def test_sums_beyond_an_int16_are_exact(
    weight: int, density: float, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    plan = make_plan((2, 8, 8)).conv(256).fire().pool().conv(70).fire().dense(9).fire().plan()
    plan = make_plan.on_grid(plan, weight=weight)
    first = next(n for n in plan.nodes if isinstance(n, Neuron))
    # Where everything fires, 1,024 spikes reach a pixel: 1,024 · 127 is beyond 2^15.
    low = replace(first, threshold=np.full_like(first.threshold, 2.0**make_plan.exponent))
    conv = replace(plan.nodes[0], weight=np.abs(plan.nodes[0].weight))  # type: ignore[union-attr]
    plan = replace(plan, nodes=(conv, low, *plan.nodes[2:]))
    frames = make_frames(plan, density=density)
    equal(plan, frames, busy=False)
    assert density < 1 or Reference(plan).record(frames)[0][-1].mean() > 0.8


def test_weights_take_one_byte(make_plan: type[Any]) -> None:
    plan = make_plan((2, 8, 8)).conv(128).fire().conv(256).fire().dense(64).fire().plan()
    whole = make_plan.on_grid(plan)
    weights = sum(n.weight.size for n in plan.nodes if isinstance(n, Convolution | Dense))
    assert Engine(plan).memory_bytes - Engine(whole).memory_bytes > 2 * weights


def test_a_model_without_proof_runs_in_float32(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    plan = make_plan.on_grid(make_plan((2, 8, 8)).conv(64).fire().conv(64).fire().plan())
    conv = plan.nodes[2]
    assert isinstance(conv, Convolution)
    off = replace(conv, weight=conv.weight + np.float32(2.0 ** (make_plan.exponent - 3)))
    tampered = replace(plan, nodes=(*plan.nodes[:2], off, *plan.nodes[3:]))
    assert Engine(tampered).memory_bytes > Engine(plan).memory_bytes
    equal(tampered, make_frames(tampered), busy=False)


def test_a_constant_input_to_an_int8_model(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    plan = make_plan.on_grid(
        make_plan((2, 7, 6)).conv(130).fire().conv(130).fire().dense(4).fire().plan()
    )
    constant = np.broadcast_to(make_frames(plan, steps=1), (6, *plan.input_shape))
    np.testing.assert_array_equal(Engine(plan).run(constant), Reference(plan).run(constant))


def test_int8_weights_without_neurons_behind_them(make_plan: type[Any]) -> None:
    """No int8 model has them, but the native layer takes them: as float32 weights."""
    random = np.random.default_rng(0)
    whole = random.integers(-127, 128, (150, 3, 3, 3)).astype(np.int8)
    last = random.integers(-4, 5, (4, 150 * 25)).astype(np.float32)
    frame = random.integers(0, 3, 75).astype(np.float32).reshape(3, 5, 5)
    membranes = []
    for kind in ("int8", "float32"):
        network = _native.Network(3, 5, 5)
        _neurons(network, 75)
        bias = np.arange(150, dtype=np.float32)
        shape = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
        if kind == "int8":
            network.add_int8_convolution(whole, 0.5, bias, *shape)
        else:
            network.add_convolution(np.float32(whole) / 2, bias, *shape)
        network.add_dense(last, np.zeros(4, np.float32))
        _neurons(network, 4)
        network.finish()
        network.step(frame, np.empty(4, np.float32))
        membrane = np.empty(4, np.float32)
        network.membrane(1, membrane)
        membranes.append(membrane)
    assert membranes[0].any()
    np.testing.assert_array_equal(*membranes)


def _neurons(network: _native.Network, size: int) -> None:
    ones = np.ones(size, np.float32)
    network.add_neurons("spiking", "subtract", ones / 2, ones, ones, None, None, None, None)


@pytest.mark.parametrize("quantum", [0.0, 0.3, -1.0, float("nan"), float("inf")])
def test_a_quantum_that_is_no_power_of_two_is_refused(quantum: float) -> None:
    network = _native.Network(2, 1, 1)
    with pytest.raises(ValueError, match="power of two"):
        network.add_int8_dense(np.ones((3, 2), np.int8), quantum, np.zeros(3, np.float32))


def test_a_weight_below_the_grid_is_refused() -> None:
    network = _native.Network(2, 1, 1)
    with pytest.raises(ValueError, match="-127"):
        network.add_int8_dense(np.full((3, 2), -128, np.int8), 1.0, np.zeros(3, np.float32))
