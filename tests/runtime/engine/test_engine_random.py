"""Random networks: bit for bit with dyadic weights, up to ties with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_runtime.engine import Engine
from mpsl_runtime.plan import Plan
from mpsl_runtime.reference import Reference

Array = NDArray[np.float32]
# The fixtures hand out functions and choose the instruction set: nothing to renew for an example.
RANDOM = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


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


@given(data=st.data())
@RANDOM
def test_random_networks_equal_the_reference_bit_for_bit(
    data: st.DataObject,
    make_plan: type[Any],
    make_frames: Callable[..., Array],
    equal: Callable[..., None],
) -> None:
    plan = data.draw(networks(make_plan))
    density = data.draw(st.sampled_from([0.02, 0.2, 1.0]))
    threads = data.draw(st.sampled_from([1, 2, 3]))
    equal(plan, make_frames(plan, steps=4, density=density), busy=False, threads=threads)


def first_difference(ours: list[Any], theirs: list[Any]) -> tuple[int, int] | None:
    """(step, layer), steps first: the first cause is not an effect of another."""
    for step in range(len(theirs[0])):
        for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if not np.array_equal(a[step], b[step]):
                return step, layer
    return None


@given(data=st.data())
@RANDOM
def test_random_networks_with_real_weights_differ_only_by_ties(
    data: st.DataObject, make_plan: type[Any], make_frames: Callable[..., Array]
) -> None:
    plan = make_plan.with_real_weights(
        data.draw(networks(make_plan)), seed=data.draw(st.integers(0, 99))
    )
    frames = make_frames(plan, steps=4, density=data.draw(st.sampled_from([0.02, 0.2, 1.0])))
    reference, engine = Reference(plan), Engine(plan)
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
