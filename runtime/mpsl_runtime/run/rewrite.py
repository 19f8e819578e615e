"""A graph and its plan -> the graph to write, proven to be the same network."""

from __future__ import annotations

from dataclasses import replace

import nir

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.whole_graph import whole_graph
from mpsl_runtime.run.state import network_hash

__all__ = ["rewritten"]


def rewritten(
    graph: nir.NIRGraph, plan: Plan, *, dt_s: float | None = None
) -> tuple[nir.NIRGraph, Plan]:
    """A graph that says all that runs (`whole_graph`), and its plan.

    Args:
        graph, plan: what was read, and how it runs; `dt_s` as it was given for that.

    Raises:
        ModelError: what would be written is another network.
    """
    again = whole_graph(graph, plan)
    written = plan_of(again, source=plan.source, dt_s=dt_s)
    if network_hash(written) != network_hash(plan):
        raise ModelError("model cannot be written as it runs", where=plan.source)
    return again, replace(written, notes=plan.notes)
