"""A `.nir` file in, a network to be written again out: ours, or any graph that the runtime runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mpsl_export.write.format import Network
from mpsl_runtime.model.filling import Filling, load_filled
from mpsl_runtime.model.seal import check_seal
from mpsl_runtime.run.rewrite import rewritten

__all__ = ["read_network"]


def read_network(path: Path, filling: Filling | None = None) -> Network:
    """Reads a model file.

    Args:
        filling: what a file of another framework that was never imported does not say.

    Returns:
        The network; its plan's notes also say what was inferred.

    Raises:
        ModelError: see `mpsl_runtime.model.graph`, and `model.seal`: damage is not sealed again.
        UsageError: see `mpsl_runtime.model.filling`.
    """
    check_seal(path)
    filled = load_filled(path, filling or Filling(), timed=False)
    graph, plan = rewritten(filled.graph, filled.plan, dt_s=filled.dt_s)
    inferred = tuple(f"taken {line}" for line in filled.lines)
    return Network(graph, replace(plan, notes=(*inferred, *plan.notes)))
