"""Events as text: CSV, tab or blank separated columns, with a header or without.

What is known without being told: names in a first line (also quoted, `# t x y p`, faery's
`x@640`), Prophesee's `%geometry:640,480` (x,y,p,t), the layout of the robotics group of Zurich
(blanks, seconds, after a line `width height`), polarities 0/1, -1/1 and true/false, times in
seconds where they have the digits of seconds. What cannot be known is asked for: `--columns` and
`--time-unit`. Lines are parsed in the native module; times are exact, no float is in between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.names import EXPONENTS, LARGEST_US, Naming, naming_of
from mpsl_runtime.events.options import ReadOptions, TimeUnit
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.trouble import Trouble

__all__ = ["TextParser"]

_LINES_LOOKED_AT = 16
_BYTES_LOOKED_AT = 1 << 16
_NUMBER = re.compile(r"[+-]?(\d*)(?:[.,](\d*))?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Dialect:
    """How the lines are to be read; `unit` None: not known yet, `size` of the sensor."""

    separator: str
    columns: str
    unit: TimeUnit | None = None
    size: tuple[int, int] | None = None


class TextParser:
    """Looks at the first lines, then parses them and all others. See `parser.Parser`.

    Raises:
        DataError: from `feed` and `finish`: the columns, the separator or the unit of time cannot
            be told from the first lines.
    """

    format = "text"

    def __init__(self, options: ReadOptions, trouble: Trouble, where: str | Path) -> None:
        self.sensor_size: tuple[int, int] | None = None
        self._options = options
        self._trouble = trouble
        self._where = where
        self._begin = b""
        self._decoder: _native.Text | None = None

    def feed(self, data: bytes) -> Columns:
        """See `Parser`."""
        if self._decoder is None:
            self._begin += data
            if self._begin.count(b"\n") <= _LINES_LOOKED_AT and len(self._begin) < _BYTES_LOOKED_AT:
                return concatenated([])
            return self._start()
        columns = self._decoder.feed(data)
        self._trouble.set("lines", self._decoder.unknown)
        return columns

    def finish(self) -> Columns:
        """See `Parser`."""
        pieces = [self._start()] if self._decoder is None and self._begin.strip() else []
        if self._decoder is not None:
            before = self._decoder.unknown
            pieces.append(self._decoder.finish())
            if self._decoder.unknown > before:
                self._trouble.add("cut", 1, "a line")
        return concatenated(pieces)

    def _start(self) -> Columns:
        try:
            text = self._begin.decode("utf-8-sig", "replace")
        finally:
            begin, self._begin = self._begin, b""
        # As many lines as are looked at, however many came at once: the same bytes, cut in another
        # way, are read in the same way.
        whole, _, rest = text[:_BYTES_LOOKED_AT].rpartition("\n")
        lines = [line.strip() for line in (whole or rest).split("\n", _LINES_LOOKED_AT + 1)]
        lines = lines[: _LINES_LOOKED_AT + 1]
        dialect, header_lines = self._dialect(lines)
        self.sensor_size = dialect.size
        self._decoder = _native.Text(
            dialect.columns, dialect.separator, EXPONENTS[dialect.unit or "us"]
        )
        for _ in range(header_lines):
            begin = begin.partition(b"\n")[2]
        return self.feed(begin)

    def _dialect(self, lines: list[str]) -> tuple[_Dialect, int]:
        """The dialect, and how many lines come before the events."""
        size = None
        named: Naming | None = None
        is_prophesee = False
        for index, line in enumerate(lines):
            if not line:
                continue
            geometry = re.fullmatch(r"%\s*geometry\s*:\s*(\d{1,5})\s*,\s*(\d{1,5})", line)
            if geometry:
                size, is_prophesee = (int(geometry[1]), int(geometry[2])), True
                continue
            bare = line.lstrip("#% ")
            separator = _separator(bare)
            words = _words(bare, separator)
            if not words:
                continue
            if not _is_number(words[0]):
                naming = naming_of(words)
                if naming is not None:
                    named, size = naming, size or naming.size
                elif not line.startswith(("#", "%")) and self._options.columns is None:
                    raise self._cannot_tell("header of the text is not that of events", line)
                continue
            if line.startswith(("#", "%")):
                continue
            if len(words) == 2 and all(word.isdigit() for word in words) and size is None:
                size = int(words[0][:6]), int(words[1][:6])
                continue
            rows = [_words(other, separator) for other in lines[index:] if _is_data(other)]
            columns, unit = self._columns(named, rows, separator, is_prophesee=is_prophesee)
            dialect = _Dialect(separator, columns, unit, size)
            return self._with_unit(dialect, rows), index
        columns = named.letters if named else "txyp"
        return _Dialect(",", columns, "us", size), len(lines)

    def _columns(
        self,
        named: Naming | None,
        rows: list[list[str]],
        separator: str,
        *,
        is_prophesee: bool,
    ) -> tuple[str, TimeUnit | None]:
        width = len(rows[0])
        unit = named.unit if named else None
        if self._options.columns is not None:
            columns = "".join(self._options.column_names)
        elif named is not None:
            columns = named.letters
        else:
            columns = "xypt" if is_prophesee else "txyp"
        if width != len(columns):
            raise self._cannot_tell(
                f"text has {width} columns where {len(columns)} are to be", ",".join(rows[0])
            )
        if not _fits(rows, columns):
            raise self._cannot_tell(
                f"columns of the text are not {','.join(columns)}", ",".join(rows[0]), rows
            )
        return columns, unit

    def _with_unit(self, dialect: _Dialect, rows: list[list[str]]) -> _Dialect:
        """Adds the unit of time: told, named, or seen from the digits."""
        unit = self._options.time_unit or dialect.unit
        if unit is not None:
            return replace(dialect, unit=unit)
        times = [row[dialect.columns.index("t")] for row in rows]
        parts = [_NUMBER.fullmatch(time) for time in times]
        fractions = [(part[2] or "").rstrip("0") for part in parts if part]
        if any("e" in time.lower() for time in times) or max(map(len, fractions), default=0) >= 4:
            return replace(dialect, unit="s")
        if any(fractions):
            raise self._cannot_tell("unit of time cannot be told", times[0], unit=True)
        if any(len(part[1]) > len(str(LARGEST_US)) - 1 for part in parts if part):
            raise self._cannot_tell("times are too large for microseconds", times[0], unit=True)
        return replace(dialect, unit="us")

    def _cannot_tell(
        self, what: str, got: str, rows: list[list[str]] | None = None, *, unit: bool = False
    ) -> DataError:
        expected = "--time-unit s, ms, us or ns" if unit else "t,x,y,p (or --columns x,y,p,t)"
        if rows:
            others = [names for names in ("xypt", "tpxy", "xytp") if _fits(rows, names)]
            if others:
                expected = f"them in that order, or --columns {','.join(others[0])}"
        return DataError(what, got=repr(got[:60]), expected=expected, where=self._where)


def _separator(line: str) -> str:
    for candidate in ("\t", ";", ","):
        if candidate in line:
            return candidate
    return " "


def _words(line: str, separator: str) -> list[str]:
    """The fields of a line, without quotes, and without empty ones at its end."""
    fields = line.split() if separator == " " else line.split(separator)
    words = [field.strip().strip('"').strip() for field in fields]
    while len(words) > 1 and not words[-1]:
        words.pop()
    return words


def _is_data(line: str) -> bool:
    return bool(line) and not line.startswith(("#", "%"))


def _is_number(word: str) -> bool:
    match = _NUMBER.fullmatch(word)
    return match is not None and bool(match[1] or match[2])


def _fits(rows: list[list[str]], columns: str) -> bool:
    """Whether most of the rows are events in this order, and their times do not fall."""
    if not rows or len(rows[0]) != len(columns):
        return False
    places = {letter: columns.index(letter) for letter in "txyp"}
    times: list[float] = []
    for row in rows:
        if len(row) != len(columns):
            continue
        t, x, y, p = (row[places[letter]] for letter in "txyp")
        is_polarity = p.lower() in ("true", "false", "on", "off") or (
            _is_number(p) and float(p.replace(",", ".")) in (-1, 0, 1)
        )
        if not (is_polarity and _is_number(t) and _is_pixel(x) and _is_pixel(y)):
            continue
        times.append(float(t.replace(",", ".")))
    return len(times) * 2 >= len(rows) and len(times) > 0


def _is_pixel(word: str) -> bool:
    return _is_number(word) and 0 <= float(word.replace(",", ".")) <= 0xFFFF
