"""A `nir.NIRGraph` -> the bytes of a `.nir` file, and the file, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import nir

from mpsl_runtime.atomic import replacing

__all__ = ["graph_bytes", "write_graph"]


def graph_bytes(graph: nir.NIRGraph) -> bytes:
    """The content of a `.nir` file.

    HDF5 that runs out of disk while it closes a file crashes the process, so the disk sees plain
    bytes.
    """
    content = io.BytesIO()
    nir.write(content, graph)
    return content.getvalue()


def write_graph(graph: nir.NIRGraph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OutputError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(graph_bytes(graph))
