"""The engine's layers: every kind and every shape, against the reference, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Frames = Callable[..., Array]
Equal = Callable[..., None]
Shape = tuple[int, ...]

CHANNELS = [1, 15, 16, 17, 32, 33, 64, 65, 129, 200]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pooled", [False, True])
def test_any_number_of_channels(
    channels: int, pooled: bool, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 7, 6)).conv(channels).fire()
    if pooled:
        builder.pool()
    equal(builder.conv(20).fire().conv(3).fire().plan(), make_frames(builder.plan()))


@pytest.mark.parametrize("channels", CHANNELS)
def test_any_number_of_outputs_of_a_dense_layer(
    channels: int, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 5, 4)).conv(6).fire().pool().dense(channels).fire().dense(3).fire()
    equal(builder.plan(), make_frames(builder.plan()))


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel": (1, 1), "padding": ((0, 0), (0, 0))},
    {"kernel": (5, 5), "padding": ((2, 2), (2, 2))},
    {"kernel": (2, 4), "padding": ((0, 1), (1, 2))},
    {"kernel": (3, 3), "padding": ((0, 0), (0, 0))},
    {"stride": (2, 2)},
    {"stride": (3, 1), "padding": ((2, 0), (0, 2))},
    {"dilation": (2, 2), "padding": ((2, 2), (2, 2))},
    {"dilation": (1, 3), "stride": (2, 2), "padding": ((1, 1), (3, 3))},
    {"kernel": (7, 7), "padding": ((6, 6), (6, 6)), "stride": (4, 3)},
    {"groups": 2},
    {"groups": 8},
    {"groups": 4, "kernel": (5, 3), "stride": (2, 1), "padding": ((2, 2), (1, 1))},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("before", ["input", "spikes", "pool", "values"])
def test_any_convolution_after_any_signal(
    geometry: dict[str, Any], before: str, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((8, 11, 9))
    if before in ("spikes", "pool"):
        builder = make_plan((2, 11, 9)).conv(8).fire()
    if before == "pool":
        builder = make_plan((2, 22, 19)).conv(8).fire().pool()
    if before == "values":
        builder.scale()
    plan = builder.conv(40, **geometry).fire().plan()
    equal(plan, make_frames(plan, density=0.15))


def test_groups_that_cross_blocks_of_channels(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 6, 5)).conv(96).fire().conv(144, groups=3).fire().conv(5).fire()
    equal(builder.plan(), make_frames(builder.plan()))


def test_a_convolution_for_every_channel_of_its_own(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 6, 5)).conv(70).fire().conv(70, groups=70).fire().dense(4).fire()
    equal(builder.plan(), make_frames(builder.plan()))


POOLS: list[dict[str, Any]] = [
    {"scale": 1.0},
    {"kernel": (4, 4), "stride": (4, 4), "scale": 1 / 16},
    {"kernel": (3, 3), "stride": (2, 2), "scale": 1.0},
    {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "scale": 1.0},
    {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1), "scale": 0.25},
    {"kernel": (1, 4), "stride": (1, 3), "padding": (0, 2), "scale": 0.25},
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("place", ["input", "spikes", "current", "dense", "pool"])
def test_any_pool_anywhere(
    pool: dict[str, Any], place: str, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((3, 13, 12))
    if place == "input":
        builder.pool(**pool).conv(6).fire()
    elif place == "spikes":
        builder.conv(6).fire().pool(**pool).conv(5).fire()
    elif place == "current":
        builder.conv(6).pool(**pool).fire()
    elif place == "dense":
        builder.conv(6).fire().pool(**pool).dense(9).fire()
    else:
        builder.conv(6).fire().pool().pool(**pool).conv(5).fire()
    equal(builder.plan(), make_frames(builder.plan()))


def test_pooled_windows_count_from_none_to_four(make_plan: type[Any]) -> None:
    builder = make_plan((1, 8, 8))
    builder.fire(decay=np.zeros((1, 8, 8), np.float32)).pool(scale=1.0)
    builder.conv(1, (1, 1), padding=((0, 0), (0, 0))).fire(kind="integrating")
    builder.nodes[2] = replace(
        builder.nodes[2], weight=np.ones((1, 1, 1, 1), np.float32), bias=np.zeros(1, np.float32)
    )
    builder.nodes[3] = replace(builder.nodes[3], decay=np.zeros((1, 4, 4), np.float32))
    frame = np.zeros((1, 8, 8), np.float32)
    for window in range(16):  # every pattern of four pixels
        y, x = 2 * (window // 4), 2 * (window % 4)
        frame[0, y : y + 2, x : x + 2] = [
            [window & 1, window >> 1 & 1],
            [window >> 2 & 1, window >> 3],
        ]
    counts = [bin(window).count("1") for window in range(16)]
    np.testing.assert_array_equal(Engine(builder.plan()).step(frame), counts)


NEURONS: dict[str, dict[str, Any]] = {
    "reset to zero": {"reset": "value"},
    "no decay": {"decay": [1.0]},
    "no memory": {"decay": [0.0]},
    "threshold of zero": {"threshold": [0.0, 1.0]},
    "threshold below zero": {"threshold": [-0.5]},
    "each its own": {"decay": [0.0, 0.5, 0.25], "threshold": [0.5, 1.0, 2.0]},
    "each its own reset": {"reset": "value", "reset_value": [0.0, -1.0, 0.25]},
    "one reset": {"reset": "value", "reset_value": [0.25]},
    "input map": {"has_input_map": True, "gain": [0.5, 2.0], "leak": [0.0, 0.25]},
    "synapse": {"synaptic_decay": [0.5, 0.25], "synaptic_gain": [1.0, 0.5]},
    "threshold alone": {"kind": "threshold", "threshold": [0.25, 1.0]},
}


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("channels", [3, 70])
def test_any_neuron(
    kind: str, channels: int, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 5, 6)).conv(channels)
    options = {
        key: builder.varied(value) if isinstance(value, list) else value
        for key, value in NEURONS[kind].items()
    }
    plan = builder.fire(**options).conv(4).fire().plan()
    equal(plan, make_frames(plan))


@pytest.mark.parametrize("channels", [3, 70])
def test_integrators_hand_on_their_membrane(
    channels: int, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 5, 6)).conv(channels).fire(kind="integrating").conv(4).fire()
    equal(builder.plan(), make_frames(builder.plan(), steps=3))


def test_an_integrator_at_the_end_gives_its_membrane(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 5, 6)).conv(6).fire().dense(3).fire(kind="integrating")
    plan = builder.plan()
    frames = make_frames(plan)
    equal(plan, frames)
    engine = Engine(plan)
    last = engine.run(frames)[-1]
    np.testing.assert_array_equal(last, engine.membrane)
    assert last.any()
    assert len(plan.spiking) == len(engine.record(frames)) == 1


@pytest.mark.parametrize("shape", [(7,), (130,), (3, 4, 5)])
def test_neurons_directly_on_the_input(
    shape: Shape, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan(shape).fire()
    equal(builder.plan(), make_frames(builder.plan()))


def test_weights_without_neurons_between(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 6, 5)).conv(6).conv(40, (1, 1), padding=((0, 0), (0, 0))).scale().fire()
    builder.dense(80).dense(5).fire()
    equal(builder.plan(), make_frames(builder.plan()))


def test_neurons_behind_a_flatten_fire_in_channel_major_order(
    make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 4, 5)).conv(5).flatten()
    builder.fire(threshold=builder.varied([0.5, 1.0, 2.0])).dense(6).fire().plan()
    equal(builder.plan(), make_frames(builder.plan()))


def test_a_final_flatten_changes_nothing(make_plan: type[Any], make_frames: Frames) -> None:
    plan = make_plan((2, 4, 5)).conv(5).fire().flatten().plan()
    frames = make_frames(plan)
    engine = Engine(plan)
    np.testing.assert_array_equal(engine.run(frames), Reference(plan).run(frames))
    assert engine.record(frames)[0].shape == (5, 5, 4, 5)


def test_silence_costs_nothing_and_changes_only_by_bias(make_plan: type[Any]) -> None:
    plan = make_plan((2, 5, 5)).conv(8).fire().dense(3).fire().plan()
    engine = Engine(plan)
    engine.step(np.zeros((2, 5, 5), np.float32))
    reference = Reference(plan)
    reference.step(np.zeros((2, 5, 5), np.float32))
    np.testing.assert_array_equal(engine.membrane, reference.membrane)
    assert engine.synops == reference.synops


@pytest.mark.parametrize("kind", ["alike", "each its own", "input map", "synapse"])
def test_every_operation_of_a_neuron_is_rounded(
    kind: str, make_plan: type[Any], make_frames: Frames
) -> None:
    """One input each, so that nothing is summed: real numbers must give the reference's bits. A
    fused multiply-add, which aarch64's compilers like, would round once where the equations round
    twice."""
    builder = make_plan((70, 4, 3)).conv(70, (1, 1), padding=((0, 0), (0, 0)), groups=70)
    random = np.random.default_rng(3)

    def real(low: float, high: float) -> Array:
        return random.uniform(low, high, builder.shape).astype(np.float32)

    options: dict[str, Any] = {
        "decay": np.full(builder.shape, 0.9, np.float32),
        "threshold": np.full(builder.shape, 0.7, np.float32),
    }
    if kind != "alike":
        options = {"decay": real(0.5, 1), "threshold": real(0.3, 0.9)}
    if kind == "input map":
        options |= {"has_input_map": True, "gain": real(0.5, 1.5), "leak": real(0, 0.1)}
    if kind == "synapse":
        options |= {"synaptic_decay": real(0.3, 0.9), "synaptic_gain": real(0.5, 1.5)}
    plan = make_plan.with_real_weights(builder.fire(**options).plan(), seed=1)
    frames = make_frames(plan, steps=30, density=0.4)
    (ours,), (theirs,) = (
        Engine(plan).record_membrane(frames),
        Reference(plan).record_membrane(frames),
    )
    np.testing.assert_array_equal(ours, theirs)
    spikes = Reference(plan).record(frames)[0]
    assert 0.05 < spikes.mean() < 0.95
