"""Metadata of a file that may be anything -> a dataclass, strictly typed and within bounds.

What a field may be follows from its type: `int`, `float`, `str`, or a `Literal` of words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np

from mpsl_runtime.errors import ModelError, plain

__all__ = ["Bounds", "plain_value", "read_fields"]

Bounds = Mapping[str, tuple[float, float]]
"""Smallest and largest of a number, by field."""

Forms = Mapping[str, tuple[re.Pattern[str], str]]
"""What a text must look like, by field, and that in words; every text must be printable."""

_LONGEST_TEXT = 1 << 16
_hints = cache(get_type_hints)


def plain_value(value: Any) -> Any:
    """HDF5 hands back numpy scalars and bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.size == 1 else value


def read_fields(
    cls: type,
    data: Mapping[str, Any],
    where: str,
    bounds: Bounds | None = None,
    forms: Forms | None = None,
) -> Any:
    """Builds the dataclass `cls` from a mapping; unknown keys are left alone.

    Raises:
        ModelError: a key is missing, of another type, or not one of its words; a number out of
            bounds, a text of another form.
    """
    values: dict[str, Any] = {}
    for field in fields(cls):
        if field.name not in data:
            if field.default is not MISSING:
                continue
            raise ModelError(
                f"metadata lacks {field.name!r}",
                expected="all keys of the mpsl encoding",
                where=where,
            )
        value: Any = plain_value(data[field.name])
        hint = _hints(cls)[field.name]
        words = get_args(hint) if get_origin(hint) is Literal else ()
        kind: tuple[type, ...] = {int: (int,), float: (int, float)}.get(hint, (str,))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(
                f"metadata {field.name!r} has the wrong type",
                got=repr(value),
                expected=str(field.type),
                where=where,
            )
        if words and value not in words:
            raise ModelError(
                f"metadata {field.name!r} is not known",
                got=repr(value),
                expected=" or ".join(words),
                where=where,
            )
        _check(field.name, value, where, bounds or {}, forms or {})
        values[field.name] = float(cast(float, value)) if float in kind else value
    return cls(**values)


def _check(name: str, value: Any, where: str, bounds: Bounds, forms: Forms) -> None:
    """A number within its bounds, or a text of its form."""
    if name in bounds:
        low, high = bounds[name]
        if not low <= value <= high:  # NaN too
            raise ModelError(
                f"metadata {name!r} is out of range",
                got=value,
                expected=f"{low} … {high}",
                where=where,
            )
    if not isinstance(value, str):
        return
    if len(value) > _LONGEST_TEXT or plain(value) != value:
        raise ModelError(
            f"metadata {name!r} is no plain text",
            got=value,
            expected=f"printable characters, ≤ {_LONGEST_TEXT}",
            where=where,
        )
    form, words = forms.get(name, (None, ""))
    if form is not None and not form.fullmatch(value):
        raise ModelError(
            f"metadata {name!r} cannot be read", got=repr(value), expected=words, where=where
        )
