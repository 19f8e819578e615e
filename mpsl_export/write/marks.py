"""What a file says of itself beside the network: its probe, and where it comes from. All of it
stands in the graph's metadata, from which every format takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpsl_runtime.model.provenance import PROVENANCE_KEYS, TOLD_KEYS, provenance_of
from mpsl_runtime.run.marked_file import probed
from mpsl_runtime.run.probe import PROBE_KEYS, Probe

if TYPE_CHECKING:
    from mpsl_export.write.format import Network

__all__ = ["marked", "marked_as", "marks_of", "with_metadata"]


def marked(network: Network, provenance: Mapping[str, str] | None = None) -> Network:
    """The network with its probe: that which it has, answered anew, or else one that is found.

    A graph that does not say how it steps gets none: whoever reads it may take another step.

    Args:
        provenance: entries that take the place of those that the graph has.
    """
    if network.plan.metadata is None:
        return network
    graph = probed(network.graph, network.plan)
    bare = {key: value for key, value in graph.metadata.items() if key != "verified"}
    graph.metadata = {**bare, **(provenance or {})}
    return replace(network, graph=graph)


def marked_as(network: Network, metadata: Mapping[str, Any], where: str) -> Network:
    """The network as its exporter marks it, for the input of a file's probe: what the file says
    that comes of it is not taken from there. What no run tells is, if it is plain.

    Args:
        network: with what its run tells. metadata: of the file. where: the file, for messages.

    Raises:
        ModelError: its probe or provenance cannot be.
    """
    provenance_of(metadata, where)
    known = network.graph.metadata
    if "written_by" not in metadata:  # an earlier version wrote it
        known = {key: value for key, value in known.items() if key not in PROVENANCE_KEYS}
    told = {key: metadata[key] for key in TOLD_KEYS if key in metadata}
    probe = Probe.of(metadata, where)
    graph = network.graph if probe is None else probed(network.graph, network.plan, probe)
    probes = {key: value for key, value in graph.metadata.items() if key in PROBE_KEYS}
    bare = {key: value for key, value in known.items() if key not in TOLD_KEYS}
    return with_metadata(network, {**bare, **probes, **told})


def marks_of(network: Network) -> dict[str, Any]:
    """What stands in the graph's metadata beside `ModelMetadata`."""
    metadata = network.graph.metadata
    return {key: metadata[key] for key in (*PROVENANCE_KEYS, *PROBE_KEYS) if key in metadata}


def with_metadata(network: Network, metadata: Mapping[str, Any]) -> Network:
    """The network with this metadata of its graph."""
    import nir

    graph = network.graph
    changed = nir.NIRGraph(graph.nodes, graph.edges, metadata=dict(metadata), type_check=False)
    return replace(network, graph=changed)
