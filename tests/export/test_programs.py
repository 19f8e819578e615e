"""ONNX Runtime and torch as `mpsl bench` runs them: step by step the outputs of the reference."""

from __future__ import annotations

import builtins
import importlib.util
import json
import sys
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export import programs
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_runtime import cli
from mpsl_runtime.bench.bench import benchmark
from mpsl_runtime.bench.inputs import synthetic
from mpsl_runtime.bench.programs import find_programs
from mpsl_runtime.errors import MissingExtraError
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.plan import Convolution, Dense, Plan, Pooling
from mpsl_runtime.run.reference import Reference

NAMES = ["onnx", "torch"]


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    """tests/benchmarks/networks.py, which is a script's neighbour and no package."""
    path = Path(__file__).parents[1] / "benchmarks" / "networks.py"
    spec = importlib.util.spec_from_file_location("networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small relative of network A on disk, in both kinds of weights."""
    layers = (("conv", 12, 2), ("conv", 20, 1), ("pool",), ("dense", 30), ("dense", 5))
    networks.NETWORKS["small"] = ((2, 13, 14), layers, "12C3S2-20C3-AP2-30FC-5")
    folder = tmp_path_factory.mktemp("networks")
    for weights in ("float32", "int8"):
        nir.write(folder / f"{weights}.nir", networks.network("small", 0.2, weights))
    return {weights: folder / f"{weights}.nir" for weights in ("float32", "int8")}


def neuron_variants() -> Plan:
    """CubaLIF with a reset to a value, then LI: kinds of neurons that mpsl's own models lack."""
    random = np.random.default_rng(4)
    full = np.full(7, 1, np.float32)
    nodes = {
        "n0_input": nir.Input({"input": np.array([9])}),
        "n1_affine": nir.Affine(
            random.normal(0, 1, (7, 9)).astype(np.float32), np.zeros(7, np.float32)
        ),
        "n2_cuba": nir.CubaLIF(
            tau_syn=full * 3e-4, tau_mem=full * 4e-4, r=full, v_leak=full * 0,
            v_threshold=full * 0.1, v_reset=full * 0, w_in=full * 2,
        ),
        "n3_linear": nir.Linear(random.normal(0, 1, (3, 7)).astype(np.float32)),
        "n4_li": nir.LI(tau=full[:3] * 4e-4, r=full[:3], v_leak=full[:3] * 0),
        "n5_output": nir.Output({"output": np.array([3])}),
    }  # fmt: skip
    edges = list(pairwise(nodes))
    return plan_of(nir.NIRGraph(nodes=nodes, edges=edges), source="variants", dt_s=1e-4)


def held_against_the_reference(plan: Plan, name: str, *, exact: bool) -> int:
    """Steps a program twice through a sample; returns the number of spikes of the last layer."""
    (frames,) = synthetic(plan).samples
    program = find_programs([name])[name](plan, 1)
    expected = Reference(plan).run(frames)
    reference = Reference(plan)
    spikes, membranes = reference.record(frames), reference.record_membrane(frames)
    for _ in range(2):  # the second time after a reset
        program.reset()
        outputs = np.array([program.step(frame) for frame in frames])
        assert outputs.shape == expected.shape
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=0 if exact else 1e-5)
        states = program.states()
        for neuron, fired, U in zip(plan.spiking, spikes, membranes, strict=True):
            if neuron.reset == "subtract":
                V = U[-1] - fired[-1] * neuron.threshold
            else:
                V = np.where(fired[-1], neuron.reset_value, U[-1])
            np.testing.assert_allclose(states[neuron.name], V, rtol=0, atol=0 if exact else 1e-5)
    return int(np.count_nonzero(expected))


def test_both_are_registered() -> None:
    registered = {entry.name: entry.value for entry in entry_points(group="mpsl.programs")}
    assert registered == {name: f"mpsl_export.programs:{name}" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_every_step_and_state_is_the_references(
    small: dict[str, Path], weights: str, name: str
) -> None:
    assert held_against_the_reference(load_plan(small[weights]), name, exact=True) > 5


@pytest.mark.parametrize("name", NAMES)
def test_neurons_of_other_frameworks_run_too(name: str) -> None:
    assert held_against_the_reference(neuron_variants(), name, exact=False) > 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("run", ["event_run", "image_run"])
def test_trained_networks_run(
    request: pytest.FixtureRequest, tmp_path: Path, run: str, name: str
) -> None:
    """The image run is read out by membrane and pools over 3x3, which is no power of two."""
    from mpsl_export.checkpoint import read_checkpoint

    write_nir(graph_of(read_checkpoint(request.getfixturevalue(run).path)), tmp_path / "model.nir")
    plan = load_plan(tmp_path / "model.nir")
    held_against_the_reference(plan, name, exact=False)


def test_sums_become_averages_without_a_rounding(small: dict[str, Path]) -> None:
    plan = load_plan(small["float32"])
    averaged = programs.averaging(plan)
    (pool,) = [node for node in averaged.nodes if isinstance(node, Pooling)]
    assert pool.scale == 0.25
    signal = synthetic(plan).samples[0]
    changed = 0
    for before, after in zip(plan.nodes, averaged.nodes, strict=True):
        changed += after is not before
        assert isinstance(after, type(before))
    assert changed == 2  # the pool, and the weights behind it
    outputs = Reference(plan).run(signal)
    assert outputs.any()
    assert np.array_equal(Reference(averaged).run(signal), outputs)
    weighted = [
        [node for node in p.nodes if isinstance(node, Convolution | Dense)]
        for p in (plan, averaged)
    ]
    assert np.array_equal(weighted[0][2].weight * 4, weighted[1][2].weight)


def test_onnx_runtime_that_is_absent_is_a_missing_extra(
    small: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return ordinary(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(MissingExtraError, match="ONNX Runtime"):
        programs.onnx(load_plan(small["int8"]), 1)


def test_the_command_fills_the_columns_of_both(
    small: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(small["int8"]), "--against", "onnx,torch", "--density", "0.1"]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--rounds", "2", "--json"])
    captured = capsys.readouterr()
    assert (done.value.code, captured.err) == (0, "")
    (row,) = json.loads(captured.out)["rows"]
    assert row["equal"] is row["exact"] is True
    assert row["output_spikes"] > 0
    assert min(row["ort_us"], row["torch_us"], row["ratio_ort"]) > 0
    assert "ONNX Runtime" in row["programs"]["onnx"]["device"]
    assert "torch" in row["programs"]["torch"]["device"]


@pytest.mark.parametrize("name", ["A", "B32"])
def test_the_networks_of_the_benchmark_are_int8_models_of_the_density_asked_for(
    networks: ModuleType, tmp_path: Path, name: str
) -> None:
    """Also that ONNX Runtime runs them to the same bits, whole."""
    plans = {}
    for weights in ("float32", "int8"):
        nir.write(tmp_path / f"{weights}.nir", networks.network(name, 0.05, weights))
        plans[weights] = load_plan(tmp_path / f"{weights}.nir")
    grids = layer_grids(plans["int8"])
    assert all(np.abs(grid.weight).max() > 100 for grid in grids)
    values = [
        [node.weight for node in plan.nodes if isinstance(node, Convolution | Dense)]
        for plan in plans.values()
    ]
    assert all(map(np.array_equal, *values))
    plan = plans["int8"]
    row = benchmark(plan, synthetic(plan), programs=find_programs(["onnx"]), rounds=1)
    assert row.equal
    assert row.output_spikes > 5
    for layer in row.layers[:-1]:
        assert layer.density == pytest.approx(0.05, abs=0.004)
