"""What goes wrong with a sample: images before coding, recordings before binning. numpy only.

A corruption of a sample depends on (seed, corruption, index of the sample) alone, not on which
other samples there are. Level 0 leaves the sample as it is; sizes are exact, not expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.events.events import Events
from mpsl_runtime.model.metadata import InputKind

__all__ = ["CORRUPTIONS", "Corruption", "corrupt_events", "corrupt_image"]

HOT_PERIOD_US = 2000
Image = NDArray[np.uint8]
Generator = np.random.Generator


def _gaussian(image: Image, variance: float, generator: Generator) -> Image:
    noisy = image / 255 + generator.normal(0.0, 1.0, image.shape) * np.sqrt(variance)
    rounded: Image = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return rounded


def _salt_pepper(image: Image, amount: float, generator: Generator) -> Image:
    """round(amount·H·W) pixels, in all channels; one half white, the other black."""
    rows, columns = image.shape[1:]
    count = round(amount * rows * columns)
    places = generator.permutation(rows * columns)[:count]
    noisy = image.reshape(len(image), -1).copy()
    noisy[:, places[: count // 2]] = 255
    noisy[:, places[count // 2 :]] = 0
    return noisy.reshape(image.shape)


def _kept(size: int, level: float) -> tuple[int, int]:
    """The first and the last but one row of the middle `1 − level` of `size` rows."""
    side = round((1 - level) * size)
    first = (size - side) // 2
    return first, first + side


def _crop_image(image: Image, level: float, generator: Generator) -> Image:
    top, bottom = _kept(image.shape[1], level)
    left, right = _kept(image.shape[2], level)
    out = np.zeros_like(image)
    out[:, top:bottom, left:right] = image[:, top:bottom, left:right]
    return out


def _size(events: Events) -> tuple[int, int]:
    if events.sensor_size is None:
        raise ValueError("the recording does not say how large its sensor is")
    return events.sensor_size


def _pick(events: Events, chosen: NDArray[np.generic]) -> Events:
    return Events(
        events.t[chosen], events.x[chosen], events.y[chosen], events.p[chosen], events.sensor_size
    )


Whole = NDArray[np.integer]


def _with(events: Events, t: Whole, x: Whole, y: Whole, p: Whole) -> Events:
    """The recording and further events, in time order."""
    together = Events(
        np.concatenate([events.t, t.astype(np.int64)]),
        np.concatenate([events.x, x.astype(np.uint16)]),
        np.concatenate([events.y, y.astype(np.uint16)]),
        np.concatenate([events.p, p.astype(np.uint8)]),
        events.sensor_size,
    )
    return _pick(together, np.argsort(together.t, kind="stable"))


def _drop(events: Events, fraction: float, generator: Generator, _: Generator) -> Events:
    """round(fraction·N) events are lost."""
    kept = generator.permutation(len(events))[round(fraction * len(events)) :]
    return _pick(events, np.sort(kept))


def _noise(events: Events, ratio: float, generator: Generator, _: Generator) -> Events:
    """round(ratio·N) further events, anywhere on the sensor and at any time of the recording."""
    count, (width, height) = round(ratio * len(events)), _size(events)
    if not count:
        return events
    t = generator.integers(events.t[0], events.t[-1], count, endpoint=True)
    x, y = generator.integers(0, width, count), generator.integers(0, height, count)
    return _with(events, t, x, y, generator.integers(0, 2, count))


def _jitter(events: Events, sd_ms: float, generator: Generator, _: Generator) -> Events:
    """Times move by a normal deviate, within the recording's own beginning and end."""
    if not len(events):
        return events
    moved = events.t + np.rint(generator.normal(0.0, 1.0, len(events)) * sd_ms * 1000)
    t = np.clip(moved.astype(np.int64), events.t[0], events.t[-1])
    columns = Events(t, events.x, events.y, events.p, events.sensor_size)
    return _pick(columns, np.argsort(t, kind="stable"))


def _hot(events: Events, fraction: float, generator: Generator, camera: Generator) -> Events:
    """round(fraction·pixels) pixels fire every 2 ms with one polarity, the same in all recordings:
    they are the camera's."""
    width, height = _size(events)
    count = round(fraction * width * height)
    places = camera.permutation(width * height)[:count]
    polarity = camera.integers(0, 2, width * height)[:count]
    if not len(events) or not count:
        return events
    start, stop = int(events.t[0]), int(events.t[-1])
    phase = generator.integers(0, HOT_PERIOD_US, count)
    t = start + phase[:, None] + HOT_PERIOD_US * np.arange((stop - start) // HOT_PERIOD_US + 1)
    inside = t <= stop
    pixel = np.broadcast_to(places[:, None], t.shape)[inside]
    p = np.broadcast_to(polarity[:, None], t.shape)[inside]
    return _with(events, t[inside], pixel % width, pixel // width, p)


def _crop_events(events: Events, level: float, generator: Generator, _: Generator) -> Events:
    width, height = _size(events)
    left, right = _kept(width, level)
    top, bottom = _kept(height, level)
    x, y = events.x, events.y
    return _pick(events, (x >= left) & (x < right) & (y >= top) & (y < bottom))


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a sample.

    Attributes:
        number: of its random stream. title: of the panel. unit: what a level is.
        levels: those that are measured, ascending from 0. random: whether a seed changes anything.
    """

    number: int
    title: str
    unit: str
    levels: tuple[float, ...]
    image: Callable[[Image, float, Generator], Image] | None = None
    events: Callable[[Events, float, Generator, Generator], Events] | None = None
    random: bool = True

    def fits(self, kind: InputKind) -> bool:
        """Whether it applies to images or to events."""
        return {"image": self.image, "events": self.events}.get(kind) is not None


_CROP = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian": Corruption(
            1, "Gaussian noise", "variance (intensity 0…1)", (0, 0.02, 0.05, 0.1, 0.2, 0.4),
            image=_gaussian,
        ),
        "salt-pepper": Corruption(
            2, "salt and pepper", "part of the pixels", (0, 0.05, 0.1, 0.2, 0.3, 0.4),
            image=_salt_pepper,
        ),
        "crop": Corruption(
            3, "centre crop", "part of each side cut away", _CROP,
            image=_crop_image, events=_crop_events, random=False,
        ),
        "drop": Corruption(
            4, "dropped events", "part of the events", (0, 0.2, 0.4, 0.6, 0.8), events=_drop
        ),
        "noise": Corruption(
            5, "noise events", "added, for each event", (0, 0.25, 0.5, 1, 2), events=_noise
        ),
        "jitter": Corruption(
            6, "time jitter", "standard deviation in ms", (0, 10, 20, 40, 80), events=_jitter
        ),
        "hot-pixels": Corruption(
            7, "hot pixels, 500 events/s", "part of the pixels", (0, 0.002, 0.005, 0.01, 0.02),
            events=_hot,
        ),
    }
)  # fmt: skip


def corrupt_image(name: str, image: Image, level: float, *, seed: int, index: int) -> Image:
    """A corrupted copy.

    Args:
        name: in `CORRUPTIONS`. image: uint8 [C, H, W]. index: of the sample in its split.
    """
    change = CORRUPTIONS[name].image
    if change is None:
        raise ValueError(f"{name} does not apply to images")
    if level == 0:
        return image.copy()
    generator = np.random.default_rng([seed, CORRUPTIONS[name].number, index])
    return change(image, level, generator)


def corrupt_events(name: str, events: Events, level: float, *, seed: int, index: int) -> Events:
    """A corrupted recording, in time order; `events` must know its sensor's size.

    Args:
        name: in `CORRUPTIONS`. index: of the sample in its split.
    """
    change = CORRUPTIONS[name].events
    if change is None:
        raise ValueError(f"{name} does not apply to events")
    if level == 0:
        return events
    number = CORRUPTIONS[name].number
    generator = np.random.default_rng([seed, number, index])
    return change(events, level, generator, np.random.default_rng([seed, number]))
