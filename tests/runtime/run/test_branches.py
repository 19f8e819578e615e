"""Graphs with branches and loops: the reference is a simulation in float64 that knows no plan."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

from .branching import DT_S, frames, grown, nested, simulate

SEEDS = range(60)


def planned(graph: nir.NIRGraph, path: Path) -> Plan:
    """Through the disk."""
    nir.write(str(path), graph)
    return load_plan(path, dt_s=DT_S)


def test_the_random_graphs_have_everything() -> None:
    kinds: set[str] = set()
    loops = chains = 0
    for seed in SEEDS:
        graph, late = grown(seed)
        kinds |= {type(node).__name__ for node in graph.nodes.values()}
        loops += bool(late)
        chains += len(graph.edges) == len(graph.nodes) - 1
    assert kinds == {"Affine", "CubaLI", "CubaLIF", "Delay", "IF", "Input", "LI", "LIF", "Output",
                     "Scale", "Threshold"}  # fmt: skip
    assert loops > 20
    assert 2 < chains < 30


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_are_what_the_simulation_says(seed: int, tmp_path: Path) -> None:
    graph, late = grown(seed)
    given = frames(graph)
    expected = simulate(graph, late, given)
    plan = planned(graph, tmp_path / "graph.nir")
    reference = Reference(plan)
    output = reference.run(given)
    np.testing.assert_allclose(output, expected["output"], atol=1e-4)
    engine = Engine(plan, threads=1 + seed % 2)
    np.testing.assert_allclose(engine.run(given), expected["output"], atol=1e-4)
    np.testing.assert_allclose(engine.membrane, reference.membrane, atol=1e-4)
    for program in (reference, engine):
        for neuron, fired in zip(plan.spiking, program.record(given), strict=True):
            np.testing.assert_array_equal(fired, expected[neuron.name] > 0, err_msg=neuron.name)
    assert engine.synops == reference.synops > 0


@pytest.mark.parametrize("seed", range(0, 60, 6))
def test_a_graph_inside_a_graph_gives_the_same(seed: int, tmp_path: Path) -> None:
    graph, _ = grown(seed)
    given = frames(graph)
    flat = Reference(planned(graph, tmp_path / "flat.nir")).run(given)
    inside = Reference(planned(nested(graph), tmp_path / "nested.nir"))
    assert all(
        node.name.startswith("block.") or node.name == "output" for node in inside.plan.nodes
    )
    np.testing.assert_array_equal(inside.run(given), flat)


def test_a_run_that_follows_another_starts_at_rest(tmp_path: Path) -> None:
    """Delays, late spikes and what v starts from are set back; steps are the same as a run."""
    for seed in range(12):
        graph, _ = grown(seed)
        engine = Engine(planned(graph, tmp_path / f"{seed}.nir"))
        given = frames(graph, 12)
        first = engine.run(given)
        np.testing.assert_array_equal(engine.run(given), first)
        engine.reset()
        np.testing.assert_array_equal([engine.step(frame) for frame in given], first)
        constant = np.broadcast_to(given[0], given.shape)
        np.testing.assert_array_equal(engine.run(constant), engine.run(np.array(constant)))


def test_samples_side_by_side_are_the_same_as_one_after_the_other(tmp_path: Path) -> None:
    graph, _ = next((g, late) for g, late in map(grown, SEEDS) if late)
    reference = Reference(planned(graph, tmp_path / "graph.nir"))
    given = frames(graph, 12)
    batch = np.stack([given, given[::-1]], axis=1)
    together = reference.run_batch(batch)
    np.testing.assert_allclose(together[:, 0], reference.run(given), atol=1e-5)
    np.testing.assert_allclose(together[:, 1], reference.run(given[::-1]), atol=1e-5)
