"""Writes a network of banks as one NIR graph, in the encoding of DESIGN §6.

Node names sort in the order of the graph, because reading returns them alphabetically. Average
pooling becomes a sum with 1/k² in the next weights, a convolution always carries its input shape
and a bias, and what NIR cannot say stands in the metadata of every neuron and of the graph.
"""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsl_export.checkpoint import Checkpoint, Layer
from mpsl_export.merge import merge
from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.metadata import NeuronMetadata

if TYPE_CHECKING:
    import nir

__all__ = ["graph_of", "rounded_layers", "write_nir"]

Shape = tuple[int, ...]


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
    width = max(2, len(str(len(nodes) - 1)))
    named = {f"n{i:0{width}d}_{kind}": node for i, (kind, node) in enumerate(nodes)}
    names = list(named)
    return nir.NIRGraph(
        nodes=named,
        edges=list(pairwise(names)),
        metadata=checkpoint.model.to_mapping(),
    )


def rounded_layers(checkpoint: Checkpoint) -> list[str]:
    """Names of the layers whose fold had to round: batch normalisation, or a pool with k² that is
    no power of two. Elsewhere the exported weights are those of training, exactly rescaled."""
    return [layer.name for layer in checkpoint.layers if not merge(layer).exact]


def write_nir(graph: nir.NIRGraph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OutputError: `path` cannot be written.
    """
    import nir

    # HDF5 that runs out of disk while it closes a file crashes the process, so the disk sees
    # plain bytes.
    content = io.BytesIO()
    nir.write(content, graph)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _layer_nodes(
    layer: Layer, shape: Shape, checkpoint: Checkpoint
) -> tuple[list[tuple[str, Any]], Shape]:
    """Nodes of one layer behind an input of `shape`, and the shape that they hand on."""
    import nir

    from mpsl_runtime.model.graph import encode_neuron

    nodes: list[tuple[str, Any]] = []
    merged = merge(layer)
    if layer.pool_before > 1:
        k = layer.pool_before
        window = np.array([k, k])
        nodes.append(("sumpool", nir.SumPool2d(window, window.copy(), np.array([0, 0]))))
        shape = (*shape[:-2], *(size // k for size in shape[-2:]))
    if layer.flatten_before:
        nodes.append(("flatten", nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)))
        shape = (int(np.prod(shape)),)
    expected = (layer.banks[0].shape[1], *shape[1:])
    if shape != expected or len(shape) != (3 if layer.kind == "conv" else 1) or 0 in shape:
        raise RunError(
            "layer does not fit the one before it",
            got=f"input {list(shape)}",
            expected=f"{expected[0]} channels" if layer.kind == "conv" else [expected[0]],
            where=f"{layer.name} of {checkpoint.path}",
        )
    if layer.kind == "conv":
        node = nir.Conv2d(
            input_shape=(shape[1], shape[2]),
            weight=merged.weight,
            stride=layer.stride,
            padding=layer.padding,
            dilation=(1, 1),
            groups=1,
            bias=merged.bias,
        )
        shape = tuple(int(size) for size in node.output_type["output"])
        nodes.append(("conv", node))
    else:
        nodes.append(("affine", nir.Affine(weight=merged.weight, bias=merged.bias)))
        shape = (merged.weight.shape[0],)
    if shape != layer.neurons:
        raise RunError(
            "population has the wrong shape",
            got=list(layer.neurons),
            expected=list(shape),
            where=f"{layer.name} of {checkpoint.path}",
        )
    dt_s = checkpoint.model.dt_s
    arrays = encode_neuron(layer.threshold, layer.decay, shape, dt_s)
    metadata = NeuronMetadata(
        reset=layer.reset,
        order="reset-decay-add-fire",
        decay=layer.decay,
        threshold=layer.threshold,
        dt_s=dt_s,
    )
    nodes.append(("lif", nir.LIF(**arrays, metadata=metadata.to_mapping())))
    return nodes, shape
