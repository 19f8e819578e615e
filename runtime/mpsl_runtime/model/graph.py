"""A NIR graph, checked and laid out as a `Plan`.

Everything is checked before anything runs: a model that loads, runs. Shapes follow from the Input
node and the weights alone; what a node says of its own input must agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nir

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.layers import NodeBuilder
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.nested import FlatGraph, flatten_graph
from mpsl_runtime.model.neurons import NEURON_TYPES, encode_neuron
from mpsl_runtime.model.nir_file import read_graph
from mpsl_runtime.model.order import Order, order_of
from mpsl_runtime.model.plan import Dense, Flatten, Neuron, Node, Plan, Shape, Source, Sum
from mpsl_runtime.model.plastic import plastic_layers
from mpsl_runtime.model.shapes import check_output, check_size, input_shape

__all__ = ["encode_neuron", "input_shape_of", "load_graph", "load_plan", "plan_of"]

_SCORES = "LIF, IF, LI, I, CubaLIF, CubaLI, Threshold, Linear or Affine before the Output"


def load_graph(path: str | Path) -> nir.NIRGraph:
    """Reads and checks a `.nir` file.

    Raises:
        ModelError: the file is damaged, hostile or not NIR, or its nodes make no network.
    """
    graph = read_graph(path)
    _wired(graph, str(path))
    return graph


def load_plan(path: str | Path, *, dt_s: float | None = None) -> Plan:
    """Reads a `.nir` file and lays it out; see `plan_of`."""
    return plan_of(load_graph(path), source=str(path), dt_s=dt_s)


def plan_of(graph: nir.NIRGraph, *, source: str, dt_s: float | None = None) -> Plan:
    """Lays out a graph in order of execution.

    Args:
        graph: with one Input and one Output, or one node that takes its place; branches, loops and
            graphs inside it as they come.
        source: the file, for messages.
        dt_s: seconds that one step stands for; needed, and used, only where the model's metadata
            does not say it.

    Raises:
        ModelError: a node of another type, several Inputs, shapes that do not fit, numbers that
            are not finite or out of range, a missing `dt_s`; the node is named.
    """
    if dt_s is not None and not 0 < dt_s < math.inf:
        raise ModelError("a step must last longer than nothing", got=f"dt_s = {dt_s}", where=source)
    metadata = _metadata(graph, source)
    if metadata is not None:
        dt_s = metadata.dt_s
    flat, order = _wired(graph, source)
    notes = [*graph.__dict__.get("notes", ()), *flat.notes]
    if order.unused:
        notes.append(f"the output does not see {', '.join(map(repr, order.unused))}")
    shape = input_shape(flat, order, source, notes)
    nodes = _nodes(flat, order, shape, source, dt_s, notes)
    if not any(isinstance(node, Neuron) for node in nodes):
        raise ModelError("model has no neurons", where=source)
    if not isinstance(nodes[-1], Neuron | Flatten | Dense | Sum):
        raise ModelError(
            "model does not end in neurons",
            got=type(flat.nodes[order.names[-1]]).__name__,
            expected=_SCORES,
            where=source,
        )
    if flat.output_node is not None:
        check_output(
            flat.output_node, nodes[-1].output_shape, f"node {flat.output!r} of {source}", notes
        )
    plan = Plan(tuple(nodes), shape, nodes[-1].output_shape, metadata, source, tuple(notes))
    _check_metadata(plan)
    return replace(plan, plastic=plastic_layers(graph.metadata, plan)) if metadata else plan


def input_shape_of(graph: nir.NIRGraph, source: str) -> Shape:
    """The shape of one sample and step of a graph.

    Raises:
        ModelError: as `plan_of`.
    """
    flat, order = _wired(graph, source)
    return input_shape(flat, order, source, [])


def _wired(graph: nir.NIRGraph, source: str) -> tuple[FlatGraph, Order]:
    flat = flatten_graph(graph, source)
    neurons = {name for name, node in flat.nodes.items() if isinstance(node, NEURON_TYPES)}
    return flat, order_of(flat.nodes, flat.edges, flat.input, flat.output, neurons, source)


def _nodes(
    flat: FlatGraph,
    order: Order,
    shape: Shape,
    source: str,
    dt_s: float | None,
    notes: list[str],
) -> list[Node]:
    """The nodes in order, each with its sources.

    A node is built once the shape of one of its sources is known: around a loop that is not the
    order in which they run. Then all sources must agree.
    """
    shapes: dict[str | None, Shape] = {None: shape}
    sources = _all_sources(order)
    heads: dict[str | None, list[str]] = {}
    for name in order.names:
        for feed in sources[name]:
            heads.setdefault(feed.node, []).append(name)
    built: dict[str, Node] = {}
    waiting: list[tuple[str | None, list[str]]] = [(None, heads.get(None, []))]
    while waiting:
        feeder, names = waiting.pop()
        for name in names:
            if name in built:
                continue
            where = f"node {name!r} of {source}"
            following = tuple(flat.nodes[head] for head in heads.get(name, ()))
            builder = NodeBuilder(
                name, flat.nodes[name], shapes[feeder], where, dt_s, following, notes
            )
            node = builder.build()
            check_size(node.output_shape, where)
            built[name] = node
            shapes[name] = node.output_shape
            waiting.append((name, heads.get(name, [])))
    nodes = [replace(built[name], sources=order.sources[name]) for name in order.names]
    if order.sources[flat.output]:
        first = shapes[order.sources[flat.output][0].node]
        nodes.append(Sum(flat.output or "output", first, first, order.sources[flat.output]))
    for node in nodes:
        _check_sources(node, sources.get(node.name, node.sources), shapes, source)
    return nodes


def _all_sources(order: Order) -> dict[str, tuple[Source, ...]]:
    """With the node before written out."""
    before = (None, *order.names)
    return {name: order.sources[name] or (Source(before[i]),) for i, name in enumerate(order.names)}


def _check_sources(
    node: Node, sources: tuple[Source, ...], shapes: Mapping[str | None, Shape], source: str
) -> None:
    for feed in sources:
        if math.prod(shapes[feed.node]) != math.prod(node.input_shape):
            raise ModelError(
                "what a node sees differs in shape",
                got=f"{shapes[feed.node]} from {feed.node!r}",
                expected=f"{node.input_shape}",
                where=f"node {node.name!r} of {source}",
            )


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
    if metadata.classes and len(metadata.class_names) != classes:
        raise ModelError(
            "metadata does not fit the graph",
            got=f"{len(metadata.class_names)} class names",
            expected=f"{classes}, one for each output",
            where=plan.source,
        )
    plan.binning()
