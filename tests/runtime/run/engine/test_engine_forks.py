"""Forks of an engine: the same network with a state of its own; weights are held once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.engine_memory import engine_memory

Array = NDArray[np.float32]
Frames = Callable[..., Array]
MiB = 1 << 20


@pytest.fixture
def isa() -> None:
    """Instead of the fixture that repeats every test: forks take the set of their origin."""


def follow(engine: Engine, frame: Array) -> list[NDArray[Any]]:
    """All that can be seen of a step."""
    return [engine.step(frame), engine.membrane, np.array([engine.steps, engine.synops])]


@given(data=st.data())
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.parametrize("kind", ["networks", "int8_networks", "branching_networks"])
def test_forks_and_their_origin_do_not_disturb_each_other(
    kind: str,
    data: st.DataObject,
    isas: list[str],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
) -> None:
    plan = data.draw(getattr(strategies, kind)(make_plan))
    density = data.draw(st.sampled_from([0.05, 0.3, 1.0]))
    frames = [make_frames(plan, steps=4, density=density, seed=seed) for seed in range(3)]
    alone = [Engine(plan) for _ in frames]
    expected = [
        [follow(engine, frame) for frame in part]
        for engine, part in zip(alone, frames, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_ISA", data.draw(st.sampled_from(isas)))
        first = Engine(plan, threads=data.draw(st.sampled_from([1, 2])))
    first.record_membrane(frames[2])
    second = first.fork()
    engines = [first, second, second.fork()]
    first.reset()
    assert len({engine.isa for engine in engines}) == 1
    assert len({engine.crossovers for engine in engines}) == 1
    for step in range(4):
        for engine, part, right in zip(engines, frames, expected, strict=True):
            for ours, theirs in zip(follow(engine, part[step]), right[step], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    state = engines[0].state()
    engines[2].restore(state)
    assert engines[2].state() == state
    del first, second, engines[:2]
    gc.collect()  # a fork outlives its origin
    engines[0].reset()
    for step in range(4):
        for ours, theirs in zip(
            follow(engines[0], frames[1][step]), expected[1][step], strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@given(data=st.data())
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.parametrize("kind", ["networks", "int8_networks", "branching_networks"])
def test_what_forks_share_is_what_was_said(
    kind: str, data: st.DataObject, strategies: Any, make_plan: type[Any], make_frames: Frames
) -> None:
    plan = data.draw(getattr(strategies, kind)(make_plan))
    rows = engine_memory(plan, int8=is_int8(plan))
    engine = Engine(plan)
    frame = make_frames(plan, steps=1, density=1.1)
    engine.record_membrane(frame)
    own = engine.memory_bytes - engine.shared_bytes
    assert own <= sum(row.bytes - row.weights - row.packed for row in rows)
    weights = sum(node.weight.size for node in plan.nodes if hasattr(node, "weight"))
    assert engine.shared_bytes >= weights * (1 if is_int8(plan) else 4)
    fork = engine.fork()
    fork.record_membrane(frame)
    assert fork.shared_bytes == engine.shared_bytes
    assert fork.memory_bytes <= engine.memory_bytes


def heavy(make_plan: type[Any], *, int8: bool) -> Plan:
    """8 MiB of float32 weights, or 2 MiB of int8 ones, and 1,024 + 10 neurons."""
    builder = make_plan((8, 4, 4)).conv(256, (3, 3)).fire().conv(256, (3, 3)).fire()
    plan: Plan = builder.conv(512, (3, 3)).fire().dense(10).fire().plan()
    return make_plan.on_grid(plan) if int8 else plan


def resident() -> int:
    """Bytes of this process that are in memory."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * 4096


@pytest.mark.parametrize("int8", [False, True])
def test_many_forks_cost_states_and_not_weights(
    make_plan: type[Any], make_frames: Frames, int8: bool
) -> None:
    plan = heavy(make_plan, int8=int8)
    frame = make_frames(plan, steps=1)[0]
    engine = Engine(plan)
    weights = sum(node.weight.size for node in plan.nodes if hasattr(node, "weight"))
    held = weights * (1 if int8 else 4)
    assert held > MiB
    engine.step(frame)
    before = resident()
    forks = [engine.fork() for _ in range(40)]
    for fork in forks:
        fork.step(frame)
    grown = resident() - before
    own = engine.memory_bytes - engine.shared_bytes
    assert own < held / 4
    assert grown < 40 * own + 16 * MiB < 40 * held / 2


def test_the_limit_holds_for_all_together_and_counts_weights_once(make_plan: type[Any]) -> None:
    plan = heavy(make_plan, int8=False)
    rows = engine_memory(plan)
    shared = sum(row.weights + row.packed for row in rows)
    own = sum(row.bytes for row in rows) - shared
    engine = Engine(plan, memory_limit=shared + 5 * own)
    forks = [engine.fork() for _ in range(4)]
    with pytest.raises(ModelError, match="6 copies take too much memory"):
        forks[0].fork()
    del forks[0]
    gc.collect()
    forks.append(forks[0].fork())


def test_only_a_finished_network_is_forked() -> None:
    network = _native.Network(2, 3, 4)
    with pytest.raises(ValueError, match="not finished"):
        network.fork()
