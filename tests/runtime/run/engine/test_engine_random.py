"""Random networks: bit for bit with dyadic and int8 weights, up to ties with others.

550 networks a run, the same every time. `make fuzz` (MPSL_FUZZ=N) takes N of each kind, new ones
every time; what fails is shrunk and printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Frames = Callable[..., Array]
FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)


def examples(count: int) -> settings:
    """Settings for `count` networks a run."""
    return settings(
        max_examples=FUZZ or count,
        deadline=None,
        derandomize=not FUZZ,
        database=None,
        print_blob=bool(FUZZ),
        # The fixtures hand out functions: nothing to renew for an example.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


@pytest.fixture
def isa() -> None:
    """Instead of the fixture that repeats every test: each network runs on one drawn set."""


@pytest.fixture
def draw_engine(isas: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[st.DataObject], int]:
    """Sets the instruction set and gives the number of threads that an example draws."""

    def choose(data: st.DataObject) -> int:
        monkeypatch.setenv("MPSL_ISA", data.draw(st.sampled_from(isas), label="instruction set"))
        return int(data.draw(st.sampled_from([1, 2, 3]), label="threads"))

    return choose


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """One to three populations with anything that may stand between them."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    builder = make_plan(shape, seed=draw(st.integers(0, 1 << 20)))
    for _ in range(draw(st.integers(1, 3))):
        _, rows, columns = builder.shape
        for node in draw(st.lists(st.sampled_from(["halve", "pool", "scale"]), max_size=2)):
            if node == "halve" and min(builder.shape[1:]) >= 4:
                builder.pool()
            elif node == "pool" and min(builder.shape[1:]) >= 3:
                scale = draw(st.sampled_from([1.0, 0.5]))
                builder.pool(kernel=draw(pairs(1, 3)), stride=draw(pairs(1, 3)), scale=scale)
            elif node == "scale":
                builder.scale()
        channels, rows, columns = builder.shape
        groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, 4) if channels % g == 0]))
        kernel = (draw(st.integers(1, min(5, rows))), draw(st.integers(1, min(5, columns))))
        builder.conv(
            groups * draw(st.sampled_from([1, 3, 5, 20, 40, 66])),
            kernel,
            stride=draw(pairs(1, 3)),
            padding=(draw(pairs(0, 3)), draw(pairs(0, 3))),
            dilation=(1 if kernel[0] * 2 > rows else draw(st.integers(1, 2)), 1),
            groups=groups,
        )
        _fire(draw, builder)
    if draw(st.booleans()):
        _fire(draw, builder.dense(draw(st.integers(1, 70))))
    return builder.plan()


def _fire(draw: st.DrawFn, builder: Any) -> None:
    options: dict[str, Any] = {"reset": draw(st.sampled_from(["subtract", "value"]))}
    if draw(st.booleans()):
        options["decay"] = builder.varied([0.0, 0.5, 1.0])
        options["threshold"] = builder.varied([0.5, 1.0, 4.0])
        options["reset_value"] = builder.varied([0.0, -0.5])
    kind = draw(st.sampled_from(["plain", "plain", "map", "synapse", "threshold"]))
    if kind == "map":
        options["has_input_map"] = True
        options["gain"] = builder.varied([0.5, 1.0])
        options["leak"] = builder.varied([0.0, 0.25])
    elif kind == "synapse":
        options["synaptic_decay"] = builder.varied([0.0, 0.5])
        options["synaptic_gain"] = builder.varied([0.5, 1.0])
    elif kind == "threshold":
        options["kind"] = "threshold"
    builder.fire(**options)


def frames_of(data: st.DataObject, make_frames: Frames, plan: Plan, steps: int) -> Array:
    """From a few events to one at every pixel, or one frame for all steps."""
    density = data.draw(st.sampled_from([0.02, 0.2, 1.0]))
    seed = data.draw(st.integers(0, 99))
    if data.draw(st.sampled_from([False, False, True])):
        frame = make_frames(plan, steps=1, density=density, seed=seed)
        return np.broadcast_to(frame, (steps, *plan.input_shape))
    return make_frames(plan, steps=steps, density=density, seed=seed)


@given(data=st.data())
@examples(240)
def test_random_networks_equal_the_reference_bit_for_bit(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(networks(make_plan))
    frames = frames_of(data, make_frames, plan, 4)
    equal(plan, frames, busy=False, threads=draw_engine(data))


def first_difference(ours: list[Any], theirs: list[Any]) -> tuple[int, int] | None:
    """(step, layer), steps first: the first cause is not an effect of another."""
    for step in range(len(theirs[0])):
        for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if not np.array_equal(a[step], b[step]):
                return step, layer
    return None


@given(data=st.data())
@examples(150)
def test_random_networks_with_real_weights_differ_only_by_ties(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    make_plan: type[Any],
    make_frames: Frames,
) -> None:
    plan = data.draw(networks(make_plan))
    plan = make_plan.with_real_weights(plan, seed=data.draw(st.integers(0, 99)))
    frames = make_frames(plan, steps=4, density=data.draw(st.sampled_from([0.02, 0.2, 1.0])))
    reference, engine = Reference(plan), Engine(plan, threads=draw_engine(data))
    theirs, ours = reference.record(frames), engine.record(frames)
    difference = first_difference(ours, theirs)
    if difference is None:
        return
    step, layer = difference
    membrane = reference.record_membrane(frames)[layer][step]
    neuron = plan.spiking[layer]
    if neuron.kind == "threshold":
        return  # it has no membrane to be close to the threshold
    differ = ours[layer][step] != theirs[layer][step]
    # A tie as verification defines it, with room for currents much larger than the threshold.
    scale = np.maximum(1, np.maximum(np.abs(neuron.threshold), np.abs(membrane).max()))
    assert (np.abs(membrane - neuron.threshold) <= 1e-5 * scale)[differ].all()


@st.composite
def int8_networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """Two to four weighted layers with pools between them."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    builder = make_plan(shape)
    for layer in range(draw(st.integers(2, 3))):
        if layer and draw(st.booleans()) and min(builder.shape[1:]) >= 4:
            builder.pool(scale=draw(st.sampled_from([1.0, 0.25])))
        _, rows, columns = builder.shape
        kernel = (draw(st.integers(1, min(5, rows))), draw(st.integers(1, min(5, columns))))
        groups = draw(st.sampled_from([1, 1, 1, builder.shape[0]]))
        builder.conv(
            groups * draw(st.sampled_from([1, 5, 20, 40, 66, 130, 260] if groups == 1 else [1, 2])),
            kernel,
            stride=draw(pairs(1, 3)),
            padding=(draw(pairs(0, 3)), draw(pairs(0, 3))),
            dilation=(1, 1 if kernel[1] * 2 > columns else draw(st.integers(1, 2))),
            groups=groups,
        )
        builder.fire(reset=draw(st.sampled_from(["subtract", "value"])))
    if draw(st.booleans()):
        builder.dense(draw(st.integers(1, 140))).fire()
    return make_plan.on_grid(builder.plan(), seed=draw(st.integers(0, 1 << 20)))


@given(data=st.data())
@examples(160)
def test_random_int8_networks_equal_the_reference_bit_for_bit(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(int8_networks(make_plan))
    frames = frames_of(data, make_frames, plan, 3)
    equal(plan, frames, busy=False, threads=draw_engine(data))
