"""A `.nir` file in, a network to be written again out: ours, or any graph that the runtime runs.

What is written is what runs: graphs inside the graph are flattened, nodes that the output does not
see are left out, and what a file left to be concluded (the input shape of a convolution, an absent
bias or terminal) stands there. The network is the same to the last bit.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsl_export.write.format import Network
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_graph, plan_of
from mpsl_runtime.model.metadata import upgraded
from mpsl_runtime.model.nested import flatten_graph
from mpsl_runtime.model.plan import Convolution, Node, Plan
from mpsl_runtime.run.state import network_hash

if TYPE_CHECKING:
    import nir

__all__ = ["read_network"]


def read_network(path: Path, *, dt_s: float | None = None) -> Network:
    """Reads a model file.

    Args:
        dt_s: seconds that one step stands for, where the model's metadata does not say it.

    Raises:
        ModelError: see `mpsl_runtime.model.graph`.
    """
    graph = load_graph(path)
    plan = plan_of(graph, source=str(path), dt_s=dt_s)
    again = _graph(graph, plan)
    written = plan_of(again, source=str(path), dt_s=dt_s)
    if network_hash(written) != network_hash(plan):
        raise ModelError("model cannot be written as it runs", where=path)
    return Network(again, replace(written, notes=plan.notes))


def _graph(graph: nir.NIRGraph, plan: Plan) -> nir.NIRGraph:
    """The graph of the nodes of a plan."""
    import nir

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
    import nir

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
