"""JSON of a file that may be anything, within limits: what passes can be computed and printed.

Numbers are finite and text has a UTF-8 form; nesting and size have a bound.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["LARGEST_JSON_BYTES", "check_document", "parse_json"]

LARGEST_JSON_BYTES = 16 << 20
"""A report of ours has some kilobytes."""

_DEEPEST = 32
_LARGEST_INTEGER = 1 << 63


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: it is damaged, or beyond the limits above.
    """
    if len(content) > LARGEST_JSON_BYTES:
        raise ValueError(f"{len(content):,} bytes of JSON, more than {LARGEST_JSON_BYTES:,}")
    try:
        value = json.loads(content, parse_constant=_no_constant)
        check_document(value)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def check_document(value: Any, depth: int = 0) -> None:
    """Holds a parsed document, of TOML too, to the limits above; raises ValueError."""
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate has no UTF-8 form: UnicodeEncodeError
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("number is beyond what float64 holds")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ValueError("number is beyond what int64 holds")
    elif isinstance(value, list):
        for part in value:
            check_document(part, depth + 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            check_document(key, depth + 1)
            check_document(part, depth + 1)
