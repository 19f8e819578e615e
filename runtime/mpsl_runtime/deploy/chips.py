"""A chip's limits, read from one TOML file: adding a chip is adding a file.

name = "made"                     what --target says
title = "A made chip"
notes = ["what no limit says"]    printed; may be left out

[[limit]]                         one for each limit
measure = "neurons"               a key of `demands.MEASURES`
most = 512                        or `least`, or `allowed = [1, 2]`
source = "https://…"              where the limit is published
mend = "fewer neurons"            what would mend it

[cores]                           where layers are placed on cores; may be left out
assignment = "matching"           one core a layer, each with its own memory,
kernel_ki = [16, 64]              in Ki entries (1,024), and
neuron_ki = [64, 16]
source = "…"
mend = "…"

[cores]
assignment = "split"              or a layer on as many equal cores as it needs
count = 128
each = { neurons = 8192 }         most of `neurons` or `bytes` on one core
…
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mpsl_runtime.deploy.demands import MEASURES
from mpsl_runtime.errors import DataError, UsageError

__all__ = ["Chip", "Cores", "Limit", "find_chips", "known_chips", "read_chip"]

_FOLDER = Path(__file__).resolve().parent / "chips"
_LARGEST_FILE = 1 << 20
_LARGEST = 1 << 50


@dataclass(frozen=True)
class Limit:
    """One published limit: `most`, `least` or `allowed` of a measure."""

    measure: str
    source: str
    mend: str
    most: int | None = None
    least: int | None = None
    allowed: tuple[int | str, ...] = ()

    def takes(self, value: int | str) -> bool:
        """Whether a value is within the limit."""
        if self.allowed:
            return value in self.allowed
        if isinstance(value, str):
            return False
        return (self.most is None or value <= self.most) and (
            self.least is None or value >= self.least
        )

    @property
    def text(self) -> str:
        """`≤ 64`, `≥ 1`, or `1, 2 or 4`."""
        if self.allowed:
            *head, last = [_number(value) for value in self.allowed]
            return f"{', '.join(head)} or {last}" if head else last
        return f"≤ {_number(self.most)}" if self.most is not None else f"≥ {_number(self.least)}"


@dataclass(frozen=True)
class Cores:
    """How layers are placed on cores.

    Attributes:
        assignment: `matching`, a core takes one whole layer; `split`, a layer takes equal cores.
        kernel_ki, neuron_ki: memory of each core in Ki entries (`matching`).
        count: of equal cores (`split`). each: most `neurons` and `bytes` of one.
    """

    assignment: Literal["matching", "split"]
    source: str
    mend: str
    kernel_ki: tuple[int, ...] = ()
    neuron_ki: tuple[int, ...] = ()
    count: int = 0
    each: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Chip:
    """What one TOML file says."""

    name: str
    title: str
    limits: tuple[Limit, ...]
    cores: Cores | None
    notes: tuple[str, ...]


def known_chips() -> dict[str, Path]:
    """The chips that come with the package, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_chips(target: str) -> list[Chip]:
    """The chips that `--target` names.

    Args:
        target: names joined by commas, `all`, or the path of a chip's TOML file.

    Raises:
        UsageError: no such chip; names those that there are. DataError: a file that is no chip.
    """
    known = known_chips()
    if target == "all":
        return [read_chip(path) for path in known.values()]
    chips = []
    for name in target.split(","):
        path = known.get(name, Path(name) if name.endswith(".toml") else None)
        if path is None:
            raise UsageError(
                "no such chip",
                got=name,
                expected=f"{', '.join(known)}, all, or a chip's .toml file",
                where="--target",
            )
        chips.append(read_chip(path))
    return chips


def read_chip(path: Path) -> Chip:
    """Reads one chip.

    Raises:
        DataError: the file is absent, no TOML, or says something that this module does not know.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise DataError("chip file is too large", expected="≤ 1 MiB", where=path)
        data = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise DataError("cannot read chip file", got=error.strerror, where=path) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number too long
        raise DataError("chip file is no TOML", got=error, where=path) from error
    fields = _Fields(data, str(path))
    chip = Chip(
        name=fields.text("name"),
        title=fields.text("title"),
        limits=tuple(_limit(_Fields(row, f"limit {i + 1} of {path}"))
                     for i, row in enumerate(fields.tables("limit"))),
        cores=_cores(_Fields(data["cores"], f"cores of {path}")) if "cores" in data else None,
        notes=fields.texts("notes"),
    )  # fmt: skip
    fields.no_others("name", "title", "limit", "cores", "notes")
    return chip


def _limit(fields: _Fields) -> Limit:
    measure = fields.text("measure")
    if measure not in MEASURES:
        raise fields.error("measure is not known", measure, ", ".join(MEASURES))
    bounds = [key for key in ("most", "least", "allowed") if fields.has(key)]
    if len(bounds) != 1:
        raise fields.error("limit has no one bound", ", ".join(bounds), "most, least or allowed")
    fields.no_others("measure", "source", "mend", *bounds)
    return Limit(
        measure=measure,
        source=fields.text("source"),
        mend=fields.text("mend"),
        most=fields.whole("most") if "most" in bounds else None,
        least=fields.whole("least") if "least" in bounds else None,
        allowed=fields.values("allowed") if "allowed" in bounds else (),
    )


def _cores(fields: _Fields) -> Cores:
    assignment, source, mend = (fields.text(key) for key in ("assignment", "source", "mend"))
    if assignment == "matching":
        kernel, neuron = fields.wholes("kernel_ki"), fields.wholes("neuron_ki")
        if len(kernel) != len(neuron):
            raise fields.error("lists differ", f"{len(kernel)} and {len(neuron)}", "one length")
        fields.no_others("assignment", "source", "mend", "kernel_ki", "neuron_ki")
        return Cores("matching", source, mend, kernel_ki=kernel, neuron_ki=neuron)
    if assignment != "split":
        raise fields.error("assignment is not known", assignment, "matching or split")
    each = fields.table("each")
    each.no_others("neurons", "bytes")
    most = tuple((key, each.whole(key)) for key in ("neurons", "bytes") if each.has(key))
    if not most or 0 in dict(most).values():
        raise fields.error("cores have no bound", "each = {}", "each = { neurons = 8192 }")
    fields.no_others("assignment", "source", "mend", "count", "each")
    return Cores("split", source, mend, count=fields.whole("count"), each=most)


class _Fields:
    """The keys of one table, each checked as it is taken."""

    def __init__(self, data: Any, where: str) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise self.error("not a table", type(data).__name__, "a table of keys")
        self.data = data

    def error(self, what: str, got: object, expected: str) -> DataError:
        """What is wrong, in this table."""
        return DataError(what, got=got, expected=expected, where=self.where)

    def has(self, key: str) -> bool:
        """Whether a key is there."""
        return key in self.data

    def no_others(self, *known: str) -> None:
        """Refuses a key that nobody takes: most likely it is misspelt."""
        unknown = sorted(set(self.data) - set(known))
        if unknown:
            raise self.error("key is not known", unknown[0], ", ".join(known))

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.data.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"{key} is missing or no text", value, f'{key} = "…"')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty where the key is missing."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key} is no list of texts", value, f'{key} = ["…"]')
        return tuple(value)

    def whole(self, key: str) -> int:
        """A whole number ≥ 0."""
        value = self.data.get(key)
        if not isinstance(value, int) or not _is_whole(value):
            raise self.error(f"{key} is no whole number", value, f"{key} = 512")
        return value

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers ≥ 0, not empty. Matching calls itself once for each core at most:
        512 are far below Python's depth."""
        value = self.data.get(key)
        if not isinstance(value, list) or not 0 < len(value) <= 512:
            raise self.error(f"{key} is no list of 1 … 512 numbers", value, f"{key} = [16, 64]")
        if not all(_is_whole(item) for item in value):
            raise self.error(f"{key} holds no whole numbers", value, f"{key} = [16, 64]")
        return tuple(value)

    def values(self, key: str) -> tuple[int | str, ...]:
        """A list of whole numbers and texts, not empty."""
        value = self.data.get(key)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(item, str) or _is_whole(item) for item in value)
        ):
            raise self.error(f"{key} is no list of numbers or texts", value, f"{key} = [1, 2]")
        return tuple(value)

    def tables(self, key: str) -> list[Any]:
        """A list of tables, empty where the key is missing."""
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self.error(f"{key} is no list of tables", value, f"[[{key}]]")
        return value

    def table(self, key: str) -> _Fields:
        """A table in this one."""
        return _Fields(self.data.get(key), f"{key} of {self.where}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _number(value: int | str | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
