"""Holds a `.nir` file against the one that the exporter writes: every field and all metadata.

Both are compared as they lie in HDF5, not as networks: a file whose time constant and time step
were scaled together runs as before here, and otherwise elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpsl_export.write.alteration import (
    Alteration,
    array_alterations,
    shown,
)
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.metadata import STREAM_LIMITS
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.seal import SEAL_KEYS, broken_parts

__all__ = ["nir_alterations"]

_NODES = "node/nodes/"
_EDGES = "node/edges"
_METADATA = "node/metadata/"
# Chosen after the export (the loader has checked that they can be), and the seal over all.
_APART = {f"{_METADATA}{name}" for name in (*STREAM_LIMITS, *SEAL_KEYS)}


def nir_alterations(path: Path, content: bytes, plan: Plan) -> list[Alteration]:
    """One line for each thing that differs, bit for bit; empty for an honest export.

    Args:
        path: a file that may be anything. content: what the exporter writes; plan: of that.

    Raises:
        ModelError: the file is damaged, or no network that the engine runs.
    """
    # Read by the loader first: what follows trusts the sizes that a file declares.
    runs = _form(load_plan(path)) == _form(plan)
    with h5py.File(io.BytesIO(content), "r") as file:
        expected = dict(_leaves(file))
    try:
        with h5py.File(path, "r") as file:
            got = dict(_leaves(file))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError("damaged model file", got=error, where=path) from error
    if got.get(f"{_METADATA}mpsl") == 1:
        expected = _version_1(expected)
    expected = _as_older_nir(_older_terminals(expected, got), got)
    found: list[Alteration] = []
    for key in {**expected, **got}:
        place, name = _place(key)
        if key in _APART:
            continue
        if key not in expected:
            found.append(Alteration(place, f"has {shown(name)} besides", runs))
        elif key not in got:
            found.append(Alteration(place, f"lacks {name}", runs))
        else:
            found += _compared(place, name, expected[key], got[key])
    broken = broken_parts(path)
    if broken is None and f"{_METADATA}probe_seed" in got:
        found.append(Alteration("", "lacks metadata seal", runs))
    elif broken and not found:
        found.append(
            Alteration("", f"metadata seal is not that of {shown(', '.join(broken))}", runs)
        )
    return [Alteration(each.place, each.text, runs and each.runs) for each in found]


def _form(plan: Plan) -> list[tuple[Any, ...]]:
    """What of a plan decides which numbers a program shows of it."""
    return [(type(n).__name__, n.name, n.input_shape, n.output_shape) for n in plan.nodes]


def _leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a file by its path; an HDF5 attribute is a value too, and so is the fact that
    a group is empty."""
    for name, value in group.attrs.items():
        yield f"{prefix}@{name}", value
    if not len(group):
        yield prefix, "an empty group"
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            yield from _leaves(item, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", item[()]
            for key, value in item.attrs.items():
                yield f"{prefix}{name}@{key}", value


def _version_1(leaves: dict[str, Any]) -> dict[str, Any]:
    """What the exporter wrote for the same network when metadata said `dt` for `dt_s`."""
    renamed = {
        key.removesuffix("dt_s") + "dt" if key.endswith("metadata/dt_s") else key: value
        for key, value in leaves.items()
    }
    return {**renamed, f"{_METADATA}mpsl": np.int64(1)}


def _older_terminals(leaves: dict[str, Any], got: Iterable[str]) -> dict[str, Any]:
    """The same network with its terminals numbered like the other nodes, as the exporter once named
    them, where the file has them so."""
    nodes = {key.removeprefix(_NODES).partition("/")[0] for key in leaves if key.startswith(_NODES)}
    last = len(nodes) - 1
    width = max(2, len(str(last)))
    older = {"input": f"n{0:0{width}d}_input", "output": f"n{last:0{width}d}_output"}
    there = {key.removeprefix(_NODES).partition("/")[0] for key in got}
    names = {new: old for new, old in older.items() if old in there and new not in there}
    renamed: dict[str, Any] = {}
    for key, value in leaves.items():
        name, slash, rest = key.removeprefix(_NODES).partition("/")
        if key.startswith(_NODES) and name in names:
            renamed[f"{_NODES}{names[name]}{slash}{rest}"] = value
        elif key == _EDGES:
            ends = [names.get(end, end) for end in (_plain(end) for end in value.reshape(-1))]
            renamed[key] = np.array(ends, object).reshape(value.shape)
        else:
            renamed[key] = value
    return renamed


def _as_older_nir(leaves: dict[str, Any], got: Mapping[str, Any]) -> dict[str, Any]:
    """Without `v_reset`, as `--compat` writes it, where the file has none at all and all are 0."""
    resets = [key for key in leaves if key.startswith(_NODES) and key.endswith("/v_reset")]
    if any(key in got or np.any(leaves[key]) for key in resets):
        return leaves
    return {key: value for key, value in leaves.items() if key not in resets}


def _place(key: str) -> tuple[str, str]:
    """`node/nodes/n02_lif/metadata/decay` is in node n02_lif, its `metadata decay`."""
    if key.startswith(_NODES):
        place, _, name = key.removeprefix(_NODES).partition("/")
        return shown(place), name.rstrip("/").replace("/", " ")
    return "", key.removeprefix("node/").rstrip("/").replace("/", " ")


def _compared(place: str, name: str, expected: Any, got: Any) -> Iterator[Alteration]:
    if isinstance(expected, np.ndarray | np.generic) and isinstance(got, np.ndarray | np.generic):
        one, other = np.asarray(expected), np.asarray(got)
        if one.dtype.kind != "O" and other.dtype.kind != "O" and one.ndim:
            yield from array_alterations(place, name, one, other)
            return
    one_value, other_value = _plain(expected), _plain(got)
    if type(one_value) is not type(other_value) or one_value != other_value:
        text = f"{name} is {shown(other_value)} instead of {shown(one_value)}"
        yield Alteration(place, text, runs=True)


def _plain(value: Any) -> Any:
    """Text as text, numbers with their type, arrays of text as lists."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value] if value.ndim else _plain(value[()])
    return value
