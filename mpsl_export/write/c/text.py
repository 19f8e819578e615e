"""Templates, and numbers and arrays as C writes them."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array", "comment", "fill", "number", "quoted", "type_of"]

_WIDTH = 100
_INTEGERS = (
    ("uint8_t", 0, 255),
    ("int8_t", -128, 127),
    ("uint16_t", 0, 65535),
    ("int16_t", -32768, 32767),
    ("int32_t", -(2**31), 2**31 - 1),
)


def fill(template: str, **values: Any) -> str:
    """A template of this room with its `$names` put in.

    A line that holds nothing but a name falls away where its value is empty; a value of several
    lines is indented as the line of its name.
    """
    lines = []
    for line in _template(template).splitlines():
        alone = re.fullmatch(r"( *)\$\{?(\w+)\}?", line)
        if alone is None:
            lines.append(Template(line).substitute(values))
        elif value := str(values[alone[2]]):
            lines += [f"{alone[1]}{part}".rstrip() for part in value.splitlines()]
    return "\n".join(lines) + "\n"


@cache
def _template(name: str) -> str:
    return (Path(__file__).with_name("templates") / name).read_text("utf-8")


def type_of(low: int, high: int, *, signed: bool = False) -> str:
    """The narrowest integer type that holds everything from `low` to `high`."""
    return next(
        name
        for name, least, most in _INTEGERS
        if least <= low and high <= most and not (signed and name[0] == "u")
    )


def number(value: Any) -> str:
    """A number as a literal: of a float32 the shortest text that is read back as it."""
    if isinstance(value, np.floating | float):
        text = str(np.float32(value))
        if not math.isfinite(float(value)):
            raise ValueError(f"{text} is no literal")
        text = text if re.search(r"[.e]", text) else f"{text}.0"
        return f"{text}f"
    return str(int(value))


def array(ctype: str, name: str, values: NDArray[Any]) -> str:
    """`static const` and the values; of two dimensions a row for each of the first."""
    sizes = "".join(f"[{size}]" for size in values.shape)
    literals = number if values.dtype.kind == "f" else str
    if values.ndim == 1:
        body = _wrapped([literals(value) for value in _plain(values)], "    ")
    else:
        body = ",\n".join(
            "    {" + _wrapped([literals(v) for v in _plain(row)], "     ").lstrip() + "}"
            for row in values
        )
    return f"static const {ctype} {name}{sizes} = {{\n{body}\n}};\n"


def _plain(values: NDArray[Any]) -> list[Any]:
    # float32 keeps its type, whose shortest text is wanted; integers print fastest as Python's.
    return list(values) if values.dtype.kind == "f" else values.tolist()


def _wrapped(items: list[str], indent: str) -> str:
    lines: list[str] = []
    line: list[str] = []
    width = len(indent)
    for item in items:
        if line and width + len(item) + 2 > _WIDTH:
            lines.append(indent + ", ".join(line))
            line, width = [], len(indent)
        line.append(item)
        width += len(item) + 2
    lines.append(indent + ", ".join(line))
    return ",\n".join(lines)


def comment(text: str) -> str:
    """Any text so that it can stand in a comment: printable ASCII, and not its end."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = re.sub(r"[\x00-\x1f\x7f]", "?", plain)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").rstrip("\\")


def quoted(text: str) -> str:
    """Any text as a string literal, its bytes in UTF-8."""
    return '"' + "".join(_escaped(byte) for byte in text.encode("utf-8", "replace")) + '"'


def _escaped(byte: int) -> str:
    letter = chr(byte)
    if letter in '"\\?' or not 32 <= byte < 127:
        return f"\\{byte:03o}"
    return letter
