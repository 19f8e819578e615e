"""Tables of numbers → columns of events: arrays of HDF5 and numpy files, a piece at a time.

The order of columns without names is seen from their values, where only one order can be meant;
so is the unit of time: whole numbers are microseconds, fractions of a finer kind than a
millisecond are seconds. What cannot be seen is asked for: `--columns`, `--time-unit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.names import EXPONENTS, LARGEST_US
from mpsl_runtime.events.options import ReadOptions, TimeUnit
from mpsl_runtime.events.order import Columns
from mpsl_runtime.events.trouble import Trouble

__all__ = ["ROWS", "Conversion", "Table", "order_of"]

ROWS = 1 << 16
"""How many rows are read at a time."""

Array = NDArray[Any]
_ORDERS = ("txyp", "xypt", "tpxy", "xytp", "txpy")


class Table(Protocol):
    """A file that is read at any place, not from its beginning to its end."""

    @property
    def format(self) -> str:
        """Its name, for people."""

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """(width, height) in pixels where the file says it."""

    def pieces(self) -> Iterator[Columns]:
        """The events, some ten thousand at a time."""

    def close(self) -> None:
        """Lets the file go."""


def order_of(table: Array, where: object) -> str:
    """Letters of the four columns of a table [N, 4] without names.

    Raises:
        DataError: no order, or several, can be meant.
    """
    if table.dtype.kind not in "iuf":
        raise DataError("table has no numbers", got=table.dtype, where=where)
    fitting = [order for order in _ORDERS if _fits(table, order)]
    if len(fitting) != 1:
        raise DataError(
            "columns of the table cannot be told",
            got=f"first row {', '.join(f'{value:g}' for value in table[0].tolist())}",
            expected="--columns, such as t,x,y,p or x,y,p,t",
            where=where,
        )
    return fitting[0]


def _fits(table: Array, order: str) -> bool:
    t, x, y, p = (table[:, order.index(letter)] for letter in "txyp")
    whole = all(bool((column == np.floor(column)).all()) for column in (x, y, p))
    inside = all(column.min() >= 0 and column.max() <= 0xFFFF for column in (x, y))
    polarity = bool(np.isin(p, (-1, 0, 1)).all())
    return whole and inside and polarity and bool((t[1:] >= t[:-1]).all())


class Conversion:
    """Turns arrays of t, x, y, p of any numeric type into columns; decides at the first piece.

    Args:
        named: unit that the file states; the options go before it.
        offset_us: to be added to all times.
        has_names: the columns have names; without, whole numbers that are kept as floats may as
            well be milliseconds (tonic's DVS128 Gesture).
    """

    def __init__(
        self,
        options: ReadOptions,
        trouble: Trouble,
        where: object,
        *,
        named: TimeUnit | None = None,
        offset_us: int = 0,
        has_names: bool = True,
    ) -> None:
        self._unit = options.time_unit or named
        self._trouble = trouble
        self._where = where
        self._offset_us = offset_us
        self._has_names = has_names

    def columns(self, t: Array, x: Array, y: Array, p: Array) -> Columns:
        """Rows that are no event are left out and counted.

        Raises:
            DataError: the unit of time cannot be told, or columns are no numbers.
        """
        for name, column in zip("txyp", (t, x, y, p), strict=True):
            if column.dtype.kind not in "iufb" or (name == "t" and column.dtype.kind == "b"):
                raise DataError(
                    f"column {name} has no numbers", got=column.dtype, where=self._where
                )
        if self._unit is None and len(t):
            self._unit = self._seen(t)
        time_us, good = self._time_us(t)
        for column in (x, y):
            good &= (column >= 0) & (column <= 0xFFFF)
            if column.dtype.kind == "f":
                good &= column == np.floor(column)
        if p.dtype.kind != "b":
            good &= (p == 1) | (p == 0) | (p == -1)
        bad = int(np.sum(~good))
        if bad:
            self._trouble.add("rows", bad)
            time_us, x, y, p = time_us[good], x[good], y[good], p[good]
        return (
            time_us + self._offset_us,
            x.astype(np.uint16),
            y.astype(np.uint16),
            (p > 0).astype(np.uint8),
        )

    def _seen(self, t: Array) -> TimeUnit:
        if t.dtype.kind in "iu":
            if int(np.abs(t).max()) >= LARGEST_US:
                raise self._cannot_tell("times are too large for microseconds", t)
            return "us"
        finite = t[np.isfinite(t)].astype(np.float64)
        if bool((finite == np.floor(finite)).all()):
            if not self._has_names:
                raise self._cannot_tell("unit of time cannot be told", t)
            return "us"
        thousands = finite * 1000
        if bool((np.abs(thousands - np.rint(thousands)) < 1e-6 * np.maximum(1, finite)).all()):
            raise self._cannot_tell("unit of time cannot be told", t)
        return "s"

    def _time_us(self, t: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        exponent = EXPONENTS[self._unit or "us"]
        if t.dtype.kind == "f":
            # float32 has no room for microseconds: it is widened before it is multiplied.
            with np.errstate(over="ignore", invalid="ignore"):
                wide = t.astype(np.float64)
                exact = np.rint(wide * 10.0**exponent if exponent >= 0 else wide / 1000)
            good = np.abs(exact) < 2.0**62
            return np.where(good, exact, 0).astype(np.int64), good
        factor = 10 ** max(exponent, 0)
        good = (t <= (1 << 62) // factor) & (t >= -((1 << 62) // factor))
        whole = np.where(good, t, 0).astype(np.int64) * factor
        return whole if exponent >= 0 else (whole + 500) // 1000, good

    def _cannot_tell(self, what: str, t: Array) -> DataError:
        return DataError(
            what, got=f"{t[0]:.17g}", expected="--time-unit s, ms, us or ns", where=self._where
        )
