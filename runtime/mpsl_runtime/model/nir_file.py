"""A `.nir` file of unknown origin -> `nir.NIRGraph`, or one clear line.

NIR is HDF5, and HDF5 can do much that a model never needs: links into other files, arrays that are
declared far larger than the file, groups that contain themselves. The file is therefore walked
here, with limits, before the `nir` package sees any of it; nothing outside the file is opened and
nothing is allocated that the limits do not allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from mpsl_runtime.errors import ModelError

__all__ = ["LARGEST_FILE_BYTES", "SUPPORTED_TYPES", "read_graph"]

LARGEST_FILE_BYTES = 1 << 30
"""The most data that a file may declare, uncompressed."""

SUPPORTED_TYPES = frozenset(
    {
        "Affine",
        "AvgPool2d",
        "Conv2d",
        "CubaLIF",
        "Flatten",
        "I",
        "IF",
        "Input",
        "LI",
        "LIF",
        "Linear",
        "Output",
        "Scale",
        "SumPool2d",
        "Threshold",
    }
)
"""The node types that the engine runs, by their NIR names."""

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
"""Signature, version and reserved bytes of a heap: too long to occur in weights by chance."""

_DEEPEST_GROUP = 6
_MOST_ITEMS = 100_000


def read_graph(path: str | Path) -> nir.NIRGraph:
    """Reads a NIR file, checking it first.

    Only the container is checked here: what the numbers must satisfy is `graph.plan_of`'s matter.

    Args:
        path: a `.nir` file.

    Returns:
        The graph, with a `type_check` of the nir package that was left out: it knows only square
        kernels, and refuses shapes that are fine.

    Raises:
        ModelError: the file is absent, unreadable, not HDF5, truncated, too large, not a NIR
            graph, or has a node of a type that is not supported; the node is named.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ModelError("no such model file", where=path)
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ModelError(
                "model file is too large",
                got=f"{path.stat().st_size} bytes",
                expected=f"≤ {LARGEST_FILE_BYTES}",
                where=path,
            )
        if not h5py.is_hdf5(path):
            raise ModelError(
                "not a NIR file", got="a file that is not HDF5", expected="HDF5", where=path
            )
        # Mapped, not read: most of the pages are weights, which nothing else looks at here.
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            _check_heaps(content, path)
        with h5py.File(path, "r") as tree_file:
            tree = _Walk(path).group(tree_file)
    except ModelError:
        raise
    except Exception as error:  # h5py answers damage with errors of every kind
        raise ModelError("damaged model file", got=_one_line(error), where=path) from error
    return _graph(tree.get("node"), path)


def _check_heaps(content: mmap, path: Path) -> None:
    """Walks the heaps that hold text, as HDF5 does ("Global Heap" of its file format).

    HDF5 2.0 does not end on a heap whose damaged object has no size: nothing could stop it then.
    """
    start = 0
    while match := _HEAP.search(content, start):
        start = match.start()
        size = int.from_bytes(content[start + 8 : start + 16], "little")
        at, end = start + 16, min(start + size, len(content))
        while at + 16 <= end:
            is_object = content[at : at + 2] != b"\0\0"  # else the free space to the end
            length = int.from_bytes(content[at + 8 : at + 16], "little")
            need = 16 + (length + 7) // 8 * 8 if is_object else length
            if need == 0 or need > end - at:
                raise ModelError("damaged model file", got="a heap without an end", where=path)
            at += need
        start += 16


class _Walk:
    """Turns an HDF5 file into nested dicts within the limits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items = 0
        self.bytes = 0

    def group(self, group: Any, depth: int = 0) -> dict[str, Any]:
        if depth > _DEEPEST_GROUP:
            raise ModelError("groups are nested too deeply for NIR", where=self.path)
        result: dict[str, Any] = {}
        for name in group:
            where = f"{group.name.rstrip('/')}/{name} of {self.path}"
            self.items += 1
            if self.items > _MOST_ITEMS:
                raise ModelError("too many items for NIR", expected=f"≤ {_MOST_ITEMS}", where=where)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError("links are not read", expected="the data itself", where=where)
            item = group[name]
            if isinstance(item, h5py.Group):
                result[name] = self.group(item, depth + 1)
            elif isinstance(item, h5py.Dataset):
                result[name] = self.dataset(item, where)
            else:
                raise ModelError("neither group nor data set", got=type(item).__name__, where=where)
        return result

    def dataset(self, item: Any, where: str) -> Any:
        if item.is_virtual or item.external:
            raise ModelError("data kept in another file is not read", where=where)
        if item.shape is None:
            raise ModelError("empty data set", where=where)
        text = h5py.check_string_dtype(item.dtype) is not None
        if not text and item.dtype.kind not in "biuf":
            raise ModelError("data is neither numbers nor text", got=item.dtype, where=where)
        self.bytes += item.size * max(item.dtype.itemsize, 1)
        if self.bytes > LARGEST_FILE_BYTES:
            raise ModelError(
                "model declares too much data",
                got=f"shape {item.shape}",
                expected=f"≤ {LARGEST_FILE_BYTES} bytes in all",
                where=where,
            )
        value = item[()]
        if not text:
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8")
        return [[part.decode("utf-8") for part in row] for row in np.atleast_2d(value)]


def _graph(root: object, path: Path) -> nir.NIRGraph:
    """Builds the graph node by node, so that an error names its node."""
    if not isinstance(root, dict) or root.get("type") != "NIRGraph":
        raise ModelError("HDF5, but not a NIR graph", expected="/node/type = NIRGraph", where=path)
    nodes, edges = root.get("nodes"), root.get("edges")
    if not isinstance(nodes, dict) or not nodes:
        raise ModelError("NIR graph without nodes", where=path)
    metadata = root.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ModelError("graph metadata is not a group", where=path)
    return nir.NIRGraph(
        nodes={name: _node(name, node, path) for name, node in nodes.items()},
        edges=_edges(edges, path),
        metadata=metadata,
        type_check=False,
    )


def _edges(edges: object, path: Path) -> list[tuple[str, str]]:
    if isinstance(edges, np.ndarray) and edges.size == 0:
        return []
    if not isinstance(edges, list) or any(len(edge) != 2 for edge in edges):
        raise ModelError("NIR graph without a list of edges", expected="pairs of names", where=path)
    return [(source, target) for source, target in edges]


def _node(name: str, node: object, path: Path) -> nir.NIRNode:
    where = f"node {name!r} of {path}"
    kind = node.get("type") if isinstance(node, Mapping) else None
    if not isinstance(node, dict) or not isinstance(kind, str):
        raise ModelError("node without a type", where=where)
    if kind not in SUPPORTED_TYPES:
        raise ModelError(
            "node type is not supported",
            got=repr(kind),
            expected=", ".join(sorted(SUPPORTED_TYPES)),
            where=where,
        )
    values = dict(node)
    # Given a shape, nir computes another from it before any check, and for square kernels only.
    stated = values.pop("input_shape", None) if kind == "Conv2d" else None
    try:
        built = nir.dict2NIRNode({"input_shape": None, **values} if kind == "Conv2d" else values)
    except Exception as error:  # nir answers bad values with assertions and more
        raise ModelError(f"{kind} cannot be built", got=_one_line(error), where=where) from error
    if stated is not None:
        built.input_shape = stated
    return built


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
