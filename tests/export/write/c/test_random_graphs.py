"""Random graphs as C: bit for bit the reference, in every neuron at every step.

134 graphs a run, the same every time; `make fuzz` (MPSL_FUZZ=N) takes N of each kind, new ones.
They are drawn first and compiled together: a compiler call costs more than a small network.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_export.int8.to_int8 import model_to_int8
from mpsl_export.model_file import read_network
from mpsl_runtime.model.filling import Filling, fill
from mpsl_runtime.model.grid import is_int8, layer_grids
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan
from mpsl_runtime.run.reference import Reference

from ....runtime.run import branching  # noqa: TID252 - tests are no package
from .many import Many, Outcome, compilers

Array = NDArray[np.float32]
FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
ENGINE = Path(__file__).resolve().parents[3] / "runtime" / "run" / "engine"
# A compiler reads a weight far slower than an engine takes it.
MOST_NEURONS, MOST_WEIGHTS = 4000, 10_000
GCC = pytest.mark.skipif("gcc" not in compilers(), reason="no gcc: nothing compiles the C")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"engine_{name}", ENGINE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def drawn(kind: str, count: int, tries: int) -> list[tuple[Plan, Array]]:
    """Plans of one kind that a compiler has soon read, and frames for each; `tries` are drawn for
    each of them, since many are too large."""
    strategies, engine = _module("random_networks"), _module("conftest")
    found: list[tuple[Plan, Array]] = []

    @settings(
        max_examples=tries * (FUZZ or count),
        deadline=None,
        derandomize=not FUZZ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def collect(data: Any) -> None:
        plan = data.draw(getattr(strategies, kind)(engine.Builder))
        neurons = sum(math.prod(node.output_shape) for node in plan.nodes)
        weights = sum(node.weight.size for node in plan.nodes if hasattr(node, "weight"))
        if neurons > MOST_NEURONS or weights > MOST_WEIGHTS or math.prod(plan.input_shape) > 20_000:
            return
        if is_int8(plan):
            plan = with_decay(plan, data.draw(st.sampled_from([0.0, 0.5, 0.75, 1.0, 1.0])))
        density = data.draw(st.sampled_from([0.05, 0.3, 1.0]))
        seed = data.draw(st.integers(0, 99))
        found.append((plan, engine.events(plan, steps=5, density=density, seed=seed)))

    collect()
    return found[: FUZZ or count]


def with_decay(plan: Plan, decay: float) -> Plan:
    """An int8 plan with another leak; it stays proven exact."""
    nodes = tuple(
        replace(node, decay=np.full(node.output_shape, decay, np.float32))
        if isinstance(node, Neuron)
        else node
        for node in plan.nodes
    )
    changed = replace(plan, nodes=nodes)
    assert layer_grids(changed)
    return changed


def assert_equal(plan: Plan, inputs: Array, outcome: Outcome) -> None:
    """Scores at every step, and U and spikes of every neuron."""
    reference = Reference(plan)
    expected = reference.run(inputs)
    scores = expected.cumsum(axis=0) if plan.readout == "count" else expected
    np.testing.assert_array_equal(outcome.scores, scores)
    spikes, membranes = reference.record(inputs), reference.record_membrane(inputs)
    for neuron, ours, theirs, U, expected_U in zip(
        plan.spiking, outcome.spikes, spikes, outcome.membranes, membranes, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs.reshape(ours.shape), err_msg=neuron.name)
        if neuron.kind != "threshold":
            np.testing.assert_array_equal(U, expected_U.reshape(U.shape), err_msg=neuron.name)


@GCC
@pytest.mark.parametrize(
    ("kind", "count", "tries"),
    [
        ("networks", 33, 2),
        ("int8_networks", 24, 6),
        ("branching_networks", 50, 2),
        ("extreme_networks", 15, 8),
    ],
)
def test_random_graphs_give_the_same_bits_in_c(
    kind: str, count: int, tries: int, tmp_path: Path
) -> None:
    pairs = drawn(kind, count, tries)
    assert len(pairs) == count or len(pairs) > FUZZ / 4 > 0
    many = Many([plan for plan, _ in pairs], tmp_path / "c", "gcc", "-O0")
    outcomes = many.run([inputs for _, inputs in pairs])
    fired = 0
    for (plan, inputs), outcome in zip(pairs, outcomes, strict=True):
        assert_equal(plan, inputs, outcome)
        fired += sum(int(spikes.any()) for spikes in outcome.spikes)
    assert fired > count / 2


@GCC
def test_int8_graphs_with_branches_and_loops_keep_int8_weights_and_the_same_bits(
    tmp_path: Path,
) -> None:
    """Their sums are whole numbers in float32."""
    plans, inputs = [], []
    for seed in (0, 2, 3, 4, 6, 8, 10, 12, 14, 18, 24, 26):
        graph, _ = branching.grown(seed)
        filled = fill(
            graph, "graph.nir", Filling("nir", dt_s=branching.DT_S, steps=8), timed=True
        ).graph
        path = tmp_path / f"{seed}.nir"
        write_graph(filled, path)
        spikes = branching.frames(graph)
        np.savez(tmp_path / f"{seed}.npz", input=spikes)
        network = read_network(path)
        plans.append(model_to_int8(network, tmp_path / f"{seed}.npz", samples=1, seed=0).plan)
        inputs.append(spikes)
    assert sum(not plan.is_chain for plan in plans) > 6
    many = Many(plans, tmp_path / "c", "gcc", "-O0")
    for number, (plan, spikes, outcome) in enumerate(
        zip(plans, inputs, many.run(inputs), strict=True)
    ):
        assert_equal(plan, spikes, outcome)
        text = (tmp_path / "c" / f"g{number:04d}" / "model.c").read_text()
        weighted = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
        assert len(re.findall(r"static const int8_t \w+_weight\[", text)) == len(weighted)
