"""A `nir.NIRGraph` -> the bytes of a `.nir` file, and the file, whole or not at all.

The terminals are named `input` and `output`, as nir itself names them: other programs look for
these names. The same graph gives the same bytes, whether it was made here or read from a file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nir
import numpy as np

from mpsl_runtime.atomic import replacing

__all__ = ["graph_bytes", "write_graph"]

_TERMINALS = {"Input": "input", "Output": "output"}
# Strides, paddings, shapes: HDF5 spends 2 kB on the index of a compressed array.
_FEW = 8


def graph_bytes(graph: nir.NIRGraph) -> bytes:
    """The content of a `.nir` file.

    HDF5 that runs out of disk while it closes a file crashes the process, so the disk sees plain
    bytes.
    """
    content = io.BytesIO()
    nir.write(content, _Written(graph))
    return content.getvalue()


def write_graph(graph: nir.NIRGraph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OutputError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(graph_bytes(graph))


class _Written:
    """What `nir.write` asks of a graph."""

    def __init__(self, graph: nir.NIRGraph) -> None:
        self._graph = graph

    def to_dict(self) -> dict[str, Any]:
        """The graph as it lies in the file."""
        graph: dict[str, Any] = self._graph.to_dict()
        names = _names(graph["nodes"])
        nodes = {names.get(name, name): node for name, node in graph["nodes"].items()}
        edges = [(names.get(a, a), names.get(b, b)) for a, b in graph["edges"]]
        written: dict[str, Any] = _settled({**graph, "nodes": nodes, "edges": edges})
        return written


def _names(nodes: dict[str, Any]) -> dict[str, str]:
    """New names of the terminals; a terminal keeps its own where another node has that name."""
    found: dict[str, str] = {}
    for kind, name in _TERMINALS.items():
        terminals = [each for each, node in nodes.items() if node["type"] == kind]
        if len(terminals) == 1 and name not in nodes:
            found[terminals[0]] = name
    return found


def _settled(value: Any) -> Any:
    """In the order in which a file is read, without what is absent, and a few whole numbers as a
    list: a file gives arrays, a program that made the graph may have either."""
    if isinstance(value, dict):
        return {key: _settled(value[key]) for key in sorted(value) if value[key] is not None}
    if isinstance(value, np.ndarray) and value.dtype == np.int64 and 0 < value.size <= _FEW:
        return value.tolist()
    return value
