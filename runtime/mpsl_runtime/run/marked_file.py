"""A graph with its probe, and the file of it with its seal."""

from __future__ import annotations

from pathlib import Path

import nir

from mpsl_runtime.atomic import replacing
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.seal import sealed_bytes
from mpsl_runtime.run.probe import PROBE_KEYS, Probe
from mpsl_runtime.run.probe_search import answered, find_probe

__all__ = ["probed", "write_marked"]


def probed(graph: nir.NIRGraph, plan: Plan, probe: Probe | None = None) -> nir.NIRGraph:
    """A copy of the graph with a probe in its metadata.

    Args:
        plan: of the graph. probe: the input to take, which is answered anew; default that which the
            graph has, or else one that is found.
    """
    asked = probe or Probe.of(graph.metadata, plan.source)
    found = find_probe(plan) if asked is None else answered(plan, asked)
    bare = {key: value for key, value in graph.metadata.items() if key not in PROBE_KEYS}
    metadata = bare if found is None else {**bare, **found.to_mapping()}
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=metadata, type_check=False)


def write_marked(graph: nir.NIRGraph, plan: Plan, path: Path) -> None:
    """Writes a graph with its probe, sealed; the file appears whole or not at all.

    Args:
        plan: of the graph, with metadata of mpsl.

    Raises:
        OutputError: `path` cannot be written.
    """
    content = sealed_bytes(probed(graph, plan))
    with replacing(path) as temporary:
        temporary.write_bytes(content)
