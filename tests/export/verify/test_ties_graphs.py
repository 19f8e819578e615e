"""Ties in graphs with branches and loops: what one flipped spike explains, and what none does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity
from mpsl_export.verify.forced import Forced
from mpsl_export.verify.tie_search import tie_tolerance
from mpsl_export.verify.ties import Referee
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

from ...runtime.run.branching import DT_S, frames, grown  # noqa: TID252 - tests are no package

Place = tuple[int, int, int]  # step, population, neuron


def _plan(seed: int) -> tuple[Plan, NDArray[np.float32]]:
    """Dyadic weights: many potentials lie on their threshold, to the last float or two."""
    graph, _ = grown(seed, real=False)
    return plan_of(graph, source=f"graph {seed}", dt_s=DT_S), frames(graph)


def _run(plan: Plan, given: Any, flipped: set[Place]) -> tuple[list[LayerActivity], Any, Any]:
    """Activity and output of the reference with these spikes flipped; where it is near and far."""
    steps, near, far = len(given), [], []
    spikes = [np.zeros((steps, n.threshold.size), bool) for n in plan.spiking]

    def decide(step: int, index: int, U: Any, fired: Any) -> Any:
        apart = np.abs(U[0] - plan.spiking[index].threshold.reshape(-1))
        close = apart <= tie_tolerance(plan.spiking[index])
        near.extend((step, index, int(i)) for i in np.flatnonzero(close))
        far.extend((step, index, int(i)) for i in np.flatnonzero(apart > 1e-2)[:1])
        decided = fired.copy()
        for at, layer, neuron in flipped:
            if (at, layer) == (step, index):
                decided[0, neuron] ^= True
        spikes[index][step] = decided[0]
        return decided

    output = Forced(plan).run_decided(given[:, None], decide)[:, 0]
    names = [neuron.name for neuron in plan.spiking]
    return [LayerActivity(n, s) for n, s in zip(names, spikes, strict=True)], output, (near, far)


def _graphs() -> list[int]:
    """Seeds of graphs whose neurons fire once a step and that are no chains."""
    plans = {seed: _plan(seed)[0] for seed in range(60)}
    return [s for s, p in plans.items() if not p.is_chain and not any(n.many for n in p.spiking)]


GRAPHS = _graphs()


def test_without_a_decision_it_is_the_reference() -> None:
    assert len(GRAPHS) > 15
    for seed in GRAPHS:
        plan, given = _plan(seed)
        activity, output, _ = _run(plan, given, set())
        np.testing.assert_array_equal(output, Reference(plan).run(given))
        for layer, spikes in zip(activity, Reference(plan).record(given), strict=True):
            assert np.array_equal(layer.spikes, spikes.reshape(len(given), -1))


@pytest.mark.parametrize("seed", GRAPHS[:12])
def test_a_tie_is_explained_by_all_layers_and_by_the_output_alone(seed: int) -> None:
    plan, given = _plan(seed)
    _, plain, (near, _) = _run(plan, given, set())
    tried = 0
    for place in near[:6]:
        activity, output, _ = _run(plan, given, {place})
        found = Referee(plan).explain_activity("s", given, "other", activity)
        assert found.wrong is None
        step, index, neuron = place
        assert [(d.step, d.layer, d.neuron) for d in found.ties] == [
            (step, plan.spiking[index].name, neuron)
        ]
        last = plan.output_neuron
        if last is not None and last.kind == "spiking" and not np.array_equal(output, plain):
            tried += 1
            searched = Referee(plan).explain_output("s", given, "other", output.astype(np.uint8))
            assert searched.wrong is None
            assert searched.ties
    assert near or tried == 0


def test_a_spike_that_is_no_tie_is_named() -> None:
    for seed in GRAPHS[:8]:
        plan, given = _plan(seed)
        _, _, (_, far) = _run(plan, given, set())
        step, index, neuron = far[len(far) // 2]
        activity, _, _ = _run(plan, given, {(step, index, neuron)})
        wrong = Referee(plan).explain_activity("s", given, "other", activity).wrong
        assert wrong is not None
        assert (wrong.step, wrong.layer, wrong.neuron) == (step, plan.spiking[index].name, neuron)


def test_what_fires_many_times_is_refused_by_name() -> None:
    plans = [_plan(seed)[0] for seed in range(60)]
    many = next(plan for plan in plans if any(n.many for n in plan.spiking))
    with pytest.raises(ModelError, match="0 and 1 alone"):
        Referee(many)
