"""A plan → blocks of nodes with places on a page, and the edges between them.

Weights and the neurons behind them are one block; so are nodes that only change a shape and what
sees them. A block stands to the right of all that it sees in the same step; what it sees of the
step before is an edge that leads back. What sees the step before alone stands below all others, one
row for each loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Shape,
    Sum,
)

__all__ = ["MOST_BLOCKS", "Block", "Diagram", "Edge", "diagram_of"]

MOST_BLOCKS = 200
_KINDS = {"spiking": "neurons", "integrating": "integrators", "threshold": "thresholds"}


@dataclass(frozen=True)
class Block:
    """One box.

    Attributes:
        title, lines: its text. neuron: index in `Plan.spiking` of its population, if it fires.
        column, row: its place; rows are 0 in the middle, and may be halves.
        has_neurons: a population is in it. is_late: it sees the step before alone.
    """

    title: str
    lines: tuple[str, ...]
    column: int
    row: float
    neuron: int | None = None
    has_neurons: bool = False
    is_late: bool = False


@dataclass(frozen=True)
class Edge:
    """From one block to another, by their numbers; `delayed`: a step later."""

    tail: int
    head: int
    delayed: bool


@dataclass(frozen=True)
class Diagram:
    """Block 0 is the input, the last one the output."""

    blocks: tuple[Block, ...]
    edges: tuple[Edge, ...]


def diagram_of(plan: Plan) -> Diagram:
    """The diagram of a plan.

    Raises:
        UsageError: it has more blocks than a page shows.
    """
    groups = _groups(plan)
    if len(groups) + 2 > MOST_BLOCKS:
        raise UsageError(
            "network is too large for a picture",
            got=f"{len(groups)} blocks",
            expected=f"≤ {MOST_BLOCKS - 2}",
            where=plan.source,
        )
    block_of = {node: k + 1 for k, group in enumerate(groups) for node in group}
    block_of[-1] = 0
    last = len(groups) + 1
    edges = [
        Edge(block_of[i], block_of[node], delayed)
        for group in groups
        for node in group
        for i, delayed in plan.wiring[node]
        if delayed or block_of[i] != block_of[node]
    ]
    edges.append(Edge(block_of[len(plan.nodes) - 1], last, False))
    edges = list(dict.fromkeys(edges))
    seen = {edge.head for edge in edges if not edge.delayed}
    late = [block for block in range(1, last) if block not in seen]
    columns = _columns(last + 1, edges, late)
    rows = _rows(columns, edges, late)
    spiking = {node.name: k for k, node in enumerate(plan.spiking)}
    blocks = [Block("input", (_shape(plan.input_shape),), 0, rows[0])]
    for k, group in enumerate(groups, 1):
        nodes = [plan.nodes[index] for index in group]
        title, lines = _text(nodes)
        neuron = next((spiking[node.name] for node in nodes if node.name in spiking), None)
        has_neurons = any(isinstance(node, Neuron) for node in nodes)
        blocks.append(
            Block(title, lines, columns[k], rows[k], neuron, has_neurons, is_late=k in late)
        )
    classes = math.prod(plan.output_shape)
    blocks.append(Block("output", (f"{classes:,}",), columns[last], rows[last]))
    return Diagram(tuple(blocks), tuple(edges))


def _groups(plan: Plan) -> list[list[int]]:
    """Indices of the nodes of each block, in their order."""
    seen_by: list[list[int]] = [[] for _ in plan.nodes]
    for index, row in enumerate(plan.wiring):
        for i, _ in row:
            if i >= 0:
                seen_by[i].append(index)
    groups: list[list[int]] = []
    for index, node in enumerate(plan.nodes):
        before = plan.nodes[index - 1] if index else None
        goes_on = (
            before is not None
            and plan.wiring[index] == ((index - 1, False),)
            and seen_by[index - 1] == [index]
        )
        joins = isinstance(node, Neuron) and isinstance(before, Convolution | Dense)
        reshapes = isinstance(before, Flatten)
        if goes_on and (joins or reshapes):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _columns(number: int, edges: list[Edge], late: list[int]) -> list[int]:
    """The length of the longest way from the input, along edges of the same step; what is late
    stands just before what sees it."""
    columns = [0] * number
    ahead = sorted((e for e in edges if not e.delayed), key=lambda edge: edge.head)
    for edge in ahead:  # blocks are in order of execution
        columns[edge.head] = max(columns[edge.head], columns[edge.tail] + 1)
    for block in late:
        heads = [columns[edge.head] for edge in ahead if edge.tail == block]
        columns[block] = max(1, min(heads, default=2) - 1)
    columns[-1] = max(columns)
    if columns.count(columns[-1]) > 1:
        columns[-1] += 1
    return columns


def _rows(columns: list[int], edges: list[Edge], late: list[int]) -> list[float]:
    """Blocks of one column stand below each other, near those that they see; below them the late
    ones, those of short loops first."""
    rows = [0.0] * len(columns)

    def middle(block: int) -> float:
        before = [e.tail for e in edges if e.head == block and columns[e.tail] < columns[block]]
        return sum(rows[tail] for tail in before) / len(before) if before else 0.0

    for column in range(1, max(columns) + 1):
        here = [k for k, at in enumerate(columns) if at == column and k not in late]
        for place, block in enumerate(sorted(here, key=lambda block: (middle(block), block))):
            rows[block] = place - (len(here) - 1) / 2
    bottom = max(rows)
    taken: list[list[tuple[int, int]]] = []  # of each row below, from which column to which
    spans = []
    for block in late:
        tails = [columns[edge.tail] for edge in edges if edge.head == block]
        spans.append((block, columns[block], max([columns[block], *tails])))
    for block, low, high in sorted(spans, key=lambda span: (span[2] - span[1], span[0])):
        free = (k for k, row in enumerate(taken) if all(b < low or high < a for a, b in row))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        rows[block] = bottom + 1 + lane
    return rows


def _text(nodes: list[Node]) -> tuple[str, tuple[str, ...]]:
    """Title and lines of a block."""
    titles: list[str] = []
    lines: list[str] = []
    shape = _shape(nodes[-1].output_shape)
    for node in nodes:
        if isinstance(node, Neuron):
            count = math.prod(node.output_shape)
            lines.append(f"{count:,} {_KINDS[node.kind]}")
        elif not (isinstance(node, Flatten) and len(nodes) > 1):
            titles.append(_title(node))
        if isinstance(node, Convolution | Dense):
            lines.append(f"{node.weight.size:,} weights")
    if not titles:
        titles = [_KINDS[node.kind] for node in nodes if isinstance(node, Neuron)] or ["flatten"]
    return titles[0], (shape, *lines)


def _title(node: Node) -> str:
    if isinstance(node, Convolution):
        return f"conv {_by(node.weight.shape[2:])}{_stride(node.stride)}"
    if isinstance(node, Dense):
        return "full"
    if isinstance(node, Pooling):
        mean = math.isclose(node.scale * math.prod(node.kernel), 1.0)
        return f"{'mean' if mean else 'sum'} {_by(node.kernel)}"
    if isinstance(node, Delay):
        longest = int(node.steps.max())
        return f"delay, {longest} step{'s' if longest != 1 else ''}"
    if isinstance(node, Scaling):
        return "scale"
    return "sum" if isinstance(node, Sum) else "flatten"


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in sides)


def _stride(stride: tuple[int, int]) -> str:
    if set(stride) == {1}:
        return ""
    return f", stride {stride[0] if len(set(stride)) == 1 else _by(stride)}"


def _shape(shape: Shape) -> str:
    return "x".join(str(extent) for extent in shape) or "1"
