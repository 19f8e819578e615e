"""How a source is to be read: the options of `mpsl run`, `load` and `Model.stream`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.filters import FilterOptions
from mpsl_runtime.events.geometry import Flip, View, parse_crop, parse_size
from mpsl_runtime.events.options import ReadOptions

__all__ = ["PolarityChoice", "SourceOptions", "StreamOptions", "source_options"]

PolarityChoice = Literal["keep", "merge"]
_LARGEST_REORDER_MS = 60_000.0


class StreamOptions(TypedDict, total=False):
    """The options as keyword arguments; see `SourceOptions` for what they mean."""

    crop: tuple[int, int, int, int] | str | None
    downsample: int
    fit: bool
    flip: Flip
    sensor_size: tuple[int, int] | str | None
    hot_pixels: str | Path | None
    background_us: int | None
    refractory_us: int | None
    polarity: PolarityChoice
    reorder_ms: float
    serve: bool
    timeout_s: float | None
    largest_queue: int
    read: ReadOptions


@dataclass(frozen=True)
class SourceOptions:
    """What may be asked of any source.

    Attributes:
        view: what of the camera's sensor the model sees: `crop`, `downsample`, `fit`, `flip`.
        filters: `hot_pixels`, `background_us`, `refractory_us`.
        merge: all events count as brighter (`polarity="merge"`).
        sensor_size: (width, height) of a camera whose format does not say it.
        reorder_ms: how long a live source waits for datagrams that others have overtaken.
        serve: a live source goes on when its sender has finished.
        timeout_s: a live source ends after so long without a word; None waits for ever.
        largest_queue: events of datagrams that may wait; beyond it the oldest are dropped, counted.
        read: how bytes are decoded.

    Raises:
        UsageError: a value that cannot be.
    """

    view: View = field(default_factory=View)
    filters: FilterOptions = field(default_factory=FilterOptions)
    merge: bool = False
    sensor_size: tuple[int, int] | None = None
    reorder_ms: float = 5.0
    serve: bool = False
    timeout_s: float | None = None
    largest_queue: int = 1_000_000
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.reorder_ms) and 0 <= self.reorder_ms <= _LARGEST_REORDER_MS):
            raise UsageError(
                "no time to wait for datagrams",
                got=self.reorder_ms,
                expected=f"0…{_LARGEST_REORDER_MS:g} ms",
                where="--reorder-ms",
            )
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UsageError(
                "no timeout", got=self.timeout_s, expected="> 0 s", where="--timeout-s"
            )
        if not 1 <= self.largest_queue <= 1 << 30:
            raise UsageError("no size for a queue", got=self.largest_queue, expected="1 … 2^30")

    @property
    def changes_events(self) -> bool:
        """Whether events are moved, filtered or merged on their way to the model."""
        return self.view != View() or not self.filters.is_off or self.merge


def source_options(words: Mapping[str, Any]) -> SourceOptions:
    """The options of keyword arguments.

    Args:
        words: see `StreamOptions`; `crop` and `sensor_size` may be text, as on the command line.

    Raises:
        UsageError: a name that there is not, or a value that cannot be.
    """
    given = dict(words)
    unknown = sorted(given.keys() - StreamOptions.__annotations__.keys())
    if unknown:
        raise UsageError("unknown option of a source", got=unknown[0])
    polarity = given.pop("polarity", "keep")
    if polarity not in ("keep", "merge"):
        raise UsageError("unknown polarity", got=repr(polarity), expected="keep or merge")
    crop, size = given.pop("crop", None), given.pop("sensor_size", None)
    try:
        view = View(
            crop=parse_crop(crop) if isinstance(crop, str) else crop,
            downsample=given.pop("downsample", 1),
            fit=given.pop("fit", False),
            flip=given.pop("flip", ""),
        )
        filters = FilterOptions(
            given.pop("hot_pixels", None),
            given.pop("background_us", None),
            given.pop("refractory_us", None),
        )
        return SourceOptions(
            view=view,
            filters=filters,
            merge=polarity == "merge",
            sensor_size=parse_size(size) if isinstance(size, str) else size,
            **given,
        )
    except TypeError as error:
        raise UsageError("option of a source has a wrong type", got=str(error)[:120]) from None
