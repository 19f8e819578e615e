"""What columns of events are called by those who write them, and in which unit their time is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mpsl_runtime.events.options import TimeUnit

__all__ = ["EXPONENTS", "LARGEST_US", "Naming", "naming_of"]

EXPONENTS: dict[TimeUnit, int] = {"s": 6, "ms": 3, "us": 0, "ns": -3}
"""Powers of ten from a unit to microseconds."""
LARGEST_US = 10**17
"""Some 3,000 years: larger numbers are no microseconds, but nanoseconds."""

_NAMES = {
    **dict.fromkeys(("t", "ts", "time", "timestamp", "timestamps"), "t"),
    **dict.fromkeys(("x", "xs", "col", "column"), "x"),
    **dict.fromkeys(("y", "ys", "row"), "y"),
    **dict.fromkeys(("p", "ps", "pol", "polarity", "polarities", "on", "sign"), "p"),
}
_UNITS: dict[str, TimeUnit] = {
    "s": "s",
    "sec": "s",
    "seconds": "s",
    "ms": "ms",
    "us": "us",
    "µs": "us",
    "ns": "ns",
}
# timestamp, t_us, time [µs], "t (s)", x@640
_NAME = re.compile(r"([a-z]+?)(?:[ _]*[\[(]?(s|sec|seconds|ms|us|µs|ns)[\])]?)?(?:@(\d{1,5}))?")


@dataclass(frozen=True)
class Naming:
    """What names say.

    Attributes:
        letters: `t`, `x`, `y`, `p` or `-`, one a name.
        unit: of time, where a name has it.
        size: (width, height) of the sensor, where names have it (faery's `x@640`).
    """

    letters: str
    unit: TimeUnit | None
    size: tuple[int, int] | None


def naming_of(names: Sequence[str]) -> Naming | None:
    """What the names of columns say; None where t, x, y and p are not there once each."""
    letters = ""
    unit: TimeUnit | None = None
    sizes: dict[str, int] = {}
    for name in names:
        text = name.strip().lower()
        match = _NAME.fullmatch(text)
        letter = _NAMES.get(text) or (_NAMES.get(match[1]) if match else None) or "-"
        letters += letter
        if match and letter == "t" and text not in _NAMES and match[2]:
            unit = _UNITS[match[2]]
        if match and match[3]:
            sizes[letter] = int(match[3])
    if sorted(letters.replace("-", "")) != ["p", "t", "x", "y"]:
        return None
    size = (sizes["x"], sizes["y"]) if sizes.keys() >= {"x", "y"} else None
    return Naming(letters, unit, size)
