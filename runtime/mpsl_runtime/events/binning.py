"""Binning: which time step and which input neuron an event belongs to. Defined once, here.

An event at time t belongs to step (t − t0) // step_us (DESIGN §5). A step's input is the events
themselves: `count` adds one per event, `binary` one per pixel and polarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.events import Events

__all__ = [
    "LONGEST_SAMPLE_STEPS",
    "Binning",
    "Coding",
    "Origin",
    "SparseSteps",
    "addresses",
    "frames",
    "sparse_steps",
]

Coding = Literal["count", "binary"]
Origin = Literal["zero", "first"]

LONGEST_SAMPLE_STEPS = 100_000
"""The most steps of one sample: each is run, also where no event falls into it."""


@dataclass(frozen=True)
class Binning:
    """How events become time steps.

    Attributes:
        sensor_width, sensor_height: pixels of the camera.
        step_us: length of a step in microseconds.
        steps: T, the steps of one sample.
        coding: `count` or `binary`.
        origin: t0 is `zero` (N-MNIST) or the time of the `first` event (cameras).
        downsample: k, pixels are summed k x k (x//k, y//k).
        crop: (left, top, width, height) in sensor pixels; events outside are left out.
    """

    sensor_width: int
    sensor_height: int
    step_us: int
    steps: int
    coding: Coding = "count"
    origin: Origin = "zero"
    downsample: int = 1
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("sensor_width", "sensor_height", "step_us", "steps", "downsample"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"binning {name} must be positive", got=getattr(self, name), expected="≥ 1"
                )
        if self.steps > LONGEST_SAMPLE_STEPS:
            raise UsageError(
                "binning has too many steps",
                got=self.steps,
                expected=f"1 … {LONGEST_SAMPLE_STEPS}",
            )
        left, top, width, height = self.window
        if (
            left < 0
            or top < 0
            or left + width > self.sensor_width
            or top + height > self.sensor_height
            or width < self.downsample
            or height < self.downsample
        ):
            raise UsageError(
                "binning crop does not fit the sensor",
                got=self.crop,
                expected=f"a window inside {self.sensor_width}x{self.sensor_height}",
            )

    @property
    def window(self) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the pixels that are used."""
        return self.crop or (0, 0, self.sensor_width, self.sensor_height)

    @property
    def sensor_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.sensor_width, self.sensor_height

    @property
    def shape(self) -> tuple[int, int, int]:
        """(polarities, rows, columns) of the network's input; rows and columns left over when the
        window is no multiple of `downsample` are dropped."""
        _, _, width, height = self.window
        return 2, height // self.downsample, width // self.downsample


@dataclass(frozen=True, eq=False)
class SparseSteps:
    """The non-zero inputs of T steps: `address[offsets[s]:offsets[s+1]]` are those of step s.

    Attributes:
        offsets: int64 [T+1].
        address: int32 [N], p·H·W + y·W + x, ascending within a step.
        value: float32 [N], events at that address (1 with `binary`).
        events: events that were used; truncated: events after the last step.
    """

    offsets: NDArray[np.int64]
    address: NDArray[np.int32]
    value: NDArray[np.float32]
    events: int
    truncated: int


def addresses(events: Events, binning: Binning) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Input neuron of each event.

    Returns:
        (inside, address): `inside` [N] marks the events within the window; `address` int32 of
        those alone, p·H·W + y·W + x.

    Raises:
        DataError: an event lies outside the sensor.
    """
    events.check(sensor_size=binning.sensor_size)
    left, top, _, _ = binning.window
    _, rows, columns = binning.shape
    x = (events.x.astype(np.int32) - left) // binning.downsample
    y = (events.y.astype(np.int32) - top) // binning.downsample
    inside = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
    p = events.p[inside].astype(np.int32)
    return inside, (p * rows + y[inside]) * columns + x[inside]


def sparse_steps(events: Events, binning: Binning) -> SparseSteps:
    """Bins a sample: exactly steps 0 … T−1, missing steps are empty, later events are counted as
    truncated.

    Raises:
        DataError: an event lies outside the sensor or before t0.
    """
    inside, address = addresses(events, binning)
    t = events.t[inside]
    origin = int(events.t[0]) if binning.origin == "first" and len(events) else 0
    if t.size and int(t[0]) < origin:
        raise DataError(
            "event before the start of the sample", got=f"{int(t[0])} µs", expected=f"≥ {origin} µs"
        )
    step = (t - origin) // binning.step_us
    kept = step < binning.steps
    size = int(np.prod(binning.shape))
    cell, count = _counted(step[kept] * size + address[kept], binning.steps * size)
    value = (
        count.astype(np.float32) if binning.coding == "count" else np.ones(len(cell), np.float32)
    )
    offsets = np.searchsorted(cell, np.arange(binning.steps + 1, dtype=np.int64) * size)
    return SparseSteps(
        offsets=offsets.astype(np.int64),
        address=(cell % size).astype(np.int32),
        value=value,
        events=int(kept.sum()),
        truncated=int((~kept).sum()),
    )


def _counted(cells: NDArray[np.int64], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells that occur, ascending, and how often each does; all are below `number`."""
    if len(cells) * 4 < number:
        return np.unique(cells, return_counts=True)
    # Where many events meet few cells, sorting them would take most of a step's time.
    every = np.bincount(cells, minlength=number)
    found = np.flatnonzero(every)
    return found, every[found]


def frames(events: Events, binning: Binning) -> NDArray[np.float32]:
    """The same sample as dense frames, float32 [T, 2, H, W]."""
    sparse = sparse_steps(events, binning)
    size = int(np.prod(binning.shape))
    step = np.repeat(np.arange(binning.steps), np.diff(sparse.offsets))
    dense = np.zeros(binning.steps * size, np.float32)
    dense[step * size + sparse.address] = sparse.value
    return dense.reshape(binning.steps, *binning.shape)
