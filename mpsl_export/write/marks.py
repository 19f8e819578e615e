"""What a file says of itself beside the network: its probe. All of it stands in the graph's
metadata, from which every format takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpsl_runtime.run.marked_file import probed
from mpsl_runtime.run.probe import PROBE_KEYS, Probe

if TYPE_CHECKING:
    from mpsl_export.write.format import Network

__all__ = ["marked", "marked_as", "marks_of"]


def marked(network: Network) -> Network:
    """The network with its probe: that which it has, answered anew, or else one that is found.

    A graph that does not say how it steps gets none: whoever reads it may take another step.
    """
    if network.plan.metadata is None:
        return network
    return replace(network, graph=probed(network.graph, network.plan))


def marked_as(network: Network, metadata: Mapping[str, Any], where: str) -> Network:
    """The network as its exporter marks it, for the input of a file's probe: what the file says
    that comes of it is not taken from there.

    Args:
        metadata: of the file. where: the file, for messages.

    Raises:
        ModelError: its probe cannot be.
    """
    probe = Probe.of(metadata, where)
    if probe is None:  # of an earlier version
        return network
    return replace(network, graph=probed(network.graph, network.plan, probe))


def marks_of(network: Network) -> dict[str, Any]:
    """What `marked` has added."""
    return {key: value for key, value in network.graph.metadata.items() if key in PROBE_KEYS}
