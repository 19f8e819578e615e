"""The seal of a model file: the sha256 of everything in it but the seal itself.

One changed bit of a weight, a threshold or any metadata breaks it. It is no signature: whoever
changes a file can seal it again. Beside it stand the hashes of the parts, so that the part that
changed can be named. What is hashed are names, types, shapes and values, not the bytes of HDF5:
another writer may pack the same content otherwise.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np

from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.tree import Tree, read_tree
from mpsl_runtime.model.nir_file import LIMITS
from mpsl_runtime.model.nir_writer import graph_bytes

__all__ = ["SEAL_KEYS", "broken_parts", "check_seal", "sealed", "sealed_bytes"]

SEAL_KEYS = ("seal", "seal_parts")
"""Of the graph's metadata."""

_NODES, _METADATA = ("node", "nodes"), ("node", "metadata")
_MOST_PARTS = 200
_SHORT = 16  # hexadecimal digits of a part's hash


def sealed(graph: nir.NIRGraph) -> nir.NIRGraph:
    """`graph`, which stays as it is, with the seal of its file."""
    metadata = {key: value for key, value in graph.metadata.items() if key not in SEAL_KEYS}
    made = nir.NIRGraph(graph.nodes, graph.edges, metadata=metadata, type_check=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bare.nir"
        path.write_bytes(graph_bytes(made))
        tree = _tree(path)
    parts = _parts(tree)
    if parts:
        said = " ".join(f"{name}={part}" for name, part in parts.items())
        made.metadata = {**metadata, "seal_parts": said}
        _metadata(tree)["seal_parts"] = said
    made.metadata = {**made.metadata, "seal": _whole(tree)}
    return made


def sealed_bytes(graph: nir.NIRGraph) -> bytes:
    """The content of a `.nir` file of `graph`, which stays as it is, sealed."""
    return graph_bytes(sealed(graph))


def broken_parts(path: Path) -> list[str] | None:
    """The parts of a file that are not as they were sealed; empty: none; None: it has no seal.

    Raises:
        ModelError: the file cannot be read.
    """
    tree = _tree(path)
    metadata = _metadata(tree)
    if "seal" not in metadata:
        return None
    if metadata["seal"] == _whole(tree):
        return []
    parts = _parts(tree)
    words = str(metadata.get("seal_parts", "")).split(" ")
    said = dict(word.rpartition("=")[::2] for word in words)
    found = [name for name, part in parts.items() if said.get(name) != part] if parts else []
    lost = sorted(set(said) - set(parts) - {""}) if parts else []
    return [*found, *lost] or ["the file"]


def check_seal(path: Path) -> None:
    """Before a file is written anew, which would seal whatever it holds.

    Raises:
        ModelError: it is not as it was sealed, or cannot be read. One without a seal passes.
    """
    broken = broken_parts(path)
    if broken:
        raise ModelError(
            "file is not as it was sealed", got=f"changed: {', '.join(broken)}", where=path
        )


def _tree(path: Path) -> Tree:
    return read_tree(path, error=ModelError, noun="model file", limits=LIMITS)


def _metadata(tree: Tree) -> dict[str, Any]:
    node = tree.get("node")
    metadata = node.setdefault("metadata", {}) if isinstance(node, dict) else {}
    return metadata if isinstance(metadata, dict) else {}


def _whole(tree: Tree) -> str:
    """Of all but the seal."""
    digest = hashlib.sha256()
    for path, content in _leaves(tree, ()):
        if path != (*_METADATA, "seal"):
            digest.update(repr(path).encode("utf-8", "surrogatepass") + content)
    return digest.hexdigest()


def _parts(tree: Tree) -> dict[str, str]:
    """Of each node, the edges and the metadata; none where they are many, or named oddly."""
    parts: dict[str, Any] = {}
    for path, content in _leaves(tree, ()):
        if path in {(*_METADATA, key) for key in SEAL_KEYS}:
            continue
        name = path[2] if path[:2] == _NODES and len(path) > 2 else path[-1]
        name = "metadata" if path[:2] == _METADATA else name
        digest = parts.setdefault(name, hashlib.sha256())
        digest.update(repr(path).encode("utf-8", "surrogatepass") + content)
    spoken = len(parts) <= _MOST_PARTS and not any(" " in name or "=" in name for name in parts)
    return {name: digest.hexdigest()[:_SHORT] for name, digest in parts.items()} if spoken else {}


def _leaves(tree: Tree, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Every value by its path, in the order of the names."""
    if not tree:
        yield path, b"empty"
    for name in sorted(tree):
        value, place = tree[name], (*path, name)
        if isinstance(value, dict):
            yield from _leaves(value, place)
        else:
            yield place, _bytes(value)


def _bytes(value: Any) -> bytes:
    """A value with its type and shape."""
    if isinstance(value, str):
        return b"text" + value.encode("utf-8", "surrogatepass")
    array = np.asarray(value)
    if array.dtype == object:
        return b"texts" + repr((array.shape, array.reshape(-1).tolist())).encode()
    kind = array.dtype.newbyteorder("<")
    return f"{kind.str}{array.shape}".encode() + array.astype(kind, copy=False).tobytes()
