"""A `.nir` file of unknown origin -> `nir.NIRGraph`, or one clear line.

NIR is HDF5. The file is read within limits into arrays and text (`mpsl_runtime.hdf5`), every field
is held against the table of its node (`nir_fields`), and only then does the `nir` package see it.
"""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np

from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.source import Limits
from mpsl_runtime.hdf5.tree import Tree, read_tree
from mpsl_runtime.model.nir_fields import SUPPORTED_TYPES, node_of

__all__ = ["LIMITS", "read_graph"]

LIMITS = Limits()
"""What a model file may ask for."""

_DEEPEST = 32


def read_graph(path: str | Path) -> nir.NIRGraph:
    """Reads a NIR file, checking it first.

    Only the container and the types of its fields are checked here: what the numbers must satisfy
    is `graph.plan_of`'s matter.

    Args:
        path: a `.nir` file.

    Returns:
        The graph, with `notes` of what was left alone, and without the `type_check` of the nir
        package: it knows only square kernels, and refuses shapes that are fine.

    Raises:
        ModelError: the file is absent, unreadable, not HDF5, truncated, beyond a limit, not a NIR
            graph, or has a node of a type that is not supported or with fields that cannot be; the
            node is named.
    """
    path = Path(path)
    tree = read_tree(path, error=ModelError, noun="model file", limits=LIMITS)
    notes: list[str] = []
    graph = _graph(tree.get("node"), path, str(path), notes, 0)
    graph.notes = notes
    return graph


def _graph(root: object, path: Path, where: str, notes: list[str], depth: int) -> nir.NIRGraph:
    """Builds the graph node by node, so that an error names its node."""
    if depth > _DEEPEST:
        raise ModelError("graphs are nested too deeply", expected=f"≤ {_DEEPEST}", where=where)
    if not isinstance(root, dict):
        raise ModelError("HDF5, but not a NIR graph", expected="/node/type = NIRGraph", where=where)
    kind, nodes, metadata = root.get("type"), root.get("nodes"), root.get("metadata", {})
    if not isinstance(kind, str) or kind != "NIRGraph":
        got = repr(kind) if isinstance(kind, str) else type(kind).__name__
        raise ModelError(
            "HDF5, but not a NIR graph", got=got, expected="/node/type = NIRGraph", where=where
        )
    if not isinstance(nodes, dict) or not nodes:
        raise ModelError("NIR graph without nodes", where=where)
    if not isinstance(metadata, dict):
        raise ModelError("graph metadata is not a group", where=where)
    return nir.NIRGraph(
        nodes={name: _node(name, node, path, notes, depth) for name, node in nodes.items()},
        edges=_edges(root.get("edges"), where),
        metadata=metadata,
        type_check=False,
    )


def _edges(edges: object, where: str) -> list[tuple[str, str]]:
    if isinstance(edges, np.ndarray) and edges.size == 0:
        return []
    if not isinstance(edges, np.ndarray) or edges.dtype != object or edges.shape[1:] != (2,):
        raise ModelError(
            "NIR graph without a list of edges", expected="pairs of names", where=where
        )
    return [(source, target) for source, target in edges]


def _node(name: str, node: object, path: Path, notes: list[str], depth: int) -> nir.NIRNode:
    where = f"node {name!r} of {path}"
    kind = node.get("type") if isinstance(node, dict) else None
    if not isinstance(node, dict) or not isinstance(kind, str):
        inner = [key for key, part in node.items() if isinstance(part, dict) and "type" in part] \
            if isinstance(node, dict) and kind is None else []  # fmt: skip
        if inner:
            raise ModelError(
                "name of a node has a '/', which nests in HDF5",
                got=repr(f"{name}/{inner[0]}"),
                expected="a name without '/'",
                where=where,
            )
        raise ModelError("node without a type", where=where)
    if kind == "NIRGraph":
        return _graph(node, path, where, notes, depth + 1)
    if kind not in SUPPORTED_TYPES:
        raise ModelError(
            "node type is not supported",
            got=repr(kind),
            expected=", ".join(sorted(SUPPORTED_TYPES)),
            where=where,
        )
    fields: Tree = {key: value for key, value in node.items() if key != "type"}
    return node_of(kind, fields, where, notes)
