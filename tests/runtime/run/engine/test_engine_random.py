"""Random networks: bit for bit with dyadic and int8 weights, up to ties with others; and never more
memory than was said before.

900 networks a run, the same every time. `make fuzz` (MPSL_FUZZ=N) takes N of each kind, new ones
every time, in an engine that is built with AddressSanitizer; what fails is shrunk and printed.
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

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.engine_memory import engine_memory
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
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(strategies.networks(make_plan))
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
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
) -> None:
    plan = data.draw(strategies.networks(make_plan))
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


@given(data=st.data())
@examples(160)
def test_random_int8_networks_equal_the_reference_bit_for_bit(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(strategies.int8_networks(make_plan))
    frames = frames_of(data, make_frames, plan, 3)
    equal(plan, frames, busy=False, threads=draw_engine(data))


@given(data=st.data())
@examples(60)
def test_networks_at_the_extremes_equal_the_reference_or_are_refused_at_once(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(strategies.extreme_networks(make_plan))
    threads = draw_engine(data)
    try:
        Engine(plan, threads=threads, memory_limit=64 << 20)
    except ModelError:
        return
    equal(plan, frames_of(data, make_frames, plan, 3), busy=False, threads=threads)


@given(data=st.data())
@examples(240)
def test_random_branches_and_loops_equal_the_reference_bit_for_bit(
    data: st.DataObject,
    draw_engine: Callable[..., int],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
    equal: Callable[..., None],
) -> None:
    plan = data.draw(strategies.branching_networks(make_plan))
    frames = frames_of(data, make_frames, plan, 6)
    equal(plan, frames, busy=False, threads=draw_engine(data))


@given(data=st.data())
@examples(120)
@pytest.mark.parametrize(
    "kind", ["networks", "int8_networks", "extreme_networks", "branching_networks"]
)
def test_an_engine_takes_what_was_said_and_not_much_less(
    kind: str,
    data: st.DataObject,
    draw_engine: Callable[..., int],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
) -> None:
    """After a frame in which every input is active, kept membranes and a constant input. Left out
    of the lower bound: lists of later layers, which not all spikes fill, and the dense loops for
    int8, which not every processor has."""
    plan = data.draw(getattr(strategies, kind)(make_plan))
    threads = draw_engine(data)
    rows = engine_memory(plan, threads=threads, int8=is_int8(plan))
    said = sum(row.bytes - row.weights for row in rows)
    if said > 64 << 20:
        return
    engine = Engine(plan, threads=threads)
    frame = make_frames(plan, steps=1, density=1.1)
    engine.run(np.broadcast_to(frame, (2, *plan.input_shape)))
    engine.record_membrane(frame)
    taken = engine.memory_bytes
    assert taken <= said
    spare = sum(row.lists for row in rows[1:])
    if is_int8(plan) and engine.isa == "baseline":
        spare += sum(row.dense + row.packed // 2 for row in rows)
    assert said - spare <= 1.5 * taken
