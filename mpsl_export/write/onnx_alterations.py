"""Holds an ONNX file against the one that the exporter writes: every field of every message.

Domains, local functions, opset, version, declared inputs and outputs, order of nodes, attributes,
constants and metadata alike: what a runtime might read is compared, known to mpsl or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpsl_export.write.alteration import Alteration, array_alterations, metadata_alterations, shown
from mpsl_export.write.onnx_file import constants_of
from mpsl_runtime.errors import ModelError

__all__ = ["onnx_alterations"]

# So that a hostile file is one page at most.
_MOST = 20
_DEEPEST = 12


def onnx_alterations(expected: Any, got: Any, path: Path) -> list[Alteration]:
    """One line for each thing that differs; empty for an honest export.

    Args:
        expected, got: `onnx.ModelProto`, of the exporter and of the file at `path`.

    Raises:
        ModelError: a constant that is damaged, or kept in another file.
    """
    constants_of(got, path)
    if any(entry.key == "mpsl" and entry.value == "1" for entry in got.metadata_props):
        expected = _version_1(expected)
    found: list[Alteration] = []
    for alteration in _message(expected, got, "", 0):
        found.append(alteration)
        if len(found) == _MOST:
            found.append(Alteration("", "… and more", runs=False))
            return found
    if not found and expected.SerializeToString(deterministic=True) != got.SerializeToString(
        deterministic=True
    ):
        found.append(Alteration("model", "has fields that ONNX does not know", runs=False))
    return found


def _version_1(model: Any) -> Any:
    """What the exporter wrote for the same network when metadata said `dt` for `dt_s`."""
    older = type(model)()
    older.CopyFrom(model)
    for entry in older.metadata_props:
        if entry.key == "dt_s":
            entry.key = "dt"
        elif entry.key == "mpsl":
            entry.value = "1"
    return older


def _message(expected: Any, got: Any, place: str, depth: int) -> Iterator[Alteration]:
    """Differences of two messages of one type, field by field."""
    if depth > _DEEPEST:
        yield Alteration(place, "is nested too deeply", runs=False)
        return
    if type(expected).__name__ == "TensorProto" and expected.name == got.name:
        yield from _tensor(expected, got, place)
        return
    values = [{d.name: value for d, value in m.ListFields()} for m in (expected, got)]
    for name in {**values[0], **values[1]}:
        one, other = (side.get(name) for side in values)
        known = other if one is None else one
        if name == "metadata_props" and not place:
            yield from _metadata(expected.metadata_props, got.metadata_props)
        elif isinstance(known, str | bytes | int | float):
            if one != other:
                text = f"{name} is {_value(other)} instead of {_value(one)}"
                yield Alteration(place or "model", text, runs=False)
        elif not hasattr(known, "ListFields"):
            yield from _repeated(place, name, list(one or ()), list(other or ()), depth)
        elif one is None or other is None:
            word = "lacks" if other is None else "has"
            yield Alteration(place or "model", f"{word} {name}", runs=False)
        else:
            yield from _message(one, other, _below(place, name, other), depth + 1)


def _metadata(expected: Any, got: Any) -> Iterator[Alteration]:
    found = list(
        metadata_alterations(
            "", *({entry.key: entry.value for entry in e} for e in (expected, got))
        )
    )
    yield from found
    if not found and [*map(str, expected)] != [*map(str, got)]:
        yield Alteration("metadata", "has another order, or an entry twice", runs=False)


def _repeated(
    place: str, name: str, expected: list[Any], got: list[Any], depth: int
) -> Iterator[Alteration]:
    """Differences of two lists, in order."""
    if not hasattr((*expected, *got)[0], "ListFields"):
        if expected != got:
            one, other = (shown([*map(_value, items)]) for items in (expected, got))
            text = f"{name} is {other} instead of {one}"
            yield Alteration(place or "model", text, runs=False)
        return
    names = [[_label(item) for item in items] for items in (expected, got)]
    if names[0] != names[1]:
        at = next(
            (i for i, (a, b) in enumerate(zip(*names, strict=False)) if a != b),
            min(len(expected), len(got)),
        )
        one, other = (side[at] if at < len(side) else "nothing" for side in names)
        item = expected[at] if at < len(expected) else got[at]
        text = f"{name} {at} of {place or 'model'} is {other} instead of {one}"
        yield Alteration(_below(place, name, item), text, runs=False)
        return
    for one, other in zip(expected, got, strict=True):
        yield from _message(one, other, _below(place, name, other), depth + 1)


def _tensor(expected: Any, got: Any, place: str) -> Iterator[Alteration]:
    """Constants: by value where the type and shape are those of the exporter."""
    from onnx import numpy_helper

    node, _, name = expected.name.rpartition(".")
    same = [*expected.dims] == [*got.dims] and expected.data_type == got.data_type
    names = [[d.name for d, _ in tensor.ListFields()] for tensor in (expected, got)]
    if not same or names[0] != names[1]:
        kinds = [
            f"{_described(t)} in {', '.join(n)}"
            for t, n in zip((expected, got), names, strict=True)
        ]
        text = f"{shown(name)} is {kinds[1]} instead of {kinds[0]}"
        yield Alteration(node or place, text, runs=False)
        return
    try:
        arrays = [numpy_helper.to_array(tensor) for tensor in (expected, got)]
    except Exception as error:  # onnx answers damage with errors of every kind
        raise ModelError("damaged model file", got=error, where=place) from error
    found = list(array_alterations(node or place, name, *arrays))
    yield from found
    if not found and expected != got:
        yield Alteration(shown(place), "is stored in another way", runs=False)


def _described(tensor: Any) -> str:
    from onnx import TensorProto

    kinds = {value: key for key, value in TensorProto.DataType.items()}
    return f"{kinds.get(tensor.data_type, tensor.data_type)} {[*tensor.dims]}"


def _below(place: str, name: str, message: Any) -> str:
    """Where a message is: in the node of the NIR graph that it is named after (`n02_lif.drop`), or
    else in its field."""
    output = getattr(message, "output", ())
    own = getattr(message, "name", "") or (output[0] if output else "")
    if isinstance(own, str) and own:
        return shown(own.rpartition(".")[0] or own)
    return f"{place} {name}" if place else name


def _label(item: Any) -> str:
    """What an item of a list is called; lists of the same labels are compared item by item."""
    kind, domain = getattr(item, "op_type", ""), getattr(item, "domain", "")
    inside = f"{domain}::{kind}" if domain and kind else kind or domain
    own = getattr(item, "name", "") or getattr(item, "key", "")
    if kind:
        flow = f"({', '.join(item.input)}) → {', '.join(item.output)}"
        return shown(f"{inside}{flow}")
    return shown(own or inside or type(item).__name__)


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    return shown(f"{len(value)} bytes" if isinstance(value, bytes) and len(value) > 40 else value)
