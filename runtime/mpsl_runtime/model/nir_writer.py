"""A `nir.NIRGraph` -> the bytes of a `.nir` file, and the file, whole or not at all.

The terminals are named `input` and `output`, as nir itself names them: other programs look for
these names. The same graph gives the same bytes, whether it was made here or read from a file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from mpsl_runtime.atomic import replacing
from mpsl_runtime.model.array_writer import write_array

__all__ = ["graph_bytes", "write_graph"]

_TERMINALS = {"Input": "input", "Output": "output"}
_FEW = 8  # strides, paddings, shapes


def graph_bytes(graph: nir.NIRGraph) -> bytes:
    """The content of a `.nir` file.

    HDF5 that runs out of disk while it closes a file crashes the process, so the disk sees plain
    bytes.
    """
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("version", data=nir.version, dtype=h5py.string_dtype())
        _write(file.create_group("node"), _written(graph))
    return content.getvalue()


def write_graph(graph: nir.NIRGraph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OutputError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(graph_bytes(graph))


def _write(group: Any, values: dict[str, Any]) -> None:
    """As `nir.write` has it, but for the arrays."""
    for key, value in values.items():
        if isinstance(value, dict):
            if key != "metadata" or value:
                _write(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray):
            write_array(group, key, value)
        else:
            group.create_dataset(key, data=value)


def _written(graph: nir.NIRGraph) -> dict[str, Any]:
    """The graph as it lies in the file."""
    found: dict[str, Any] = graph.to_dict()
    names = _names(found["nodes"])
    nodes = {names.get(name, name): node for name, node in found["nodes"].items()}
    edges = [(names.get(a, a), names.get(b, b)) for a, b in found["edges"]]
    settled: dict[str, Any] = _settled({**found, "nodes": nodes, "edges": edges})
    return settled


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
