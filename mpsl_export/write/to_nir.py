"""Writes a network of banks as one NIR graph, in the encoding of DESIGN §6.

Node names sort in the order of the graph, because reading returns them alphabetically; the
terminals are `input` and `output`, for which other programs look. Average pooling becomes a sum
with 1/k² in the next weights, a convolution always carries its input shape and a bias, and what NIR
cannot say stands in the metadata of every neuron and of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsl_export.checkpoint import Checkpoint, Layer
from mpsl_export.merge import Merged, merge
from mpsl_export.provenance import provenance_of_run
from mpsl_export.write.alteration import Alteration
from mpsl_export.write.format import BackendKind, ExportFormat, Network
from mpsl_export.write.marks import marked_as, with_metadata
from mpsl_export.write.plastic import plastic_metadata
from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.graph import load_graph
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.nir_writer import graph_bytes, write_graph
from mpsl_runtime.model.plastic import PLASTIC_KEY
from mpsl_runtime.model.seal import sealed, sealed_bytes

if TYPE_CHECKING:
    import nir

    from mpsl_export.verify.backends import Backend

__all__ = ["FORMAT", "NirFormat", "graph_of", "rounded_layers", "run_network", "write_nir"]

Shape = tuple[int, ...]
# Whether it rounds on its own: norse does where a reset to zero leaves it in the units of the file.
_PEERS = {"norse": True, "sinabs": False, "snntorch": False, "spikingjelly": False}


def graph_of(checkpoint: Checkpoint) -> nir.NIRGraph:
    """The merged network.

    Raises:
        RunError: layers whose shapes do not follow from each other.
    """
    import nir

    nodes: list[tuple[str, Any]] = [
        ("input", nir.Input({"input": np.array(checkpoint.input_shape)}))
    ]
    shape: Shape = checkpoint.input_shape
    for layer in checkpoint.layers:
        added, shape = _layer_nodes(layer, shape, checkpoint)
        nodes += added
    nodes.append(("output", nir.Output({"output": np.array(shape)})))
    last = len(nodes) - 1
    width = max(2, len(str(last)))
    named = {
        kind if i in (0, last) else f"n{i:0{width}d}_{kind}": node
        for i, (kind, node) in enumerate(nodes)
    }
    names = list(named)
    return nir.NIRGraph(
        nodes=named,
        edges=list(pairwise(names)),
        metadata=checkpoint.model.to_mapping(),
    )


def run_network(run: Path, checkpoint: Checkpoint) -> Network:
    """The merged network of a run, with what its file says of where it comes from.

    Raises:
        RunError: see `graph_of`; the record is damaged.
    """
    network = Network.of(graph_of(checkpoint), str(checkpoint.path))
    metadata = {**network.graph.metadata, **provenance_of_run(run, checkpoint)}
    plastic = plastic_metadata(checkpoint, network.plan)
    return replace(with_metadata(network, metadata), plastic=plastic)


def rounded_layers(checkpoint: Checkpoint) -> list[str]:
    """Names of the layers whose fold had to round: batch normalisation, or a pool with k² that is
    no power of two. Elsewhere the exported weights are those of training, exactly rescaled."""
    return [layer.name for layer in checkpoint.layers if not merge(layer).exact]


def write_nir(graph: nir.NIRGraph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OutputError: `path` cannot be written.
    """
    write_graph(graph, path)


class NirFormat(ExportFormat):
    """`.nir`: one HDF5 file, which the engine and other frameworks read."""

    name = "nir"
    suffix = ".nir"

    @property
    def backends(self) -> Sequence[BackendKind]:
        """torch, the two programs of the runtime, and the frameworks that `make peers` installs."""
        peers = (
            BackendKind(
                name, partial(_open_peer, name=name), needs=name, by_default=False, own_units=own
            )
            for name, own in _PEERS.items()
        )
        return (
            BackendKind("torch", _open_torch, needs="torch"),
            BackendKind("reference", _open_reference),
            BackendKind("engine", _open_engine),
            *peers,
        )

    def files(self, network: Network, name: str) -> dict[str, bytes]:
        """See `ExportFormat.files`."""
        return {name: sealed_bytes(network.graph)}

    def alterations(self, path: Path, network: Network) -> list[Alteration]:
        """See `ExportFormat.alterations`."""
        from mpsl_export.write.nir_alterations import nir_alterations

        metadata = self.metadata(path)
        if PLASTIC_KEY in metadata and network.plastic:
            network = network.going_on()
        expected = marked_as(network, metadata, str(path))
        return nir_alterations(path, graph_bytes(expected.graph), expected.plan)

    def metadata(self, path: Path) -> Mapping[str, Any]:
        """See `ExportFormat.metadata`."""
        graph = load_graph(path)
        found = dict(graph.metadata)
        for name, node in graph.nodes.items():
            for key in ("weight_grid", "threshold"):
                if isinstance(node.metadata, dict) and key in node.metadata:
                    found[f"{key}.{name}"] = node.metadata[key]
        return {
            key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for key, value in found.items()
        }

    def stamp(self, path: Path, verified: str) -> None:
        """See `ExportFormat.stamp`."""
        graph = load_graph(path)
        # Of a file for an older nir, writing what was read would make another one.
        if "seal" not in graph.metadata or sealed(graph).metadata["seal"] != graph.metadata["seal"]:
            return
        graph.metadata = {**graph.metadata, "verified": verified}
        content = sealed_bytes(graph)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def shapes(self, path: Path) -> tuple[Shape, Shape]:
        """See `ExportFormat.shapes`."""
        from mpsl_runtime.model.graph import load_plan

        plan = load_plan(path)
        return plan.input_shape, plan.output_shape


FORMAT = NirFormat()


def _open_torch(path: Path) -> Backend:
    from mpsl_export.verify.backends.torch_plan import TorchPlan
    from mpsl_runtime.model.graph import load_plan

    return TorchPlan(load_plan(path))


def _open_reference(path: Path) -> Backend:
    from mpsl_export.verify.backends.runtime import RuntimeProgram
    from mpsl_runtime.model.graph import load_plan

    return RuntimeProgram(load_plan(path), "reference")


def _open_engine(path: Path) -> Backend:
    from mpsl_export.verify.backends.runtime import RuntimeProgram
    from mpsl_runtime.model.graph import load_plan

    return RuntimeProgram(load_plan(path), "engine")


def _open_peer(path: Path, name: str) -> Backend:
    from mpsl_export.verify.backends.peers import PeerProgram

    return PeerProgram(path, name)


def _layer_nodes(
    layer: Layer, shape: Shape, checkpoint: Checkpoint
) -> tuple[list[tuple[str, Any]], Shape]:
    """Nodes of one layer behind an input of `shape`, and the shape that they hand on."""
    import nir

    nodes: list[tuple[str, Any]] = []
    if layer.pool_before > 1:
        k = layer.pool_before
        window = np.array([k, k])
        nodes.append(("sumpool", nir.SumPool2d(window, window.copy(), np.array([0, 0]))))
        shape = (*shape[:-2], *(size // k for size in shape[-2:]))
    if layer.flatten_before:
        nodes.append(("flatten", nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)))
        shape = (int(np.prod(shape)),)
    where = f"{layer.name} of {checkpoint.path}"
    weighted, shape = _weighted_node(layer, merge(layer), shape, where)
    nodes.append(weighted)
    if shape != layer.neurons:
        raise RunError(
            "population has the wrong shape",
            got=list(layer.neurons),
            expected=list(shape),
            where=where,
        )
    neuron = _neuron_node(layer, shape, checkpoint.model.dt_s)
    nodes.append((type(neuron).__name__.lower(), neuron))
    return nodes, shape


def _weighted_node(
    layer: Layer, merged: Merged, shape: Shape, where: str
) -> tuple[tuple[str, Any], Shape]:
    """The convolution or fully connected node, and the shape of its output."""
    import nir

    expected = (layer.banks[0].shape[1], *shape[1:])
    if shape != expected or len(shape) != (3 if layer.kind == "conv" else 1) or 0 in shape:
        raise RunError(
            "layer does not fit the one before it",
            got=f"input {list(shape)}",
            expected=f"{expected[0]} channels" if layer.kind == "conv" else [expected[0]],
            where=where,
        )
    if layer.kind == "fc":
        affine = nir.Affine(weight=merged.weight, bias=merged.bias)
        return ("affine", affine), (merged.weight.shape[0],)
    node = nir.Conv2d(
        input_shape=(shape[1], shape[2]),
        weight=merged.weight,
        stride=layer.stride,
        padding=layer.padding,
        dilation=(1, 1),
        groups=1,
        bias=merged.bias,
    )
    return ("conv", node), tuple(int(size) for size in node.output_type["output"])


def _neuron_node(layer: Layer, shape: Shape, dt_s: float) -> nir.LIF | nir.IF:
    from mpsl_runtime.model.neurons import neuron_node

    metadata = NeuronMetadata(
        reset=layer.reset,
        order="reset-decay-add-fire",
        decay=layer.decay,
        threshold=layer.threshold,
        dt_s=dt_s,
    )
    return neuron_node(metadata, shape)
