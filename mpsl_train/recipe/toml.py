"""TOML of strangers in, plain values out, within limits; and plain values as TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import RecipeError

__all__ = ["parse_toml", "read_toml", "to_toml"]

_LARGEST_BYTES = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        RecipeError: it cannot be read, is larger than 1 MiB, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("recipe cannot be read", got=error, where=path) from error
    if len(content) > _LARGEST_BYTES:
        raise RecipeError("recipe cannot be read", got="more than 1 MiB", where=path)
    return parse_toml(text, path)


def parse_toml(text: str, where: object) -> dict[str, Any]:
    """The values of TOML text; `where` it came from is for the message.

    Raises:
        RecipeError: it is no TOML, is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError("recipe is nested too deeply", where=where) from None
    except ValueError as error:  # of tomllib, or of int() for a number of thousands of digits
        raise RecipeError("recipe cannot be read", got=error, where=where) from error


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Plain values as TOML: keys first, then one table for each nested mapping."""
    lines = [f"{key} = {_scalar(value)}" for key, value in values.items()
             if not isinstance(value, Mapping)]  # fmt: skip
    text = "\n".join(lines) + "\n"
    for key, value in values.items():
        if isinstance(value, Mapping):
            text += f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}.")
    return text


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too; of the characters that TOML wants escaped, JSON lacks one.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    return repr(value)
