"""A run without ties gives the same spikes in whatever order a program adds."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Dense, Plan
from mpsl_runtime.run import reference as reference_module
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.probe import digest_of
from mpsl_runtime.run.probe_search import find_probe
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.rounding import Rounding

from .branching import DT_S, frames, grown


def _affine(weight: list[float], bias: float, threshold: float) -> Plan:
    """One neuron that forgets all in each step, behind weights; fires on U > threshold."""
    one = np.ones(1, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([len(weight)])}),
        "a": nir.Affine(np.array([weight], np.float32), np.float32(bias) * one),
        "l": nir.LIF(DT_S * one, one, 0 * one, np.float32(threshold) * one, 0 * one),
        "output": nir.Output({"output": np.array([1])}),
    }
    edges = [("input", "a"), ("a", "l"), ("l", "output")]
    return plan_of(nir.NIRGraph(nodes, edges), source="test", dt_s=DT_S)


@pytest.mark.parametrize(
    ("weight", "threshold", "steps"),
    [
        ([0.1] * 10, 1.0, 0),  # 1.0000001 or 1: the order decides
        ([0.1] * 10, 1.1, 3),
        ([0.125] * 8, 1.0, 3),  # sums of eighths are exact, however near
        ([1.0], 1.0, 3),
        ([16777216.0, 1.0, 1.0], 16777217.0, 0),
    ],
)
def test_a_sum_that_may_round_onto_the_threshold_is_a_tie(
    weight: list[float], threshold: float, steps: int
) -> None:
    plan = _affine(weight, 0.0, threshold)
    given = np.ones((3, len(weight)), np.float32)
    assert Rounding(plan).steps_without_tie(given) == steps


def _in_another_order(node: Any, x: np.ndarray, order: np.random.Generator) -> np.ndarray:
    """A fully connected node that adds its products one by one, in a random order."""
    if not isinstance(node, Dense):
        return reference_module.apply(node, x)
    products = x.reshape(len(x), 1, -1) * node.weight[None]
    terms = np.concatenate([products, np.broadcast_to(node.bias, products.shape[:2])[..., None]], 2)
    return np.cumsum(order.permuted(terms, axis=2), axis=2, dtype=np.float32)[..., -1]


@pytest.mark.parametrize("seed", range(16))
def test_another_order_of_additions_changes_no_spike_before_a_tie(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(grown(seed)[0], source="test", dt_s=DT_S)
    given = frames(grown(seed)[0])
    steps = Rounding(plan).steps_without_tie(given)
    expected = [layer[:steps] for layer in Reference(plan).record(given)]
    order, apply = np.random.default_rng(seed), reference_module.apply
    with monkeypatch.context() as patch:
        patch.setattr(
            reference_module,
            "apply",
            lambda node, x: _in_another_order(node, x, order) if isinstance(node, Dense)
            else apply(node, x),
        )  # fmt: skip
        for _ in range(4):
            got = [layer[:steps] for layer in Reference(plan).record(given)]
            assert digest_of(got) == digest_of(expected)


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_covers_what_float64_gives(seed: int) -> None:
    """Currents and potentials in float64 are within it, all along."""
    random = np.random.default_rng(seed)
    weight = random.normal(0, 1, (1, 40)).astype(np.float32)
    plan = _affine(weight[0].tolist(), 0.3, 100.0)
    rounding = Rounding(plan)
    given = (random.random((6, 40)) * 3).astype(np.float32)
    rounding.steps_without_tie(given)
    bound = float(rounding._bounds["l"].V[0, 0])
    exact = float(given[-1].astype(np.float64) @ weight[0].astype(np.float64) + np.float32(0.3))
    assert 0 < abs(float(rounding.membrane[0]) - exact) + 1e-12 <= bound < 1e-3


def _instruction_sets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = []
    for name in ("baseline", "v3", "v4", "vnni"):
        monkeypatch.setenv("MPSL_ISA", name)
        try:
            Engine(_affine([1.0], 0.0, 1.0))
        except UsageError:
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("seed", [1, 4, 5, 9])
def test_a_found_probe_is_the_same_on_every_instruction_set(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(grown(seed)[0], source="test", dt_s=DT_S)
    probe = find_probe(plan)
    assert probe is not None
    given = probe.frames(plan)
    assert sum(layer.any() for layer in Reference(plan).record(given)) > 0
    sets = _instruction_sets(monkeypatch)
    assert sets
    for isa in sets:
        monkeypatch.setenv("MPSL_ISA", isa)
        assert digest_of(Engine(plan).record(given)) == probe.probe_sha256
    assert find_probe(plan) == probe
