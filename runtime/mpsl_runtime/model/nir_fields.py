"""What each type of NIR node holds, field by field, and how it becomes a `nir` node.

NIR's own constructors trust their arguments. Here every field is held against a small table first:
a node that passes is one that they build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, shortened

__all__ = ["SUPPORTED_TYPES", "node_of"]

Array = NDArray[Any]
# What a stride, a padding or a size can be at most; sizes of signals have limits of their own.
_LARGEST_WHOLE = 1 << 31


@dataclass(frozen=True)
class _Field:
    """One field of a node.

    Attributes:
        read: makes the value of what the file has; arguments are value, name and place.
        optional: nodes without it get None.
    """

    read: Callable[[object, str, str], Any]
    optional: bool = False


def _numbers(fewest: int, most: int) -> Callable[[object, str, str], Array]:
    """Numbers in `fewest` … `most` dimensions."""

    def read(value: object, name: str, where: str) -> Array:
        array = _array(value, name, where)
        if not fewest <= array.ndim <= most:
            raise ModelError(
                f"{name} has the wrong form",
                got=f"{array.dtype} {array.shape}",
                expected=f"numbers in {fewest} dimensions" if fewest == most else "numbers",
                where=where,
            )
        return array

    return read


def _array(value: object, name: str, where: str) -> Array:
    if isinstance(value, dict):
        raise ModelError(f"{name} has the wrong form", got="a group", where=where)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not array.size:
        got = repr(value) if isinstance(value, str) else f"{array.dtype} {array.shape}"
        raise ModelError(f"{name} is not a number", got=got, expected="numbers", where=where)
    return array


def _whole(value: object, name: str, where: str) -> int:
    """One whole number."""
    array = _array(value, name, where)
    if array.dtype.kind not in "iu" or array.size != 1:
        raise ModelError(
            f"{name} is not a whole number",
            got=f"{array.dtype} {array.shape}",
            expected="one whole number",
            where=where,
        )
    found = int(array.item())
    if abs(found) > _LARGEST_WHOLE:
        raise ModelError(f"{name} is out of range", got=found, where=where)
    return found


def _pair(value: object, name: str, where: str) -> Array:
    """One or two whole numbers; some programs write them as floats."""
    array = _array(value, name, where)
    if array.dtype.kind == "b" or array.size > 2 or array.ndim > 1:
        raise ModelError(
            f"{name} is not a pair of whole numbers",
            got=f"{array.dtype} {array.shape}",
            expected="two whole numbers",
            where=where,
        )
    numbers = [part.item() for part in array.reshape(-1)]
    for number in numbers:
        if not abs(number) <= _LARGEST_WHOLE or number != int(number):  # also NaN
            raise ModelError(f"{name} is not a pair of whole numbers", got=number, where=where)
    return np.array(numbers, np.int64).reshape(array.shape)


def _pair_or_word(value: object, name: str, where: str) -> Array | str:
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise ModelError(
                f"{name} is not known", got=repr(value), expected="same, valid, or numbers",
                where=where,
            )  # fmt: skip
        return value
    return _pair(value, name, where)


def _one(value: object, name: str, where: str) -> int:
    """One whole number, which may come as a list of one or as a float."""
    pair = _pair(value, name, where)
    if pair.size != 1:
        raise ModelError(
            f"{name} is not a whole number", got=pair.tolist(), expected="one number", where=where
        )
    return int(pair.item())


def _one_or_word(value: object, name: str, where: str) -> int | str:
    return (
        str(_pair_or_word(value, name, where))
        if isinstance(value, str)
        else _one(value, name, where)
    )


def _sizes(value: object, name: str, where: str) -> Array:
    """A shape: a list of whole numbers. How many and how large is the plan's matter.

    Some programs write {input: shape}.
    """
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    array = _array(value, name, where)
    if array.dtype.kind not in "iu" or array.ndim != 1 or array.size > _MOST_SIZES:
        raise ModelError(
            f"{name} is not a shape",
            got=f"{array.dtype} {array.shape}",
            expected="a list of whole numbers",
            where=where,
        )
    return array


_MOST_SIZES = 8
# Of the names that NIR does not know: a stranger may have written thousands.
_SHOWN = 4
_WEIGHT = {"weight": _Field(_numbers(2, 2))}
_POOLING = {key: _Field(_pair) for key in ("kernel_size", "stride", "padding")}


def _neurons(*names: str) -> dict[str, _Field]:
    return {name: _Field(_numbers(0, 8), optional=name in ("v_reset", "w_in")) for name in names}


_FIELDS: dict[str, dict[str, _Field]] = {
    "Affine": {**_WEIGHT, "bias": _Field(_numbers(1, 1))},
    "AvgPool2d": _POOLING,
    "Conv2d": {
        "input_shape": _Field(_pair, optional=True),
        "weight": _Field(_numbers(4, 4)),
        "stride": _Field(_pair),
        "padding": _Field(_pair_or_word),
        "dilation": _Field(_pair),
        "groups": _Field(_whole),
        "bias": _Field(_numbers(1, 1), optional=True),
    },
    "Conv1d": {
        "input_shape": _Field(_whole, optional=True),
        "weight": _Field(_numbers(3, 3)),
        "stride": _Field(_one),
        "padding": _Field(_one_or_word),
        "dilation": _Field(_one),
        "groups": _Field(_whole),
        "bias": _Field(_numbers(1, 1), optional=True),
    },
    "CubaLI": _neurons("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": _neurons("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "Delay": {"delay": _Field(_numbers(0, 8))},
    "Flatten": {
        "start_dim": _Field(_whole),
        "end_dim": _Field(_whole),
        "input_type": _Field(_sizes, optional=True),
    },
    "I": _neurons("r"),
    "IF": _neurons("r", "v_threshold", "v_reset"),
    "Input": {"shape": _Field(_sizes)},
    "LI": _neurons("tau", "r", "v_leak"),
    "LIF": _neurons("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "Linear": _WEIGHT,
    "Output": {"shape": _Field(_sizes)},
    "Scale": {"scale": _Field(_numbers(0, 8))},
    "SumPool2d": _POOLING,
    "Threshold": {"threshold": _Field(_numbers(0, 8))},
}
_NEURONS = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF")

SUPPORTED_TYPES = frozenset(_FIELDS)
"""The node types that the engine runs, by their NIR names."""


def node_of(
    kind: str, values: Mapping[str, object], where: str, notes: list[str] | None = None
) -> nir.NIRNode:
    """The NIR node of a type and what a file has under its name.

    Args:
        kind: one of `SUPPORTED_TYPES`.
        values: arrays, text and groups, without `type`. where: node and file, for messages.
        notes: takes a line for what NIR does not know, which is left alone.

    Raises:
        ModelError: a field is absent or not what its node needs; it is named.
    """
    table = _FIELDS[kind]
    fields: dict[str, Any] = {}
    for name, field in table.items():
        if name in values:
            fields[name] = field.read(values[name], name, where)
        elif not field.optional:
            raise ModelError(f"{kind} lacks {name}", expected=", ".join(table), where=where)
    unknown = sorted(set(values) - set(table) - {"metadata"})
    if unknown and notes is not None:
        names = ", ".join(shortened(name, 40) for name in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        notes.append(f"{kind} has {names}{more}, which NIR does not know: left alone")
    metadata = values.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ModelError("metadata is not a group", where=where)
    fields["metadata"] = metadata
    return _built(kind, fields, where)


def _built(kind: str, fields: dict[str, Any], where: str) -> nir.NIRNode:
    if kind in _NEURONS:
        _check_shapes(kind, fields, where)
    elif kind == "Input":
        fields["input_type"] = {"input": fields.pop("shape")}
    elif kind == "Output":
        fields["output_type"] = {"output": fields.pop("shape")}
    elif kind == "Flatten":
        stated = fields.pop("input_type", None)
        _check_flatten(fields, stated, where)
        fields["input_type"] = {"input": stated}
    elif kind in ("Conv1d", "Conv2d"):
        # Given a shape, nir computes another from it before any check, and for square kernels only.
        stated = fields.pop("input_shape", None)
        node = getattr(nir, kind)(**{"bias": None, **fields}, input_shape=None)
        node.input_shape = stated
        return node
    return getattr(nir, kind)(**fields)


def _check_shapes(kind: str, fields: dict[str, Any], where: str) -> None:
    """All arrays of a neuron get one shape: that of the largest. The others may be a single number,
    or have ones where it has more: a number for each channel."""
    names = [name for name in fields if name != "metadata"]
    first = max(names, key=lambda name: (fields[name].size, fields[name].ndim))
    shape = fields[first].shape
    for name in names:
        value = fields[name]
        if value.size == 1:
            value = value.reshape(())
        elif value.ndim != len(shape) or any(
            size not in (1, full) for size, full in zip(value.shape, shape, strict=True)
        ):
            raise ModelError(
                f"{name} has another shape than {first}",
                got=list(value.shape),
                expected=list(shape),
                where=where,
            )
        if value.shape != shape:
            # A view: nothing grows.
            fields[name] = np.broadcast_to(value, shape)


def _check_flatten(fields: Mapping[str, int], stated: Array | None, where: str) -> None:
    """Where the input is known, both dimensions are among its own, in their order."""
    if stated is None:
        return
    first, last = (
        value + stated.size * (value < 0) for value in (fields["start_dim"], fields["end_dim"])
    )
    if not 0 <= first <= last < stated.size:
        raise ModelError(
            "Flatten has dimensions that its input lacks",
            got=f"start_dim {fields['start_dim']}, end_dim {fields['end_dim']}",
            expected=f"of {stated.size} dimensions",
            where=where,
        )
