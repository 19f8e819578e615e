"""`mpsl inspect --plot`: the diagram of a network as a picture.

matplotlib comes with the extra `mpsl-runtime[plot]`, and is imported only here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpsl_runtime.atomic import replacing
from mpsl_runtime.diagram.blocks import Block, Diagram, Edge
from mpsl_runtime.diagram.rates import Rates
from mpsl_runtime.run.plotting import check_plot, drawn_as_it_is

__all__ = ["save_diagram"]

_WIDTH, _HEIGHT = 1.32, 0.98  # of a block, in inches
_APART_X, _APART_Y = 1.68, 1.35
_WIDEST = 60.0
_BUSIEST = 0.5  # the rate at which a box is filled with colour
_PLAIN, _EDGE, _LINE = "#f2f2f2", "#8a8a8a", "#555555"
_NEURONS, _FIRING = "#fff3e6", "#f2a65a"


def save_diagram(path: Path, diagram: Diagram, title: str, rates: Rates | None) -> None:
    """Draws it.

    Args:
        title: above the picture. rates: of the populations, where they are known.

    Raises:
        MissingExtraError, UsageError: see `check_plot`. OutputError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(block.column for block in diagram.blocks) + 1
    high = max((block.row for block in diagram.blocks), default=0.0)
    low = min((block.row for block in diagram.blocks), default=0.0)
    above, below = _arcs(diagram)
    width = columns * _APART_X + 0.3
    height = (high - low) * _APART_Y + _HEIGHT + 1.25 + above + below
    scale = min(1.0, _WIDEST / width)
    with drawn_as_it_is():
        figure: Any = Figure(figsize=(max(width, 6.5) * scale, height * scale), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-0.15 - (max(width, 6.5) - width) / 2, width + (max(width, 6.5) - width) / 2)
        top = -low * _APART_Y + _HEIGHT / 2 + above
        axes.set_ylim(-high * _APART_Y - _HEIGHT / 2 - below - 0.5, top + 0.75)
        for edge in diagram.edges:
            _draw_edge(axes, diagram, edge)
        for block in diagram.blocks:
            _draw_block(axes, block, rates)
        axes.text(
            0.5, 1 - 0.28 / height, title, transform=axes.transAxes,
            ha="center", va="center", fontsize=12 * scale,
        )  # fmt: skip
        axes.text(
            0.5, 0.22 / height, _legend(diagram, rates), transform=axes.transAxes,
            ha="center", va="center", fontsize=8.5 * scale, color=_LINE,
        )  # fmt: skip
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lower()[1:])


def _legend(diagram: Diagram, rates: Rates | None) -> str:
    words = (
        []
        if rates is None
        else [f"% of the neurons that fire in a step (a full bar: 50 %), {rates.source}"]
    )
    if any(edge.delayed for edge in diagram.edges):
        words.append("dashed: seen a step later")
    return "; ".join(words)


def _place(block: Block) -> tuple[float, float]:
    """The middle of a block, in inches."""
    return block.column * _APART_X + _WIDTH / 2, -block.row * _APART_Y


def _arcs(diagram: Diagram) -> tuple[float, float]:
    """Room for edges above and below the blocks, in inches."""
    spans = [_span(diagram, edge) for edge in diagram.edges if _leaps(diagram, edge)]
    loops = [
        _span(diagram, edge)
        for edge in diagram.edges
        if edge.delayed and not diagram.blocks[edge.head].is_late
    ]
    above = _bow(max(spans)) + 0.05 if spans else 0.0
    return above, _bow(max(loops)) + 0.05 if loops else 0.0


def _span(diagram: Diagram, edge: Edge) -> int:
    return abs(diagram.blocks[edge.head].column - diagram.blocks[edge.tail].column)


def _bow(span: int) -> float:
    """How far an edge over so many columns leaves the line, in inches."""
    return 0.35 + 0.13 * min(span, 8)


def _leaps(diagram: Diagram, edge: Edge) -> bool:
    """It would run through blocks that stand between its ends."""
    tail, head = diagram.blocks[edge.tail], diagram.blocks[edge.head]
    if edge.delayed or head.column - tail.column < 2:
        return False
    return any(
        tail.column < block.column < head.column
        and min(tail.row, head.row) - 0.6 < block.row < max(tail.row, head.row) + 0.6
        for block in diagram.blocks
    )


def _draw_edge(axes: Any, diagram: Diagram, edge: Edge) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    curve = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    points = _points(diagram, edge)
    path = Curve(points, curve) if len(points) > 2 else Curve(points)
    axes.add_patch(
        FancyArrowPatch(
            path=path, linestyle="--" if edge.delayed else "-", zorder=1,
            arrowstyle="-|>", mutation_scale=11, edgecolor=_LINE, facecolor=_LINE, linewidth=1.2,
        )
    )  # fmt: skip


def _points(diagram: Diagram, edge: Edge) -> list[tuple[float, float]]:
    """Both ends of a line, with two control points between them where it is bent."""
    tail, head = diagram.blocks[edge.tail], diagram.blocks[edge.head]
    (x0, y0), (x1, y1) = _place(tail), _place(head)
    half = _WIDTH / 2, _HEIGHT / 2
    if tail.is_late and not head.is_late and not edge.delayed:  # back up into the row of others
        start, end = (x0, y0 + half[1]), (x1 - half[0] / 2, y1 - half[1])
        level = (start[1] + end[1]) / 2
        return [start, (start[0], level), (end[0], level), end]
    if edge.delayed and head.is_late and head.column < tail.column:  # down, then back along its row
        start, end = (x0, y0 - half[1]), (x1 + half[0], y1)
        return [start, (x0, y1), (x0, y1), end]
    if edge.delayed or _leaps(diagram, edge):
        side = -1 if edge.delayed else 1
        inwards = -0.1 if edge.delayed and edge.tail != edge.head else 0.28
        start = (x0 + inwards, y0 + side * half[1])
        end = (x1 - inwards, y1 + side * half[1])
        # The middle of the curve is 3/4 of the way to its control points.
        bend = side * _bow(_span(diagram, edge)) * 4 / 3
        level = (max(start[1], end[1]) if side > 0 else min(start[1], end[1])) + bend
        return [start, (start[0], level), (end[0], level), end]
    return [(x0 + half[0], y0), (x1 - half[0], y1)]


def _draw_block(axes: Any, block: Block, rates: Rates | None) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    x, y = _place(block)
    left, bottom = x - _WIDTH / 2, y - _HEIGHT / 2
    rate = None if rates is None or block.neuron is None else rates.values[block.neuron]
    box = FancyBboxPatch(
        (left, bottom), _WIDTH, _HEIGHT, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=_NEURONS if block.has_neurons else _PLAIN, edgecolor=_EDGE, linewidth=1, zorder=2,
    )  # fmt: skip
    axes.add_patch(box)
    if rate is not None:
        bar = Rectangle(
            (left, bottom), _WIDTH * min(rate / _BUSIEST, 1.0), 0.2, facecolor=_FIRING, zorder=3
        )
        axes.add_patch(bar)
        bar.set_clip_path(box)
        axes.text(x, bottom + 0.1, _percent(rate), ha="center", va="center", fontsize=7.5, zorder=4)
    rows = [block.title, *block.lines]
    room = _HEIGHT - (0.2 if rate is not None else 0.0)
    for k, text in enumerate(rows):
        at = y + _HEIGHT / 2 - room * (k + 0.75) / (len(rows) + 0.5)
        axes.text(
            x, at, text if len(text) <= 22 else text[:21] + "…", ha="center", va="center",
            fontsize=_size(text) if k == 0 else 7.5,
            fontweight="bold" if k == 0 else "normal", zorder=4,
        )  # fmt: skip


def _size(title: str) -> float:
    return 9.0 if len(title) <= 15 else 7.8


def _percent(rate: float) -> str:
    return f"{rate:.1%}" if rate >= 0.001 or rate == 0 else "< 0.1%"
