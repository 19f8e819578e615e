"""How a recording is to be read, where its bytes alone do not say it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mpsl_runtime.errors import UsageError

__all__ = ["ReadOptions", "TimeUnit"]

TimeUnit = Literal["s", "ms", "us", "ns"]
_LARGEST_WINDOW_MS = 3_600_000


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may be told.

    Attributes:
        strict: all that is not whole is an error; otherwise what is whole is read, and the rest is
            counted and said.
        sort_window_ms: events that come up to so late are put in their place; without it, time that
            falls is an error.
        stream: which one of several streams of events to read, by the name that the file gives it.
        columns: order of the columns of a text or of a table without names, such as `x,y,p,t`;
            other columns are `-`.
        time_unit: of a text or a table: `s`, `ms`, `us` or `ns`.
        may_be_empty: a strict reader takes a recording without events too.

    Raises:
        UsageError: a window that is no time, columns that are not t, x, y and p once each, or an
            unknown unit.
    """

    strict: bool = False
    sort_window_ms: float | None = None
    stream: str | None = None
    columns: str | None = None
    time_unit: TimeUnit | None = None
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        window = self.sort_window_ms
        if window is not None and not (math.isfinite(window) and 0 <= window <= _LARGEST_WINDOW_MS):
            raise UsageError(
                "sort window is no stretch of time",
                got=window,
                expected=f"0…{_LARGEST_WINDOW_MS} ms",
                where="--sort-window",
            )
        if self.time_unit is not None and self.time_unit not in get_args(TimeUnit):
            raise UsageError(
                "unknown unit of time",
                got=repr(self.time_unit),
                expected=" ".join(get_args(TimeUnit)),
                where="--time-unit",
            )
        if self.columns is not None:
            names = self.column_names
            if sorted(name for name in names if name != "-") != ["p", "t", "x", "y"]:
                raise UsageError(
                    "columns are not those of events",
                    got=repr(self.columns),
                    expected="t, x, y and p once each, such as x,y,p,t; - for others",
                    where="--columns",
                )

    @property
    def column_names(self) -> tuple[str, ...]:
        """The parts of `columns`; empty without any."""
        if self.columns is None:
            return ()
        return tuple(name.strip().lower() for name in self.columns.split(","))

    @property
    def sort_window_us(self) -> int | None:
        """`sort_window_ms` in whole microseconds."""
        return None if self.sort_window_ms is None else round(self.sort_window_ms * 1000)
