"""Options that choose and prepare a source, the same for every verb that reads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpsl_runtime.live.options import StreamOptions

__all__ = [
    "NAMES",
    "Background",
    "Columns",
    "Crop",
    "Downsample",
    "Fit",
    "FlipWord",
    "HotPixels",
    "Polarity",
    "Refractory",
    "ReorderMs",
    "Sensor",
    "Serve",
    "SortWindow",
    "StepUs",
    "Steps",
    "StreamName",
    "Strict",
    "TimeUnitName",
    "Timeout",
    "stream_options",
]

Fit = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="Take the largest middle part that fits, and sum whole pixels.",
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(metavar="L,T,W,H", help="Take this window of the camera's pixels."),
]
Downsample = Annotated[int, typer.Option(metavar="K", min=1, max=65_536, help="Sum K x K pixels.")]
FlipWord = Annotated[
    str, typer.Option("--flip", metavar="h|v|hv", help="Mirror left to right, top to bottom.")
]
Sensor = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Size of a camera whose format does not say it."),
]
HotPixels = Annotated[
    str | None,
    typer.Option(metavar="auto|FILE", help="Leave out hot pixels: found, or listed as x,y."),
]
Background = Annotated[
    int | None,
    typer.Option(
        "--background-us",
        metavar="T",
        min=1,
        max=3_600_000_000,
        help="Leave out events near which nothing fired for T.",
    ),
]
Refractory = Annotated[
    int | None,
    typer.Option(
        "--refractory-us",
        metavar="T",
        min=1,
        max=3_600_000_000,
        help="Leave out a pixel's next events for T.",
    ),
]
Polarity = Annotated[
    str, typer.Option(metavar="keep|merge", help="merge: every event counts as brighter.")
]

Strict = Annotated[
    bool, typer.Option("--strict", help="What is not whole in a recording is an error.")
]
SortWindow = Annotated[
    float | None,
    typer.Option(
        metavar="MS", min=0, max=3_600_000, help="Put events that come so late in their place."
    ),
]
StreamName = Annotated[
    str | None, typer.Option("--stream", metavar="NAME", help="Which of several streams in a file.")
]
Columns = Annotated[
    str | None, typer.Option(metavar="x,y,p,t", help="Order in a text without names; - for others.")
]
TimeUnitName = Annotated[
    str | None,
    typer.Option("--time-unit", metavar="s|ms|us|ns", help="Of a text that does not say it."),
]

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout-s", metavar="S", min=0, max=1e9, help="Live: end after so long without a word."
    ),
]
Serve = Annotated[bool, typer.Option("--serve", help="Live: go on when a sender has finished.")]
ReorderMs = Annotated[
    float,
    typer.Option(
        "--reorder-ms",
        metavar="MS",
        min=0,
        max=60_000,
        help="Live: wait so long for datagrams that were overtaken.",
    ),
]


Steps = Annotated[
    int | None,
    typer.Option(metavar="T", min=1, max=100_000, help="Steps of a window. [the model's]"),
]
StepUs = Annotated[
    int | None,
    typer.Option(
        "--step-us",
        metavar="N",
        min=1,
        max=3_600_000_000,
        help="Microseconds a step. [the model's]",
    ),
]


_READ = ("strict", "sort_window", "stream_name", "columns", "time_unit")
NAMES = (
    *("fit", "crop", "downsample", "flip", "sensor", "hot_pixels", "background_us"),
    *("refractory_us", "polarity", "timeout_s", "serve", "reorder_ms", *_READ),
)
"""The parameters of a verb that are of these types, by which `stream_options` knows them."""


def stream_options(given: Mapping[str, Any]) -> StreamOptions:
    """The options of a source as `Model.stream` takes them.

    Args:
        given: the values of `NAMES`.

    Raises:
        UsageError: a value that cannot be.
    """
    from mpsl_runtime.events.options import ReadOptions

    found: dict[str, Any] = {name: given[name] for name in NAMES if name not in _READ}
    found["sensor_size"] = found.pop("sensor")
    found["read"] = ReadOptions(*(given[name] for name in _READ))
    return found  # type: ignore[return-value]
