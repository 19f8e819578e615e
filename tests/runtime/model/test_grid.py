"""Models on a grid: whole numbers, the proof that no sum rounds, and that it holds in programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import DataError, ModelError
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.model.grid import is_int8, layer_grids
from mpsl_runtime.model.input_bound import InputBound
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Convolution, Dense
from mpsl_runtime.model.quanta import EXACT_LIMIT, integer_weights, worst_sum
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

from .grid_graphs import grid_graph, metadata


def plan(seed: int = 0, **changes: Any) -> Any:
    return plan_of(grid_graph(seed, **changes), source="test")


def test_a_model_file_gives_back_its_whole_numbers(tmp_path: Path) -> None:
    nir.write(str(tmp_path / "model.nir"), grid_graph())
    found = load_plan(tmp_path / "model.nir")
    assert is_int8(found)
    assert found.metadata is not None
    assert found.metadata.input_max == 255
    first, second = layer_grids(found)
    conv, dense = found.nodes[0], found.nodes[4]
    assert isinstance(conv, Convolution)
    assert isinstance(dense, Dense)
    assert (first.name, first.weight_quantum, first.threshold) == ("n01_conv", 2.0**-7, 77)
    assert (second.name, second.weight_quantum, second.threshold) == ("n05_affine", 2.0**-6, 45)
    for grid, node in ((first, conv), (second, dense)):
        assert grid.weight.dtype == np.int8
        np.testing.assert_array_equal(grid.weight * np.float32(grid.weight_quantum), node.weight)
        np.testing.assert_array_equal(grid.bias * np.float32(grid.current_quantum), node.bias)
    assert (first.input_max, second.input_max) == (255, 4)
    weight, quantum = integer_weights(dense)
    assert quantum == second.weight_quantum
    np.testing.assert_array_equal(weight, second.weight)


def test_the_worst_sum_is_met_by_the_worst_input() -> None:
    first, second = layer_grids(plan())
    for grid in (first, second):
        rows = np.abs(grid.weight.astype(np.int64)).reshape(len(grid.weight), -1).sum(axis=1)
        worst = rows * grid.input_max + np.abs(grid.bias)
        assert grid.worst_sum == worst.max() < EXACT_LIMIT


def test_a_bias_counts_in_quanta_of_the_current() -> None:
    first, _ = layer_grids(plan(input_grid=1 / 256))
    coarse, _ = layer_grids(plan())
    np.testing.assert_array_equal(first.bias, coarse.bias * 256)
    assert first.current_quantum == 2.0**-15
    weight, bias = np.array([[3, -4]]), np.array([-5])
    assert worst_sum(weight, bias, 1 / 64, 100) == 7 * 100 + 5 * 64


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_sums_are_the_same_float32_in_any_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-127, 128, 500)
    inputs = random.integers(0, 256, 500) * (random.random(500) < 0.3)
    parts = (weight * 2.0**-9).astype(np.float32) * (inputs / 256).astype(np.float32)
    assert worst_sum(weight[None], np.array([0]), 1 / 256, 255) < EXACT_LIMIT
    sums = {float(np.cumsum(random.permutation(parts), dtype=np.float32)[-1]) for _ in range(10)}
    assert sums == {float((weight * inputs).sum() * 2.0**-17)}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_engine_and_reference_agree_bit_for_bit_on_a_grid(seed: int) -> None:
    model = plan(seed)
    frames = np.random.default_rng(seed).integers(0, 4, (6, 2, 6, 8)).astype(np.float32)
    reference, engine = Reference(model), Engine(model)
    recorded = reference.record_membrane(frames)
    assert any(np.any(spikes) for spikes in reference.record(frames))
    # U has more digits than its grid: it is equal because it is rounded in the same way.
    assert any((np.rint(U * 128) != U * 128).any() for U in recorded)
    for one, two in zip(recorded, engine.record_membrane(frames), strict=True):
        np.testing.assert_array_equal(one, two)


def _weight(graph: nir.NIRGraph, value: float) -> None:
    graph.nodes["n05_affine"].weight[1, 2] = value


def _no_grid(graph: nir.NIRGraph) -> None:
    graph.nodes["n05_affine"].metadata = {}


def _bias(graph: nir.NIRGraph) -> None:
    graph.nodes["n01_conv"].bias[0] += np.float32(2**-9)


OFF_GRID: dict[str, tuple[Callable[[nir.NIRGraph], None], str]] = {
    "weight between two quanta": (lambda g: _weight(g, 0.01), "weight of 'n05_affine' is off"),
    "weight of 128 quanta": (lambda g: _weight(g, 2.0), "no int8; got 128 quanta at .1, 2."),
    "no grid": (_no_grid, "no weight_grid; in node 'n05_affine'"),
    "bias": (_bias, "bias of 'n01_conv' is off its grid"),
}


@pytest.mark.parametrize("what", OFF_GRID)
def test_a_value_off_its_grid_is_named_and_the_model_still_runs(what: str) -> None:
    change, words = OFF_GRID[what]
    graph = grid_graph()
    change(graph)
    model = plan_of(graph, source="test")
    with pytest.raises(ModelError, match=words):
        layer_grids(model)
    assert Reference(model).run(np.ones((2, 2, 6, 8), np.float32)).shape == (2, 3)


def test_sums_that_may_reach_the_limit_are_refused_by_name() -> None:
    within = (EXACT_LIMIT // layer_grids(plan())[0].worst_sum) * 255
    assert layer_grids(plan(input_max=within))[0].worst_sum < EXACT_LIMIT
    with pytest.raises(ModelError, match=r"may not be exact.*n01_conv"):
        layer_grids(plan(input_max=2 * within))


@pytest.mark.parametrize(
    "changes", [{"input_grid": 0.01}, {"input_max": 0}, {"input_grid": 2.0}, {"weights": "float32"}]
)
def test_a_model_without_a_grid_for_its_input_has_no_proof(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"on a grid|not an int8 model"):
        layer_grids(plan(**changes))


BEYOND = (1 << 24, (1 << 63) + 5, -1)  # as a float32, as an int64, as a count


@pytest.mark.parametrize("bound", BEYOND)
def test_a_bound_that_no_proof_reaches_is_refused_when_a_file_is_read(
    tmp_path: Path, bound: int
) -> None:
    graph = grid_graph()
    graph.metadata = {**graph.metadata, "input_max": np.uint64(bound) if bound > 0 else bound}
    nir.write(str(tmp_path / "model.nir"), graph)
    with pytest.raises(ModelError, match=r"'input_max' is out of range; got .*model\.nir"):
        load_plan(tmp_path / "model.nir")


@pytest.mark.parametrize("bound", BEYOND)
def test_a_plan_with_such_a_bound_has_no_proof(bound: int) -> None:
    found = plan()
    assert found.metadata is not None
    wide = replace(found, metadata=replace(found.metadata, input_max=bound))
    with pytest.raises(ModelError, match="not on a grid"):
        layer_grids(wide)
    # Not a small number, as int64 would make of it.
    assert worst_sum(np.full((1, 500), 127), np.array([1]), 1.0, (1 << 63) + 5) > 1 << 63
    assert worst_sum(np.zeros((1, 5)).astype(int), np.array([3]), 2.0**-70, 1) == 3 << 70


@pytest.mark.parametrize("quantum", [2.0**-25, 2.0**-1074, 0.0, 0.3, 2.0, float("nan")])
def test_an_input_grid_that_float32_cannot_count_on_has_no_proof(quantum: float) -> None:
    found = plan()
    assert found.metadata is not None
    fine = replace(found, metadata=replace(found.metadata, input_grid=quantum))
    with pytest.raises(ModelError, match="not on a grid"):
        layer_grids(fine)


@pytest.mark.parametrize("value", [0.5, "seven", True, 65, -65])
def test_a_grid_that_is_no_exponent_is_refused(value: Any) -> None:
    graph = grid_graph()
    graph.nodes["n01_conv"].metadata = {"weight_grid": value}
    with pytest.raises(ModelError, match=r"weight_grid.*n01_conv"):
        plan_of(graph, source="test")


def test_a_float_model_is_written_as_before_and_an_older_file_reads() -> None:
    plain = replace(metadata(), weights="float32", input_max=0)
    written = plain.to_mapping()
    assert "weights" not in written
    assert "input_max" not in written
    assert ModelMetadata.from_mapping(written, "test") == plain
    assert ModelMetadata.from_mapping(metadata().to_mapping(), "test") == metadata()
    with pytest.raises(ModelError, match=r"'weights' is not known.*int4"):
        ModelMetadata.from_mapping({**written, "weights": "int4"}, "test")


@pytest.mark.parametrize("runner", [Reference, Engine])
def test_input_beyond_the_proof_is_refused_and_input_at_its_edge_is_not(runner: Any) -> None:
    running = runner(plan(input_max=10))
    frame = np.zeros((2, 6, 8), np.float32)
    frame[1, 2, 3] = 10
    running.step(frame)
    for value, words in ((11, "larger than"), (-11, "larger than"), (0.5, "off its grid")):
        frame[1, 2, 3] = value
        with pytest.raises(DataError, match=words):
            running.step(frame)
        with pytest.raises(DataError, match=words):
            running.run(np.stack([frame, frame]))
        with pytest.raises(DataError, match=words):
            running.step_sparse(np.array([5], np.int32), np.array([value], np.float32))


def test_float_models_take_any_input() -> None:
    InputBound(replace(metadata(), weights="float32")).check(np.array([1e6, 0.3], np.float32))
    InputBound(None).check(np.array([1e6, 0.3], np.float32))
    with pytest.raises(DataError, match=r"multiples of 0\.015625"):
        InputBound(metadata(input_grid=1 / 64)).check(np.array([0.01], np.float32))
    InputBound(metadata(input_grid=1 / 64)).check(np.array([-3 / 64], np.float32))


def test_held_out_samples_are_a_part_of_every_class_and_never_of_training() -> None:
    labels = np.repeat(np.arange(4), (10, 20, 30, 40))
    training, held_out = stratified_split(labels, 0.2, seed=3)
    assert np.bincount(labels[held_out]).tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(np.sort(np.r_[training, held_out]), np.arange(100))
    again = stratified_split(labels, 0.2, seed=3)[1]
    np.testing.assert_array_equal(held_out, again)
    assert not np.array_equal(held_out, stratified_split(labels, 0.2, seed=4)[1])
    limited = stratified_split(labels, 0.5, seed=3, limit=20)
    assert sum(map(len, limited)) == 20
    assert len(stratified_split(labels, 0.0, seed=3)[1]) == 0
