"""NeuroBench's figures against loops over every weight of every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.deploy.energy import energy_estimate
from mpsl_runtime.deploy.workload import footprint, measure, nonzero_fanout
from mpsl_runtime.errors import DataError
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan, Pooling

from .networks import network


def _weighted(node: Any, x: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Output, products of two numbers that are not 0, and products in all, one after another."""
    out, effective, dense = np.zeros(node.output_shape), 0, 0
    if isinstance(node, Dense):
        for o, i in np.ndindex(node.weight.shape):
            out[o] += float(node.weight[o, i]) * x[i]
            effective += node.weight[o, i] != 0 and x[i] != 0
            dense += 1
        return out + node.bias, effective, dense
    _, high, wide = node.input_shape
    for o, r, c in np.ndindex(node.output_shape):
        for k, i, j in np.ndindex(node.weight.shape[1:]):
            row = r * node.stride[0] + i - node.padding[0][0]
            column = c * node.stride[1] + j - node.padding[1][0]
            if 0 <= row < high and 0 <= column < wide:
                weight = float(node.weight[o, k, i, j])
                out[o, r, c] += weight * x[k, row, column]
                effective += weight != 0 and x[k, row, column] != 0
                dense += 1
    return out + node.bias[:, None, None], effective, dense


def _pooled(node: Pooling, x: np.ndarray) -> np.ndarray:
    out = np.zeros(node.output_shape)
    for c, r, k in np.ndindex(node.output_shape):
        top, left = r * node.stride[0], k * node.stride[1]
        out[c, r, k] = x[c, top : top + node.kernel[0], left : left + node.kernel[1]].sum()
    return out


def by_loops(plan: Plan, samples: list[np.ndarray]) -> dict[str, float]:
    """The figures of `measure`, the slow way and in float64."""
    total = dict.fromkeys(("macs", "acs", "dense", "updates", "spikes", "neurons"), 0)
    for frames in samples:
        V: dict[str, np.ndarray] = {}
        U: dict[str, np.ndarray] = {}
        for x in frames.astype(np.float64):
            for node in plan.nodes:
                if isinstance(node, Convolution | Dense):
                    kind = "acs" if set(np.unique(x)) <= {-1.0, 0.0, 1.0} else "macs"
                    x, effective, dense = _weighted(node, x)
                    total[kind] += effective
                    total["dense"] += dense
                elif isinstance(node, Pooling):
                    x = _pooled(node, x)
                elif isinstance(node, Neuron):
                    now = node.decay * V.get(node.name, 0.0) + x
                    changed = now != U[node.name] if node.name in U else np.ones_like(now)
                    total["updates"] += int(changed.sum())
                    U[node.name], x = now, (now >= node.threshold).astype(np.float64)
                    V[node.name] = now - x * node.threshold
                    total["spikes"] += int(x.sum())
                    total["neurons"] += x.size
                else:
                    x = x.reshape(node.output_shape)
    return {key: value / len(samples) for key, value in total.items()}


@pytest.mark.parametrize("decay", [1.0, 0.75])
def test_the_figures_are_those_of_loops_over_every_weight(decay: float) -> None:
    plan = network((2, 9, 8), "4C3S2", "P2", "5C3", "6FC", decay=decay)
    random = np.random.default_rng(4)
    events = [random.poisson(0.3, (4, 2, 9, 8)).astype(np.float32) for _ in range(2)]
    events[1][2:] = 0  # silence: potentials without a leak and without a bias stay
    found, expected = measure(plan, events), by_loops(plan, events)
    operations = found["SynapticOperations"]
    assert operations["Effective_MACs"] == expected["macs"] > 0
    assert operations["Effective_ACs"] == expected["acs"] > 0
    assert operations["Dense"] == expected["dense"]
    assert found["MembraneUpdates"] == expected["updates"]
    assert found["ActivationSparsity"] == pytest.approx(
        1 - expected["spikes"] / expected["neurons"]
    )
    assert 0.02 < found["ActivationSparsity"] < 0.98
    assert found["samples"] == 2


def test_zero_weights_are_found_and_neither_taps_outside_an_image_nor_they_are_work() -> None:
    plan = network((2, 7, 7), "3C5S2", "4FC")
    nodes = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
    zeros = sum(int((node.weight == 0).sum()) for node in nodes)
    total = sum(node.weight.size for node in nodes)
    one = np.zeros((1, 2, 7, 7), np.float32)
    one[0, 1, 0, 6] = 1
    found = measure(plan, [one])
    assert found["ConnectionSparsity"] == round(zeros / total, 4) > 0.2
    corner = int(nonzero_fanout(nodes[0])[1, 0, 6])  # type: ignore[arg-type]
    _, effective, _ = _weighted(nodes[0], one[0])
    assert corner == effective < 3 * 25


def test_a_footprint_counts_parameters_and_what_the_neurons_keep() -> None:
    plan = network((2, 9, 8), "4C3S2", "6FC")
    weights = 4 * 2 * 9 + 6 * 4 * 5 * 4
    assert footprint(plan) == 4 * (weights + 4 + 6) + 2 * 8  # and ρ and V_th of two populations


def test_energy_is_the_constants_times_the_operations() -> None:
    energy = energy_estimate({"Effective_MACs": 1000.0, "Effective_ACs": 2000.0, "Dense": 1e4})
    assert math.isclose(energy["sample_nj"], 4.6 + 1.8)
    assert math.isclose(energy["dense_sample_nj"], 46)
    assert "estimate" in energy["source"]
    assert "Horowitz 2014" in energy["source"]


def test_no_sample_is_no_measurement() -> None:
    with pytest.raises(DataError, match="no sample"):
        measure(network((2, 9, 8), "6FC"), [])
