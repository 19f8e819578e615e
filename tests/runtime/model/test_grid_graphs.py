"""The proof of an int8 model for any graph: what stays on a grid, what leaves it, and the bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

from .grid_graphs import DT_S, grid_graph, neuron


def _threshold(graph: nir.NIRGraph) -> None:
    graph.nodes["n06_lif"] = neuron(45.5 / 64, (3,), -6)


def _one_threshold(graph: nir.NIRGraph) -> None:
    graph.nodes["n06_lif"].v_threshold = (
        graph.nodes["n06_lif"].v_threshold * np.array([1, 1, 1.05], np.float32)
    ).astype(np.float32)


@pytest.mark.parametrize("change", [_threshold, _one_threshold])
def test_a_threshold_between_quanta_rounds_no_sum(change: Callable[[nir.NIRGraph], None]) -> None:
    graph = grid_graph()
    change(graph)
    model = plan_of(graph, source="test")
    assert [grid.threshold for grid in layer_grids(model)] == [77, None]
    _same_bits(model)


def _same_bits(model: Any, steps: int = 6) -> None:
    frames = np.random.default_rng(1).integers(0, 4, (steps, 2, 6, 8)).astype(np.float32)
    reference, engine = Reference(model), Engine(model)
    recorded = reference.record_membrane(frames)
    assert all(spikes.any() for spikes in reference.record(frames))
    for one, two in zip(recorded, engine.record_membrane(frames), strict=True):
        np.testing.assert_array_equal(one, two)


def _loop(graph: nir.NIRGraph) -> None:
    """The last population's spikes come back, through weights and as they are."""
    weight = (np.arange(9).reshape(3, 3) * 2.0**-5).astype(np.float32)
    graph.nodes["back"] = nir.Linear(weight, metadata={"weight_grid": -5})
    graph.edges += [("n06_lif", "back"), ("back", "n06_lif"), ("n06_lif", "n06_lif")]


def _branch(graph: nir.NIRGraph) -> None:
    """Two layers of different quanta meet, one of them behind a delay."""
    weight = (np.arange(144).reshape(3, 48) % 7 * 2.0**-9).astype(np.float32)
    graph.nodes["beside"] = nir.Linear(weight, metadata={"weight_grid": -9})
    graph.nodes["delay"] = nir.Delay(np.full(48, 2 * DT_S, np.float32))
    graph.edges += [("n04_flatten", "delay"), ("delay", "beside"), ("beside", "n06_lif")]


@pytest.mark.parametrize("change", [_loop, _branch])
def test_branches_and_loops_are_proven_too(change: Callable[[nir.NIRGraph], None]) -> None:
    graph = grid_graph()
    change(graph)
    model = plan_of(graph, source="test")
    grids = {grid.name: grid for grid in layer_grids(model)}
    assert len(grids) == 3
    # It no longer sees that layer alone.
    assert grids["n05_affine"].threshold is None
    _same_bits(model)


def _integrating(graph: nir.NIRGraph) -> None:
    graph.nodes["n02_lif"] = nir.LI(*(np.float32(v) for v in (2 * DT_S, 1, 0)))


def _linear_loop(graph: nir.NIRGraph) -> None:
    graph.nodes["back"] = nir.Linear(np.eye(3, dtype=np.float32), metadata={"weight_grid": 0})
    graph.edges += [("n05_affine", "back"), ("back", "n05_sum"), ("n05_affine", "n05_sum")]
    graph.nodes["n05_sum"] = nir.Scale(np.ones(3, np.float32))
    graph.edges += [("n05_sum", "back2"), ("back2", "n05_sum"), ("n05_sum", "n06_lif")]
    graph.nodes["back2"] = nir.Linear(np.eye(3, dtype=np.float32), metadata={"weight_grid": 0})


def _thirds(graph: nir.NIRGraph) -> None:
    graph.nodes["n03_sumpool"] = nir.Scale(np.full((4, 6, 8), 1 / 3, np.float32))
    graph.nodes["n04_flatten"] = nir.Flatten({"input": np.array([4, 6, 8])}, 0, -1)
    weight = np.tile(graph.nodes["n05_affine"].weight, 4)
    graph.nodes["n05_affine"].weight = weight


def _average(graph: nir.NIRGraph) -> None:
    three = np.array([3, 3])
    graph.nodes["n03_sumpool"] = nir.AvgPool2d(three, np.array([2, 2]), np.array([1, 1]))


def _far_apart(graph: nir.NIRGraph) -> None:
    weight = np.full((3, 48), 2.0**-30, np.float32)
    graph.nodes["beside"] = nir.Linear(weight, metadata={"weight_grid": -30})
    graph.edges += [("n04_flatten", "beside"), ("beside", "n06_lif")]


LEAVES: dict[str, tuple[Callable[[nir.NIRGraph], None], str]] = {
    "U is summed": (_integrating, "values that are on no grid.*in node 'n03_sumpool'"),
    "a loop of weights": (_linear_loop, "loop of an int8 model passes no neurons.*'n05_sum'"),
    "a third": (_thirds, "sums of an int8 layer may not be exact.*'n05_affine'"),
    "a ninth": (_average, "leaves the grid; got Pooling times 0.111.*'n03_sumpool'"),
    "quanta far apart": (_far_apart, "sum of an int8 model may not be exact.*'n06_lif'"),
}


@pytest.mark.parametrize("what", LEAVES)
def test_what_leaves_the_grid_is_refused_by_name(what: str) -> None:
    change, words = LEAVES[what]
    graph = grid_graph()
    change(graph)
    model = plan_of(graph, source="test", dt_s=DT_S)
    with pytest.raises(ModelError, match=words):
        layer_grids(model)
    frames = np.ones((3, 2, 6, 8), np.float32)
    np.testing.assert_allclose(Engine(model).run(frames), Reference(model).run(frames), atol=1e-4)


def test_factors_that_are_whole_stay_on_the_grid() -> None:
    """x 0.75 of spikes counts in quarters; x 3 of those in quarters as well."""
    graph = grid_graph()
    graph.nodes["n03_sumpool"] = nir.Scale(np.full((4, 6, 8), 0.75, np.float32))
    graph.nodes["n03b"] = nir.Scale(np.full((4, 6, 8), 3, np.float32))
    graph.nodes["n04_flatten"] = nir.Flatten({"input": np.array([4, 6, 8])}, 0, -1)
    graph.nodes["n05_affine"].weight = np.tile(graph.nodes["n05_affine"].weight, 4)
    graph.edges.remove(("n03_sumpool", "n04_flatten"))
    graph.edges += [("n03_sumpool", "n03b"), ("n03b", "n04_flatten")]
    model = plan_of(graph, source="test")
    second = layer_grids(model)[1]
    assert (second.input_quantum, second.input_max) == (0.25, 9)
    _same_bits(model)
