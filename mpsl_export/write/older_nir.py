"""A graph as older versions of the nir package read it: `mpsl export --compat`."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsl_runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    import nir

__all__ = ["COMPATIBLE", "as_read_by"]

COMPATIBLE = ("1.0.4",)
"""Versions of nir that a file can be written for. 1.0.5 reads such a file only without pools."""


def as_read_by(graph: nir.NIRGraph, version: str, source: str) -> nir.NIRGraph:
    """The same network without `v_reset`, which nir knows from 1.0.6 on: absent, it is 0.

    Args:
        graph: is not changed. version: one of `COMPATIBLE`. source: the file, for messages.

    Raises:
        UsageError: no such version. ModelError: neurons reset to another value than 0; an int8
            convolution, which says its grid where nir 1.0.4 takes no metadata.
    """
    if version not in COMPATIBLE:
        raise UsageError(
            "no files are written for this version of nir",
            got=version,
            expected=" or ".join(COMPATIBLE),
            where="--compat",
        )
    import nir

    nodes: dict[str, Any] = {}
    for name, node in graph.nodes.items():
        nodes[name] = node
        if isinstance(node, nir.Conv1d | nir.Conv2d) and node.metadata:
            raise ModelError(
                f"nir {version} cannot read the grid of an int8 convolution",
                where=f"node {name!r} of {source}",
            )
        if getattr(node, "v_reset", None) is None:
            continue
        if np.any(node.v_reset):
            raise ModelError(
                f"nir {version} cannot say that neurons reset to another value than 0",
                where=f"node {name!r} of {source}",
            )
        nodes[name] = copy.copy(node)
        nodes[name].v_reset = None
    older = copy.copy(graph)
    older.nodes = nodes
    return older
