"""Events of a DVS camera: four contiguous columns in time order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.kept import Kept

__all__ = ["Events"]


@dataclass(frozen=True, eq=False)
class Events:
    """A stretch of events, in time order.

    Attributes:
        t: time in microseconds, int64 [N], never decreasing.
        x: column, uint16 [N], 0 at the left.
        y: row, uint16 [N], 0 at the top.
        p: polarity, uint8 [N], 1 = brighter (ON), 0 = darker (OFF).
        sensor_size: (width, height) in pixels where the source says so, else None.
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]
    sensor_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def empty(cls, sensor_size: tuple[int, int] | None = None) -> Events:
        """No events at all."""
        return cls.from_columns([], [], [], [], sensor_size=sensor_size)

    @classmethod
    def from_columns(
        cls,
        t: object,
        x: object,
        y: object,
        p: object,
        *,
        sensor_size: tuple[int, int] | None = None,
        where: object | None = None,
    ) -> Events:
        """Copies four columns into contiguous arrays and checks them.

        Args:
            t, x, y, p: array-likes of one length; see the class for units.
            sensor_size: (width, height) in pixels; every event must lie inside.
            where: named in error messages (a file).

        Raises:
            DataError: lengths differ, a coordinate does not fit, time runs backwards, polarity is
                not 0 or 1, or an event lies outside the sensor.
        """
        columns = [np.asarray(column) for column in (t, x, y, p)]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            raise DataError(
                "event columns t, x, y, p differ in length",
                got=[column.shape for column in columns],
                expected="four vectors of one length",
                where=where,
            )
        for name, column, largest in zip("xyp", columns[1:], (65535, 65535, 1), strict=True):
            if column.size and (int(column.min()) < 0 or int(column.max()) > largest):
                raise DataError(
                    f"event column {name} is out of range",
                    got=f"{int(column.min())}…{int(column.max())}",
                    expected=f"0…{largest}",
                    where=where,
                )
        events = cls(
            t=np.array(columns[0], dtype=np.int64),
            x=np.array(columns[1], dtype=np.uint16),
            y=np.array(columns[2], dtype=np.uint16),
            p=np.array(columns[3], dtype=np.uint8),
            sensor_size=sensor_size,
        )
        events.check(where=where)
        return events

    def check(
        self, *, sensor_size: tuple[int, int] | None = None, where: object | None = None
    ) -> None:
        """Raises DataError when time runs backwards or an event lies outside the sensor.

        Args:
            sensor_size: (width, height) to hold the events against; default: their own.
            where: named in the message.
        """
        backwards = np.flatnonzero(np.diff(self.t) < 0)
        if backwards.size:
            index = int(backwards[0]) + 1
            raise DataError(
                f"time runs backwards at event {index}",
                got=f"{int(self.t[index])} µs after {int(self.t[index - 1])} µs",
                expected="times that never decrease",
                where=where,
            )
        size = sensor_size or self.sensor_size
        if size is None:
            return
        outside = np.flatnonzero((self.x >= size[0]) | (self.y >= size[1]))
        if outside.size:
            index = int(outside[0])
            raise DataError(
                f"event {index} lies outside the sensor",
                got=f"x={int(self.x[index])} y={int(self.y[index])}",
                expected=f"x < {size[0]} and y < {size[1]}",
                where=where,
            )

    def kept(self) -> dict[str, object]:
        """As values for `mpsl_runtime.kept`."""
        size = None if self.sensor_size is None else list(self.sensor_size)
        return {"t": self.t, "x": self.x, "y": self.y, "p": self.p, "sensor_size": size}

    @classmethod
    def from_kept(cls, kept: Kept) -> Events:
        """What `kept` gave.

        Raises:
            DataError: they cannot be events.
        """
        size = kept.size("sensor_size") if kept.is_there("sensor_size") else None
        columns = (
            kept.array(name, kind)
            for name, kind in (("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8))
        )
        return cls.from_columns(*columns, sensor_size=size, where=kept.where)

    def slice(self, start: int, stop: int) -> Events:
        """The events `start … stop-1` as views of the same memory."""
        return Events(
            self.t[start:stop],
            self.x[start:stop],
            self.y[start:stop],
            self.p[start:stop],
            self.sensor_size,
        )
