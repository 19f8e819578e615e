"""What a model is benchmarked on: its input.

By default a model runs as it is, on samples of its test set, on recordings or on synthetic events;
`density` makes copies of it that fire more or less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

__all__ = [
    "BenchInput",
    "from_test_set",
    "recorded",
    "samples_of",
    "synthetic",
]

Array = NDArray[np.float32]

_STEPS = 8  # of a foreign model, which does not say
_INPUT_DENSITY = 0.1


@dataclass(frozen=True, eq=False)
class BenchInput:
    """Input of a benchmark.

    Attributes:
        source: where it comes from, in words.
        samples: each float32 [T, *input_shape]; the state is reset between them.
        step_us: real time that a step stands for; None where time has no unit.
        constant: every frame of a sample is the same one (an image).
    """

    source: str
    samples: tuple[Array, ...]
    step_us: int | None
    constant: bool

    @property
    def steps(self) -> int:
        """Steps of all samples together."""
        return sum(map(len, self.samples))


def synthetic(plan: Plan, seed: int = 3) -> BenchInput:
    """Events as a recording has them, dense in the middle: a tenth of the inputs in each step.

    A model of images gets one image, on its grid of grey values.
    """
    random = np.random.default_rng(seed)
    metadata = plan.metadata
    steps = metadata.steps if metadata is not None else _STEPS
    brightness = _blob(plan.input_shape)
    if metadata is not None and metadata.input_kind == "image":
        noise = random.random(plan.input_shape)
        quanta = np.floor(np.minimum(brightness * noise, 1) / metadata.input_grid)
        image = (np.minimum(quanta, metadata.input_max or np.inf) * metadata.input_grid).astype(
            np.float32
        )
        frames = np.broadcast_to(image, (steps, *plan.input_shape))
        return BenchInput(f"synthetic image, seed {seed}", (frames,), None, constant=True)
    fired = random.random((steps, *plan.input_shape)) < _INPUT_DENSITY * brightness
    step_us = metadata.step_us if metadata is not None else None
    return BenchInput(
        f"synthetic events, seed {seed}", (fired.astype(np.float32),), step_us, constant=False
    )


def recorded(
    plan: Plan,
    source: str,
    limit: int = 8,
    *,
    steps: int | None = None,
    step_us: int | None = None,
) -> BenchInput:
    """The first T steps of the first `limit` recordings or images of a file, a folder or a zip.

    Args:
        steps, step_us: instead of the model's own.

    Raises:
        UsageError: the time steps of the model are not known; a live source.
        DataError: nothing there, a damaged recording or picture, or one that does not fit.
    """
    found = samples_of(plan, source, steps=steps, step_us=step_us)
    samples = tuple(islice(found, limit))
    metadata = plan.metadata
    is_image = metadata is not None and metadata.input_kind == "image"
    noun = "image" if is_image else "recording"
    if not samples:
        raise DataError(f"no {noun} there", where=source)
    stated = step_us or (None if is_image or metadata is None else metadata.step_us)
    return BenchInput(f"{len(samples)} {noun}s of {source}", samples, stated, constant=is_image)


def samples_of(
    plan: Plan, source: str, *, steps: int | None = None, step_us: int | None = None
) -> Iterator[Array]:
    """The first T steps of each recording or image of a file, a folder or a zip, as they come:
    float32 [T, *input_shape].

    Args:
        steps, step_us: instead of the model's own.

    Raises:
        UsageError, DataError: see `recorded`.
    """
    from mpsl_runtime.events.steps import Rest, cut
    from mpsl_runtime.live.address import is_live
    from mpsl_runtime.live.feed import Feed
    from mpsl_runtime.run.model import Model

    if is_live(source):
        raise UsageError("a live source is never twice the same", got=source, where="--source")
    model = Model(plan, Reference(plan), steps=steps, step_us=step_us)
    if model.takes_images:
        yield from _pictured(plan, source)
        return
    binning = model.binning
    for recording in Feed([source], binning, model.class_names):
        frames = np.zeros((binning.steps, math.prod(plan.input_shape)), np.float32)
        for item in cut(recording, binning, "tumbling"):
            if isinstance(item, Rest) or item.step >= len(frames):
                break
            frames[item.step, item.address] = item.value
        yield frames.reshape(-1, *plan.input_shape)


def _pictured(plan: Plan, source: str) -> Iterator[Array]:
    from mpsl_runtime.data.datasets import image_current
    from mpsl_runtime.data.images import images_of

    metadata = plan.metadata
    if metadata is None:
        raise RuntimeError("a model of images has metadata")
    for image in images_of(source, plan):
        current = image_current(image.pixels, metadata)
        yield np.broadcast_to(current, (metadata.steps, *plan.input_shape))


def from_test_set(plan: Plan, data: Path | None = None, limit: int = 8) -> BenchInput | None:
    """`limit` samples of the test set that the model was made for, evenly spread over it.

    Args:
        data: where it lies; None looks where data sets lie (`datasets.find`), and gives None where
            it is not, or where the model does not name one.

    Raises:
        UsageError: `data` is given, and the model names no data set.
        DataError: `data` is given, and the data set is not there; a damaged sample, or one that
            does not fit the model.
    """
    from mpsl_runtime.data import datasets
    from mpsl_runtime.data.catalogue import DATASETS

    metadata = plan.metadata
    if metadata is None or metadata.dataset not in DATASETS:
        if data is None:
            return None
        raise UsageError("model names no data set", expected="--source", where=plan.source)
    name = metadata.dataset
    root = datasets.look_for(name) if data is None else datasets.find(name, data)
    if root is None:
        return None
    split = datasets.open_split(metadata.dataset, root, "test")
    chosen = np.unique(np.linspace(0, len(split) - 1, limit).astype(int))
    samples = tuple(split.input(int(index), metadata) for index in chosen)
    for index, sample in zip(chosen, samples, strict=True):
        if sample.shape[1:] != plan.input_shape:
            raise DataError(
                "sample does not fit the model",
                got=f"shape {sample.shape[1:]}",
                expected=f"{plan.input_shape}",
                where=f"{split.ids[index]} of {root}",
            )
    is_image = metadata.input_kind == "image"
    return BenchInput(
        f"{len(samples)} test samples of {metadata.dataset}",
        samples,
        None if is_image else metadata.step_us,
        constant=is_image,
    )


def _blob(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Weights of mean 1 over an input, largest in the middle."""
    if len(shape) < 2:
        return np.ones(shape)
    rows, columns = shape[-2:]
    y, x = np.mgrid[0:rows, 0:columns]
    off_centre = ((y - rows / 2) / (rows * 0.3)) ** 2 + ((x - columns / 2) / (columns * 0.3)) ** 2
    blob = np.exp(-off_centre)
    return np.broadcast_to(blob / blob.mean(), shape)
