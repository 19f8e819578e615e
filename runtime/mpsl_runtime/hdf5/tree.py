"""A whole file as nested dicts: groups are dicts, data sets are numbers or text."""

from __future__ import annotations

from pathlib import Path

from mpsl_runtime.errors import MpslError
from mpsl_runtime.hdf5.groups import entries
from mpsl_runtime.hdf5.objects import header, root
from mpsl_runtime.hdf5.source import Limits, Source
from mpsl_runtime.hdf5.values import Value, Values

__all__ = ["Tree", "read_tree"]

Tree = dict[str, "Tree | Value"]


def read_tree(
    path: Path, *, error: type[MpslError], noun: str, limits: Limits | None = None
) -> Tree:
    """Reads every group and data set of an HDF5 file; attributes are not looked at.

    Args:
        path: a file of unknown origin.
        error: the type of what is raised. noun: what the file is, as in `damaged model file`.
        limits: what it may ask for.

    Raises:
        error: the file is absent, not to be read, too large, not HDF5, or damaged; it has links,
            data in other files, data that was never written or is neither numbers nor text, or
            parts of the format that are not read; or it is beyond a limit. The item is named where
            there is one.
    """
    with Source(path, limits or Limits(), error, noun) as source:
        source.spend("file_bytes", source.size)
        found = _item(source, Values(source), root(source), "", 0)
    if not isinstance(found, dict):
        raise error("HDF5 without groups", where=path)
    return found


def _item(source: Source, values: Values, address: int, where: str, depth: int) -> Tree | Value:
    found = header(source, address, where or "/")
    if not found.is_group:
        return values.read(found.messages, where)
    if depth > source.limits.depth:
        raise source.refused(
            "groups are nested too deeply", expected=f"≤ {source.limits.depth}", where=where
        )
    return {
        entry.name: _item(source, values, entry.address, f"{where}/{entry.name}", depth + 1)
        for entry in entries(source, found, where or "/")
    }
