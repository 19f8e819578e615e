"""Small networks, written layer by layer, as plans that have been through a NIR graph."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import nir
import numpy as np

from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.neurons import neuron_node
from mpsl_runtime.model.plan import Plan

Shape = tuple[int, ...]
DT_S = 1e-4


def weights(random: np.random.Generator, *shape: int) -> Any:
    """A third of them exactly 0."""
    values = random.normal(0.1, 0.5, shape).astype(np.float32)
    return np.where(random.random(shape) < 1 / 3, np.float32(0), values)


def network(shape: Shape, *words: str, decay: float = 1.0, reset: str = "subtract") -> Plan:
    """A plan.

    Args:
        shape: of the input. words: `16C5S2` (padded by half the kernel), `P2` a sum pool, `256FC`;
            neurons with threshold 0.7 follow each that has weights.
    """
    random = np.random.default_rng(8)
    nodes: list[Any] = [nir.Input({"input": np.array(shape)})]
    about = NeuronMetadata(reset, "reset-decay-add-fire", decay, 0.7, DT_S)  # type: ignore[arg-type]
    for word in words:
        if word.startswith("P"):
            size = int(word[1:])
            nodes.append(nir.SumPool2d(*(np.array([size] * 2) for _ in range(2)), np.array([0, 0])))
            shape = (shape[0], shape[1] // size, shape[2] // size)
            continue
        if word.endswith("FC"):
            if len(shape) == 3:
                nodes.append(nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1))
                shape = (int(np.prod(shape)),)
            out = int(word[:-2])
            nodes.append(nir.Affine(weights(random, out, *shape), weights(random, out)))
            shape = (out,)
        else:
            filters, _, rest = word.partition("C")
            kernel, _, stride = rest.partition("S")
            node = nir.Conv2d(
                shape[1:], weights(random, int(filters), shape[0], int(kernel), int(kernel)),
                int(stride or 1), int(kernel) // 2, 1, 1, weights(random, int(filters)),
            )  # fmt: skip
            nodes.append(node)
            shape = tuple(int(size) for size in node.output_type["output"])
        nodes.append(neuron_node(about, shape))
    nodes.append(nir.Output({"output": np.array(shape)}))
    named = {f"n{i:02d}": node for i, node in enumerate(nodes)}
    named = dict(zip(["input", *list(named)[1:-1], "output"], named.values(), strict=True))
    graph = nir.NIRGraph(nodes=named, edges=list(pairwise(named)))
    return plan_of(graph, source="made.nir", dt_s=DT_S)
