"""Prometheus' text format, version 0.0.4: one family of samples after another, as lines.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CONTENT_TYPE", "Family", "Kind", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]


@dataclass
class Family:
    """The samples of one metric.

    Attributes:
        name: with its unit; a counter's ends in `_total`. help: one sentence.
        samples: (suffix, labels, value) in the order in which they are written.
    """

    name: str
    kind: Kind
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """One sample."""
        self.samples.append(("", labels, value))

    def add_histogram(
        self, below: Iterable[tuple[float, int]], count: int, total: float, **labels: str
    ) -> None:
        """The samples of a histogram.

        Args:
            below: (bound, how many were not above it), ascending. count: of all.
            total: their sum.
        """
        for bound, number in below:
            # Counted meanwhile by another thread: a bucket never exceeds the one of all.
            self.samples.append(("_bucket", {**labels, "le": _number(bound)}, min(number, count)))
        self.samples.append(("_bucket", {**labels, "le": "+Inf"}, count))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, count))


def exposition(families: Iterable[Family]) -> bytes:
    """The families as text; those without samples are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            pairs = ",".join(f'{key}="{_quoted(text)}"' for key, text in labels.items())
            braces = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{family.name}{suffix}{braces} {_number(value)}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # bytes of names that are no text
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
