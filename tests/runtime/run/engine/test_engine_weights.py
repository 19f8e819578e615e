"""Other weights in the place of a layer's own: the engine is then that of the other plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Frames = Callable[..., Array]


def with_other_weights(plan: Plan) -> Plan:
    """The same network, every weight negated and turned around."""
    nodes = [
        replace(node, weight=np.ascontiguousarray(-node.weight[..., ::-1]))
        if isinstance(node, Convolution | Dense)
        else node
        for node in plan.nodes
    ]
    return replace(plan, nodes=tuple(nodes))


def weights(plan: Plan) -> dict[str, Array]:
    return {node.name: node.weight for node in plan.nodes if isinstance(node, Convolution | Dense)}


@given(data=st.data())
@settings(
    max_examples=30, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_an_engine_with_other_weights_is_the_engine_of_the_other_plan(
    data: st.DataObject, strategies: Any, make_plan: type[Any], make_frames: Frames
) -> None:
    plan = data.draw(strategies.networks(make_plan))
    other = with_other_weights(plan)
    frames = make_frames(plan, steps=4, density=0.3, seed=1)
    for program in (Engine, Reference):
        runner, fork = program(plan), program(plan).fork()
        before = runner.run(frames)
        for name, weight in weights(other).items():
            runner.replace_weight(name, weight)
        assert np.array_equal(runner.run(frames), program(other).run(frames))
        assert np.array_equal(fork.run(frames), before)
        for name, weight in weights(plan).items():
            runner.replace_weight(name, weight)
        assert np.array_equal(runner.run(frames), before)


def test_weights_that_no_neurons_follow_stay_in_the_engine(make_plan: type[Any]) -> None:
    plan = make_plan((2, 6, 6), seed=1).conv(4).pool().fire().plan()
    name, weight = next(iter(weights(plan).items()))
    with pytest.raises(UsageError, match="no neurons of their own"):
        Engine(plan).replace_weight(name, weight)


@pytest.mark.parametrize("program", [Engine, Reference])
def test_weights_that_cannot_be_are_refused_and_change_nothing(
    program: Any, make_plan: type[Any], make_frames: Frames
) -> None:
    plan = make_plan((2, 6, 6), seed=1).conv(8).fire().dense(5).fire().plan()
    frames = make_frames(plan, steps=3, density=0.5, seed=2)
    runner = program(plan)
    before = runner.run(frames)
    name, weight = next(iter(weights(plan).items()))
    broken = weight.copy()
    broken[0, 0, 0, 0] = np.nan
    for wrong, message in [(weight[:1], "does not fit"), (broken, "not finite")]:
        with pytest.raises(UsageError, match=message):
            runner.replace_weight(name, wrong)
    with pytest.raises(UsageError, match="no node with weights"):
        runner.replace_weight("elsewhere", weight)
    assert np.array_equal(runner.run(frames), before)


@pytest.mark.parametrize("program", [Engine, Reference])
def test_int8_weights_stay_as_they_are(program: Any, make_plan: type[Any]) -> None:
    plan = make_plan.on_grid(make_plan((2, 6, 6), seed=1).conv(8).fire().plan())
    name, weight = next(iter(weights(plan).items()))
    with pytest.raises(UsageError, match="int8 weights stay as they are"):
        program(plan).replace_weight(name, weight)


def test_what_a_population_did_is_seen_alike_in_both_programs(
    make_plan: type[Any], make_frames: Frames
) -> None:
    plan = make_plan((2, 7, 7), seed=3).conv(70).fire().pool().dense(9).fire().plan()
    frames = make_frames(plan, steps=3, density=0.5, seed=4)
    engine, reference = Engine(plan), Reference(plan)
    engine.keep_membranes()
    for frame in frames:
        engine.step(frame), reference.step(frame)
        for index in range(2):
            for one, other in zip(engine.population(index), reference.population(index),
                                  strict=True):  # fmt: skip
                assert one.dtype == np.float32
                assert np.array_equal(one, other)
