"""Layers onto cores: one core for each layer, each core with its own memory.

A matching in a bipartite graph, by augmenting paths (Kuhn 1955, Berge 1957): as many layers as
possible get a core.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["match"]


def match(options: Sequence[Sequence[int]]) -> list[int | None]:
    """A largest matching.

    Args:
        options: for each layer the cores that can hold it.

    Returns:
        for each layer its core, or None where none is left for it.
    """
    owner: dict[int, int] = {}
    for layer in range(len(options)):
        _place(layer, options, owner, set())
    core_of = {layer: core for core, layer in owner.items()}
    return [core_of.get(layer) for layer in range(len(options))]


def _place(
    layer: int, options: Sequence[Sequence[int]], owner: dict[int, int], tried: set[int]
) -> bool:
    """Gives `layer` a core, moving others where that makes room."""
    for core in options[layer]:
        if core in tried:
            continue
        tried.add(core)
        if core not in owner or _place(owner[core], options, owner, tried):
            owner[core] = layer
            return True
    return False
