"""Pixels of any camera onto the pixels of a model: crop, sum, fit, flip.

    columns[x], rows[y]  the model's pixel of a camera's pixel, -1 where it is left out

A window of the camera's sensor is cut out (`crop`), k x k of its pixels become one (`downsample`),
and the result is mirrored (`flip`). `fit` chooses by itself: the largest window in the middle that
has the model's shape, and the whole k that comes nearest to the model's size. What is left over at
the edge is cut away; what is missing there stays empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.events import Events

__all__ = ["Flip", "PixelMap", "View", "misfit", "parse_crop", "parse_size"]

Flip = Literal["", "h", "v", "hv"]
Size = tuple[int, int]
_LARGEST_SIDE = 65535


@dataclass(frozen=True)
class View:
    """What of a camera's sensor the model is to see.

    Attributes:
        crop: (left, top, width, height) in pixels of the camera.
        downsample: k, pixels are summed k x k.
        fit: choose both (see the module).
        flip: mirror the result, `h` left to right, `v` top to bottom, `hv` both.

    Raises:
        UsageError: a window or k that cannot be, or `fit` beside `downsample`.
    """

    crop: tuple[int, int, int, int] | None = None
    downsample: int = 1
    fit: bool = False
    flip: Flip = ""

    def __post_init__(self) -> None:
        if self.flip not in get_args(Flip):
            raise UsageError("unknown flip", got=repr(self.flip), expected="h, v or hv")
        if not 1 <= self.downsample <= _LARGEST_SIDE:
            raise UsageError(
                "downsample must be positive", got=self.downsample, expected="1, 2, 3 …"
            )
        if self.fit and self.downsample != 1:
            raise UsageError("fit chooses the downsampling itself", got="--fit and --downsample")
        if self.crop is not None and (
            min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1 or max(self.crop) > _LARGEST_SIDE
        ):
            raise UsageError(
                "crop is no window", got=self.crop, expected="left,top,width,height in pixels"
            )

    def onto(self, camera: Size, model: Size, where: object) -> PixelMap:
        """The map from a camera's pixels to a model's.

        Args:
            camera, model: (width, height) of the sensors.
            where: the source, for messages.

        Raises:
            DataError: the window does not fit into the camera, or what it gives is not the model's
                sensor: the line proposes what would fit.
        """
        left, top, width, height = self.crop or (0, 0, *camera)
        if left + width > camera[0] or top + height > camera[1]:
            raise DataError(
                "crop lies outside the sensor",
                got=",".join(map(str, self.crop or ())),
                expected=f"a window inside {camera[0]}x{camera[1]}",
                where=where,
            )
        k = self.downsample
        if self.fit:
            k = _nearest_k((width, height), model)
            left += (width - k * model[0]) // 2
            top += (height - k * model[1]) // 2
        elif (width // k, height // k) != model:
            got = f"{camera[0]}x{camera[1]} pixels"
            if (width // k, height // k) != camera:
                got += f", of which {width // k}x{height // k} are left"
            raise misfit(got, camera, model, where)
        columns = _axis(camera[0], (left, model[0], k), (self.crop or (0, 0, *camera))[0::2])
        rows = _axis(camera[1], (top, model[1], k), (self.crop or (0, 0, *camera))[1::2])
        if "h" in self.flip:
            columns = np.where(columns < 0, -1, model[0] - 1 - columns).astype(np.int32)
        if "v" in self.flip:
            rows = np.where(rows < 0, -1, model[1] - 1 - rows).astype(np.int32)
        return PixelMap(columns, rows, camera, model)


def misfit(got: str, camera: Size, model: Size, where: object) -> DataError:
    """The camera's sensor is not the model's: one line that proposes what would fit."""
    return DataError(
        "recording is from another sensor",
        got=got,
        expected=f"{model[0]}x{model[1]}: {_proposal(camera, model)}",
        where=where,
    )


def _nearest_k(camera: Size, model: Size) -> int:
    """How many pixels `fit` sums in a row: the whole number nearest, as a ratio, to the camera's
    size over the model's."""
    ratio = min(camera[0] / model[0], camera[1] / model[1])
    below = max(1, int(ratio))
    return below if ratio <= below or ratio / below <= (below + 1) / ratio else below + 1


def _proposal(camera: Size, model: Size) -> str:
    """The options that make a camera fit a model, with their values."""
    k = _nearest_k(camera, model)
    width, height = min(camera[0], k * model[0]), min(camera[1], k * model[1])
    found = f"--fit takes the middle {width}x{height}"
    if k > 1:
        found += f" and sums {k}x{k} pixels"
        if (camera[0] // k, camera[1] // k) == model:
            found += f", --downsample {k} sums all of it"
    left, top = (camera[0] - model[0]) // 2, (camera[1] - model[1]) // 2
    if min(left, top) >= 0:
        found += f", --crop {left},{top},{model[0]},{model[1]} takes the middle alone"
    return found


def _axis(camera: int, placed: tuple[int, int, int], seen: tuple[int, ...]) -> NDArray[np.int32]:
    """The model's coordinate of each of the camera's, int32 [camera].

    Args:
        placed: (first pixel, size of the model, pixels summed). seen: (first, number) that are not
            cropped away.
    """
    begin, size, k = placed
    position = np.arange(camera) - begin
    coordinate = position // k
    inside = (coordinate >= 0) & (coordinate < size)
    inside &= (np.arange(camera) >= seen[0]) & (np.arange(camera) < seen[0] + seen[1])
    return np.where(inside, coordinate, -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class PixelMap:
    """See the module.

    Attributes:
        columns: int32 [camera's width]; rows: int32 [camera's height].
        camera, model: (width, height) of the sensors.
    """

    columns: NDArray[np.int32]
    rows: NDArray[np.int32]
    camera: Size
    model: Size

    @cached_property
    def is_identity(self) -> bool:
        """Whether every pixel stays where it is."""
        return (
            self.camera == self.model
            and bool((self.columns == np.arange(self.camera[0])).all())
            and bool((self.rows == np.arange(self.camera[1])).all())
        )

    def apply(self, events: Events, *, merge: bool = False) -> Events:
        """The events that the model sees, at its pixels; those elsewhere are left out.

        Args:
            events: of the camera; none outside its sensor is kept.
            merge: all count as brighter (ON), whatever their polarity.
        """
        number = len(events)
        t, x, y, p = (
            np.empty(number, np.int64),
            np.empty(number, np.uint16),
            np.empty(number, np.uint16),
            np.empty(number, np.uint8),
        )
        kept = _native.remap_events(
            events.t, events.x, events.y, events.p, self.columns, self.rows, merge, t, x, y, p
        )
        return Events(t[:kept], x[:kept], y[:kept], p[:kept], self.model)


def parse_crop(words: str) -> tuple[int, int, int, int]:
    """`left,top,width,height`.

    Raises:
        UsageError: it is not four whole numbers.
    """
    left, top, width, height = _whole_numbers(words, ",", 4, "--crop left,top,width,height")
    return left, top, width, height


def parse_size(words: str) -> tuple[int, int]:
    """`640x480` as (width, height).

    Raises:
        UsageError: it is not two positive whole numbers.
    """
    width, height = _whole_numbers(words.lower(), "x", 2, "WIDTHxHEIGHT, such as 640x480")
    if min(width, height) < 1:
        raise UsageError("no size of a sensor", got=repr(words[:40]), expected="WIDTHxHEIGHT")
    return width, height


def _whole_numbers(words: str, between: str, number: int, expected: str) -> list[int]:
    parts = [part.strip() for part in words.split(between)]
    good = all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts)
    if len(parts) != number or not good:
        raise UsageError("not pixels", got=repr(words[:40]), expected=expected)
    return [int(part) for part in parts]
