"""What of a recording was not whole, counted by kind and said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

__all__ = ["Kind", "Trouble"]

Kind = Literal[
    "before_clock",
    "before_address",
    "outside",
    "unknown_words",
    "cut",
    "damaged",
    "lost_bytes",
    "lines",
    "rows",
    "sorted",
    "empty",
]

# One, and several; {n} is the count, {detail} what the reader adds.
_WORDS: dict[Kind, tuple[str, str]] = {
    "before_clock": ("1 event before the clock", "{n} events before the clock"),
    "before_address": ("1 event before its row", "{n} events before their row"),
    "outside": ("1 event outside {detail}", "{n} events outside {detail}"),
    "unknown_words": ("1 word of no known type", "{n} words of no known type"),
    "cut": ("ends inside {detail}", "ends inside {detail}"),
    "damaged": ("1 damaged {detail}", "{n} damaged {detail}s"),
    "lost_bytes": ("1 byte after damage", "{n} bytes after damage"),
    "lines": ("1 line that is no event", "{n} lines that are no events"),
    "rows": ("1 row that is no event", "{n} rows that are no events"),
    "sorted": ("1 late event put in its place", "{n} late events put in their place"),
    "empty": ("no events", "no events"),
}
# What was asked for is no fault, even for a strict reader.
_HARMLESS: frozenset[Kind] = frozenset({"sorted"})


class Trouble:
    """Counts by kind. False while all is whole; its text is the line.

    Attributes:
        counts: how often each kind has come.
    """

    def __init__(self) -> None:
        self.counts: dict[Kind, int] = {}
        self._details: dict[Kind, str] = {}

    def add(self, kind: Kind, number: int = 1, detail: str = "") -> None:
        """Counts more of a kind; `detail` fills its sentence, the first one holds."""
        if number > 0:
            self.counts[kind] = self.counts.get(kind, 0) + number
            self._details.setdefault(kind, detail)

    def set(self, kind: Kind, number: int, detail: str = "") -> None:
        """Like `add`, where the reader's count is one since the beginning."""
        self.add(kind, number - self.counts.get(kind, 0), detail)

    def is_fault(self, *, may_be_empty: bool = False) -> bool:
        """Whether a strict reader refuses it; one may take a recording without events."""
        harmless = _HARMLESS | {"empty"} if may_be_empty else _HARMLESS
        return bool(self.counts.keys() - harmless)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __iter__(self) -> Iterator[str]:
        for kind, number in self.counts.items():
            one, several = _WORDS[kind]
            text = one if number == 1 else several
            yield text.format(n=f"{number:,}", detail=self._details[kind])

    def __str__(self) -> str:
        return ", ".join(self)
