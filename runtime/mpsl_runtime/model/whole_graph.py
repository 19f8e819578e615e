"""A graph and its plan -> the graph that is written: one that says all that runs, and no more.

Graphs inside the graph are joined, nodes that the output does not see are left out, and what a file
left to be concluded (the input shape of a convolution, an absent bias or terminal) stands there.
The network is the same to the last bit.
"""

from __future__ import annotations

import copy
from typing import Any

import nir
import numpy as np

from mpsl_runtime.model.metadata import upgraded
from mpsl_runtime.model.nested import flatten_graph
from mpsl_runtime.model.plan import Convolution, Node, Plan

__all__ = ["whole_graph"]


def whole_graph(graph: nir.NIRGraph, plan: Plan) -> nir.NIRGraph:
    """The graph of the nodes of a plan; `graph` stays as it is."""
    flat = flatten_graph(graph, plan.source)
    kept = {node.name: _filled(flat.nodes[node.name], node) for node in plan.nodes
            if node.name in flat.nodes}  # fmt: skip
    names = {flat.input: _free("input", kept), flat.output: _free("output", kept)}
    terminals = {
        names[flat.input]: nir.Input({"input": np.array(plan.input_shape)}),
        names[flat.output]: nir.Output({"output": np.array(plan.output_shape)}),
    }
    inside = {*kept, flat.input, flat.output}
    edges = [
        (names.get(tail, tail), names.get(head, head))
        for tail, head in flat.edges
        if tail in inside and head in inside
    ]
    return nir.NIRGraph(
        nodes={**terminals, **kept},
        edges=edges,
        metadata=upgraded(graph.metadata),
        type_check=False,
    )


def _filled(node: nir.NIRNode, planned: Node) -> nir.NIRNode:
    """A copy of a node in which nothing is absent, which HDF5 could not hold."""
    filled: Any = copy.copy(node)
    for key, value in vars(node).items():
        if isinstance(value, np.ndarray) and not value.ndim:
            setattr(filled, key, value[()])  # nir writes no arrays without dimensions
    if isinstance(node.metadata, dict):
        filled.metadata = upgraded(node.metadata)
    if isinstance(planned, Convolution):
        sizes = planned.input_shape[1:]
        filled.input_shape = sizes[1] if isinstance(node, nir.Conv1d) else np.array(sizes)
        filled.bias = planned.bias if filled.bias is None else filled.bias
    elif isinstance(node, nir.Flatten):
        filled.input_type = {"input": np.array(planned.input_shape)}
        filled.start_dim, filled.end_dim = 0, 0 if len(planned.output_shape) > 1 else -1
    return filled


def _free(name: str, taken: Any) -> str:
    """`name`, or with underscores behind it until no node has it."""
    while name in taken:
        name += "_"
    return name
