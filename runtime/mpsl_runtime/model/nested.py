"""Graphs inside a graph -> one flat graph: nodes by name, and edges.

A node `a` of the graph `block` becomes `block.a`; what enters and leaves `block` is joined to what
its Input and Output are joined to. A missing Input or Output is the one root or leaf, as the nir
package has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import nir

from mpsl_runtime.errors import ModelError

__all__ = ["FlatGraph", "flatten_graph"]

_DEEPEST = 32
_MOST_EDGES = 1 << 18


@dataclass
class FlatGraph:
    """One Input, one Output and what is between.

    Attributes:
        nodes: by name, without Input and Output.
        input, output: names of the terminals in `edges`.
        input_node, output_node: None where the graph has none.
        edges: may repeat: a graph inside that hands its input on gives its source twice.
        notes: what was not taken at its word.
        joints: Inputs and Outputs of graphs inside; they hand on what they get, and in the end are
            in no edge.
    """

    nodes: dict[str, nir.NIRNode]
    input: str
    output: str
    input_node: nir.Input | None
    output_node: nir.Output | None
    edges: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    joints: set[str] = field(default_factory=set)


def flatten_graph(graph: nir.NIRGraph, source: str) -> FlatGraph:
    """One flat graph.

    Args:
        graph: may hold graphs as nodes. source: the file, for messages.

    Raises:
        ModelError: several Inputs or Outputs, none that could be told, an edge to nowhere or twice.
    """
    flat = _flat(graph, source, 0)
    if flat.joints:
        flat.edges[:] = _without_joints(flat, source)
    return flat


def _flat(graph: nir.NIRGraph, where: str, depth: int) -> FlatGraph:
    if depth > _DEEPEST:
        raise ModelError("graphs are nested too deeply", expected=f"≤ {_DEEPEST}", where=where)
    edges = _checked_edges(graph, where)
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    outputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
    notes: list[str] = []
    tails, heads = {tail for tail, _ in edges}, {head for _, head in edges}
    first = _terminal("Input", inputs, graph.nodes, tails - heads, where)
    last = _terminal("Output", outputs, graph.nodes, heads - tails, where)
    if not inputs:
        notes.append(f"no Input: it feeds {first!r}")
        edges.append(("", first))
        first = ""
    if not outputs:
        notes.append(f"no Output: it is {last!r}")
        edges.append((last, "\0"))
        last = "\0"
    for tail, head in edges:
        if head == first or tail == last:
            raise ModelError(
                "edge into an Input or out of an Output", got=f"{tail!r} → {head!r}", where=where
            )
    flat = FlatGraph({}, first, last, graph.nodes.get(first), graph.nodes.get(last), edges, notes)
    inside = {name for name, node in graph.nodes.items() if isinstance(node, nir.NIRGraph)}
    edges[:] = [
        (f"{tail}\0out" if tail in inside else tail, f"{head}\0in" if head in inside else head)
        for tail, head in edges
    ]
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            inner = _flat(node, f"graph {name!r} of {where}", depth + 1)
            twice = [key for key in inner.nodes if f"{name}.{key}" in graph.nodes
                     or f"{name}.{key}" in flat.nodes]  # fmt: skip
            if twice:
                raise ModelError("name is there twice", got=f"{name}.{twice[0]}", where=where)
            _insert(flat, name, inner)
        elif name not in (first, last):
            flat.nodes[name] = node
    return flat


def _checked_edges(graph: nir.NIRGraph, where: str) -> list[tuple[str, str]]:
    edges: list[tuple[str, str]] = [(tail, head) for tail, head in graph.edges]
    seen: set[tuple[str, str]] = set()
    for tail, head in edges:
        if tail not in graph.nodes or head not in graph.nodes:
            raise ModelError(
                "edge to a node that is not there", got=f"{tail!r} → {head!r}", where=where
            )
        if (tail, head) in seen:
            raise ModelError(
                "edge is there twice", got=f"{tail!r} → {head!r}", expected="each once", where=where
            )
        seen.add((tail, head))
    return edges


def _terminal(
    kind: str, named: list[str], nodes: dict[str, Any], ends: Iterable[str], where: str
) -> str:
    """The Input or Output; where there is none, the one node that nothing enters, or leaves."""
    found = named or sorted(name for name in ends if name in nodes)
    if len(found) == 1:
        return found[0]
    got = f"{len(found)} ({', '.join(found)})" if named else "none"
    raise ModelError(f"number of {kind} nodes", got=got, expected=f"one {kind}", where=where)


def _insert(flat: FlatGraph, name: str, inner: FlatGraph) -> None:
    """Puts a flat graph in the place of the node `name`."""
    ends = {inner.input: f"{name}\0in", inner.output: f"{name}\0out"}
    for key, node in inner.nodes.items():
        flat.nodes[f"{name}.{key}"] = node
    flat.notes += [f"in {name!r}: {note}" for note in inner.notes]
    flat.joints |= {*ends.values(), *(f"{name}.{joint}" for joint in inner.joints)}
    flat.edges += [
        (ends.get(tail, f"{name}.{tail}"), ends.get(head, f"{name}.{head}"))
        for tail, head in inner.edges
    ]


def _without_joints(flat: FlatGraph, source: str) -> list[tuple[str, str]]:
    """The edges, with every joint replaced by what it gets."""
    missing = dict.fromkeys(flat.joints, 0)
    behind: dict[str, list[str]] = {joint: [] for joint in flat.joints}
    before: dict[str, list[str]] = {joint: [] for joint in flat.joints}
    for tail, head in flat.edges:
        if head in flat.joints:
            before[head].append(tail)
            if tail in flat.joints:
                missing[head] += 1
                behind[tail].append(head)
    gets: dict[str, list[str]] = {}
    ready = [joint for joint, count in missing.items() if not count]
    total = 0
    while ready:
        joint = ready.pop()
        gets[joint] = [name for tail in before[joint] for name in gets.get(tail, [tail])]
        total = _counted(total + len(gets[joint]), source)
        for head in behind[joint]:
            missing[head] -= 1
            if not missing[head]:
                ready.append(head)
    if len(gets) < len(flat.joints):
        raise ModelError("graphs hand their input on to themselves", where=source)
    edges: list[tuple[str, str]] = []
    for tail, head in flat.edges:
        if head not in flat.joints:
            edges += [(name, head) for name in gets.get(tail, [tail])]
            _counted(len(edges), source)
    return edges


def _counted(edges: int, source: str) -> int:
    if edges > _MOST_EDGES:
        raise ModelError("too many edges", got=edges, expected=f"≤ {_MOST_EDGES}", where=source)
    return edges
