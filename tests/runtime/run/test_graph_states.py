"""A state of any graph goes on elsewhere: delays, loops, CubaLI, late resets, many spikes."""

from __future__ import annotations

import numpy as np
import pytest

from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Delay, Neuron
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

from .branching import DT_S, frames, grown

SEEDS = range(48)
BEFORE = 4


def _plan(seed: int) -> object:
    return plan_of(grown(seed)[0], source=f"graph {seed}", dt_s=DT_S)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_engine_goes_on_bit_for_bit_from_its_own_state(seed: int) -> None:
    plan, given = _plan(seed), frames(grown(seed)[0], steps=9)
    whole, first, second = Engine(plan), Engine(plan), Engine(plan)
    expected = [whole.step(frame) for frame in given]
    for frame in given[:BEFORE]:
        first.step(frame)
    second.step(given[-1])  # what it did before does not matter
    second.restore(first.state())
    assert second.state() == first.state()
    got = [second.step(frame) for frame in given[BEFORE:]]
    assert np.array_equal(got, expected[BEFORE:])
    assert second.state() == whole.state()
    assert np.array_equal(second.membrane, whole.membrane)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_and_the_engine_read_each_other(seed: int) -> None:
    """On dyadic weights, whose sums are exact, so that nothing but the state can differ."""
    graph, _ = grown(seed, real=False)
    plan, given = plan_of(graph, source="test", dt_s=DT_S), frames(graph, steps=9)
    for one, other in ((Engine, Reference), (Reference, Engine)):
        first, second, whole = one(plan), other(plan), other(plan)
        for frame in given[:BEFORE]:
            first.step(frame)
            whole.step(frame)
        second.restore(first.state())
        for frame in given[BEFORE:]:
            np.testing.assert_allclose(second.step(frame), whole.step(frame), rtol=0, atol=1e-6)


def test_the_graphs_hold_what_is_to_be_kept() -> None:
    plans = [_plan(seed) for seed in SEEDS]
    neurons = [node for plan in plans for node in plan.nodes if isinstance(node, Neuron)]
    assert any(isinstance(node, Delay) and node.steps.max() > 1 for p in plans for node in p.nodes)
    assert any(plan.late for plan in plans)
    assert any(n.kind == "integrating" and n.synaptic_decay is not None for n in neurons)
    assert any(n.resets_late for n in neurons)
    assert any(n.many for n in neurons)
    assert any(n.initial is not None for n in neurons)
