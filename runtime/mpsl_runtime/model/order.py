"""Nodes and edges -> an order of execution, and what each node sees.

A cycle needs an edge that brings the value of the step before. Late are the outputs of the neurons
on the cycle: behind LIF → Linear → LIF the Linear sees the spikes of the step before, and its bias
acts from the first step on, as in snntorch, norse and the NIR paper. A cycle without neurons is
late where it closes.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Source

__all__ = ["Order", "order_of"]

Edge = tuple[str, str]


@dataclass(frozen=True)
class Order:
    """How a graph runs.

    Attributes:
        names: in order of execution, without the terminals.
        sources: of each name, and of the output; empty where that is the name before.
        unused: nodes that the output does not see.
    """

    names: tuple[str, ...]
    sources: Mapping[str, tuple[Source, ...]]
    unused: tuple[str, ...]


def order_of(
    names: Iterable[str],
    edges: Iterable[Edge],
    first: str,
    last: str,
    neurons: Collection[str],
    source: str,
) -> Order:
    """An order of execution.

    Args:
        names: of all nodes. edges: may repeat. first, last: the Input and the Output.
        neurons: names of the populations. source: the file, for messages.

    Raises:
        ModelError: the Input does not reach the Output, or not all that the Output sees.
    """
    edges = list(edges)
    following, before = _neighbours(edges)
    reached, seen = _reached(first, following), _reached(last, before)
    kept = [name for name in sorted(names) if name in reached and name in seen]
    apart = sorted(seen - reached)
    if last not in reached or apart:
        raise ModelError(
            "graph is not connected",
            got=f"node {(apart or [last])[0]!r} that the Input does not reach",
            expected="everything that the Output sees behind the Input",
            where=source,
        )
    inside = {*kept, first, last}
    used = [edge for edge in edges if edge[0] in inside and edge[1] in inside]
    late = _late_edges(used, first, set(neurons))
    ordered = _sorted(kept, [edge for edge in used if edge not in late], first, last)
    return Order(
        tuple(ordered),
        _sources(ordered, used, late, first, last),
        tuple(name for name in sorted(names) if name not in inside),
    )


def _neighbours(edges: Iterable[Edge]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What follows each node, and what is before it, by name."""
    following: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for tail, head in sorted(edges):
        following.setdefault(tail, []).append(head)
        before.setdefault(head, []).append(tail)
    return following, before


def _reached(start: str, following: Mapping[str, list[str]]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        for name in following.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _late_edges(edges: list[Edge], first: str, neurons: set[str]) -> set[Edge]:
    """The edges that bring the value of the step before: without them there is no cycle."""
    closing, finished = _closing_edges(edges, first)
    if not closing:
        return set()
    cycle_of = _cycles(edges, finished)
    _, before = _neighbours(edges)
    late: set[Edge] = set()
    passed: set[str] = set()
    # Back from each closing edge to the neurons from which its value comes, around the cycle.
    waiting = closing
    while waiting:
        tail, head = waiting.pop()
        if tail in neurons:
            late.add((tail, head))
        elif tail not in passed:
            passed.add(tail)
            waiting += [
                (name, tail) for name in before.get(tail, ()) if cycle_of[name] == cycle_of[tail]
            ]
    left = [edge for edge in edges if edge not in late]
    return late | set(_closing_edges(left, first)[0])


def _closing_edges(edges: list[Edge], first: str) -> tuple[list[Edge], list[str]]:
    """Depth first, without recursion, from the Input: edges back to a node that is still open;
    and the nodes in the order in which they were finished."""
    following, _ = _neighbours(edges)
    closing: list[Edge] = []
    finished: list[str] = []
    known: set[str] = set()
    is_open: set[str] = set()
    for root in (first, *sorted(following)):
        stack = [] if root in known else [(root, iter(following.get(root, ())))]
        known.add(root)
        is_open.update(name for name, _ in stack)
        while stack:
            name, heads = stack[-1]
            head = next(heads, None)
            if head is None:
                stack.pop()
                is_open.discard(name)
                finished.append(name)
            elif head in is_open:
                closing.append((name, head))
            elif head not in known:
                known.add(head)
                is_open.add(head)
                stack.append((head, iter(following.get(head, ()))))
    return closing, finished


def _cycles(edges: list[Edge], finished: list[str]) -> dict[str, int]:
    """A number for each node; nodes on one cycle, and only they, share it (Kosaraju)."""
    _, before = _neighbours(edges)
    number: dict[str, int] = {}
    for count, root in enumerate(reversed(finished)):
        waiting = [] if root in number else [root]
        while waiting:
            name = waiting.pop()
            if name not in number:
                number[name] = count
                waiting += [other for other in before.get(name, ()) if other not in number]
    return number


def _sorted(names: list[str], edges: list[Edge], first: str, last: str) -> list[str]:
    """Every node behind its sources; what the Output sees comes as late as it can."""
    following, before = _neighbours(edges)
    ends = set(before.get(last, ()))
    missing = {name: len(before.get(name, ())) for name in names}
    ready = [(name in ends, name) for name in names if not missing[name]]
    heapq.heapify(ready)
    ordered: list[str] = []

    def done(name: str) -> None:
        for head in following.get(name, ()):
            if head in missing:
                missing[head] -= 1
                if not missing[head]:
                    heapq.heappush(ready, (head in ends, head))

    done(first)
    while ready:
        _, name = heapq.heappop(ready)
        ordered.append(name)
        done(name)
    return ordered


def _sources(
    ordered: list[str], edges: list[Edge], late: set[Edge], first: str, last: str
) -> dict[str, tuple[Source, ...]]:
    """Those of this step first, in order of execution, then those of the step before."""
    place = {first: -1, **{name: i for i, name in enumerate(ordered)}}
    rows: dict[str, list[tuple[bool, int, Source]]] = {name: [] for name in (*ordered, last)}
    for tail, head in edges:
        delayed = (tail, head) in late
        source = Source(None if tail == first else tail, delayed)
        rows[head].append((delayed, place[tail], source))
    result: dict[str, tuple[Source, ...]] = {}
    previous: str | None = None
    for name in (*ordered, last):
        found = tuple(source for _, _, source in sorted(rows[name], key=lambda row: row[:2]))
        result[name] = () if found == (Source(previous),) else found
        previous = name
    return result
