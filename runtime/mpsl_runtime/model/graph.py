"""A NIR graph, checked and laid out as a `Plan`.

Everything is checked before anything runs: a model that loads, runs. Shapes follow from the Input
node and the weights alone; what a node says of its own input must agree.
"""

from __future__ import annotations

import math
from pathlib import Path

import nir

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.layers import LARGEST_SIGNAL, NodeBuilder, sizes_of
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.neurons import encode_neuron
from mpsl_runtime.model.nir_file import read_graph
from mpsl_runtime.model.plan import Flatten, Neuron, Node, Plan, Shape

__all__ = ["encode_neuron", "load_graph", "load_plan", "plan_of"]


def load_graph(path: str | Path) -> nir.NIRGraph:
    """Reads and checks a `.nir` file.

    Raises:
        ModelError: the file is damaged, hostile or not NIR, or its nodes are not one chain.
    """
    graph = read_graph(path)
    _order(graph, str(path))
    return graph


def load_plan(path: str | Path, *, dt_s: float | None = None) -> Plan:
    """Reads a `.nir` file and lays it out; see `plan_of`."""
    return plan_of(load_graph(path), source=str(path), dt_s=dt_s)


def plan_of(graph: nir.NIRGraph, *, source: str, dt_s: float | None = None) -> Plan:
    """Lays out a graph in order of execution.

    Args:
        graph: feed-forward, with one Input and one Output.
        source: the file, for messages.
        dt_s: seconds that one step stands for; needed, and used, only where the model's metadata
            does not say it.

    Raises:
        ModelError: a node of another type, a recurrent edge, several inputs or branches, shapes
            that do not fit, numbers that are not finite or out of range, a missing `dt_s`; the
            node is named.
    """
    if dt_s is not None and not 0 < dt_s < math.inf:
        raise ModelError("a step must last longer than nothing", got=f"dt_s = {dt_s}", where=source)
    metadata = _metadata(graph, source)
    if metadata is not None:
        dt_s = metadata.dt_s
    order = _order(graph, source)
    input_shape = _input_shape(graph.nodes[order[0]], f"node {order[0]!r} of {source}")
    nodes: list[Node] = []
    shape = input_shape
    for name in order[1:-1]:
        builder = NodeBuilder(name, graph.nodes[name], shape, f"node {name!r} of {source}", dt_s)
        nodes.append(builder.build())
        shape = nodes[-1].output_shape
        if math.prod(shape) > LARGEST_SIGNAL:
            raise ModelError(
                "signal is too large",
                got=f"shape {shape}",
                expected=f"≤ {LARGEST_SIGNAL} values",
                where=builder.where,
            )
    if not any(isinstance(node, Neuron) for node in nodes):
        raise ModelError("model has no neurons", where=source)
    if not isinstance(nodes[-1], Neuron | Flatten):
        raise ModelError(
            "model does not end in neurons",
            got=type(graph.nodes[order[-2]]).__name__,
            expected="LIF, IF, LI, I, CubaLIF or Threshold before the Output",
            where=source,
        )
    _check_output(graph.nodes[order[-1]], shape, f"node {order[-1]!r} of {source}")
    plan = Plan(tuple(nodes), input_shape, shape, metadata, source)
    _check_metadata(plan)
    return plan


def _metadata(graph: nir.NIRGraph, source: str) -> ModelMetadata | None:
    if not isinstance(graph.metadata, dict) or "mpsl" not in graph.metadata:
        return None
    metadata = ModelMetadata.from_mapping(graph.metadata, source)
    if not 0 < metadata.dt_s < math.inf:
        raise ModelError("metadata 'dt_s' is out of range", got=metadata.dt_s, where=source)
    return metadata


def _check_metadata(plan: Plan) -> None:
    """Metadata that contradicts the graph would mislead everything after."""
    metadata = plan.metadata
    if metadata is None:
        return
    classes = math.prod(plan.output_shape)
    if len(metadata.class_names) != classes:
        raise ModelError(
            "metadata does not fit the graph",
            got=f"{len(metadata.class_names)} class names",
            expected=f"{classes}, one for each output",
            where=plan.source,
        )
    plan.binning()


def _order(graph: nir.NIRGraph, source: str) -> list[str]:
    """The names from Input to Output; refuses everything that is not one chain."""
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    outputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
    for kind, names in (("Input", inputs), ("Output", outputs)):
        if len(names) != 1:
            got = f"{len(names)} ({', '.join(names)})" if names else "none"
            raise ModelError(
                f"number of {kind} nodes", got=got, expected=f"one {kind}", where=source
            )
    following: dict[str, list[str]] = {name: [] for name in graph.nodes}
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for tail, head in graph.edges:
        for name in (tail, head):
            if name not in graph.nodes:
                raise ModelError(
                    "edge to a node that is not there", got=f"{tail!r} → {head!r}", where=source
                )
        following[tail].append(head)
        before[head].append(tail)
    _refuse_cycles(following, source)
    for name in graph.nodes:
        for count, fault in ((len(following[name]), "outgoing"), (len(before[name]), "incoming")):
            if count > 1:
                raise ModelError(
                    "branching graph is not supported",
                    got=f"{count} {fault} edges",
                    expected="a chain from Input to Output",
                    where=f"node {name!r} of {source}",
                )
    order = [inputs[0]]
    while following[order[-1]]:
        order.append(following[order[-1]][0])
    if order[-1] != outputs[0] or len(order) != len(graph.nodes):
        apart = sorted(set(graph.nodes) - set(order)) or [outputs[0]]
        raise ModelError(
            "graph is not connected",
            got=f"node {apart[0]!r} that the Input does not reach",
            expected="a chain from Input to Output",
            where=source,
        )
    return order


def _refuse_cycles(following: dict[str, list[str]], source: str) -> None:
    """Depth first without recursion; names the edge that closes a cycle."""
    done: set[str] = set()
    for root in following:
        path: list[str] = []
        stack = [(root, iter(following[root]))] if root not in done else []
        path.extend(name for name, _ in stack)
        while stack:
            name, heads = stack[-1]
            head = next(heads, None)
            if head is None:
                done.add(name)
                stack.pop()
                path.pop()
            elif head in path:
                raise ModelError(
                    "recurrent edge is not supported",
                    got=f"{name!r} → {head!r}",
                    expected="a feed-forward graph",
                    where=source,
                )
            elif head not in done:
                stack.append((head, iter(following[head])))
                path.append(head)


def _input_shape(node: nir.Input, where: str) -> Shape:
    shape = sizes_of(node.input_type["input"], "input shape", where)
    if len(shape) not in (1, 3):
        raise ModelError(
            "input shape is not supported",
            got=shape,
            expected="[channels, rows, columns] or [features], without a batch",
            where=where,
        )
    if math.prod(shape) > LARGEST_SIGNAL:
        raise ModelError(
            "signal is too large",
            got=f"shape {shape}",
            expected=f"≤ {LARGEST_SIGNAL} values",
            where=where,
        )
    return shape


def _check_output(node: nir.Output, shape: Shape, where: str) -> None:
    stated = sizes_of(node.output_type["output"], "output shape", where)
    if stated != shape:
        raise ModelError("output shape does not fit", got=stated, expected=shape, where=where)
