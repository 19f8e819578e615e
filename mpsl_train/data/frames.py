"""Network input for training: a split's samples in memory, binned once and cached on disk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data import datasets
from mpsl_runtime.events import binning
from mpsl_runtime.model.metadata import ENCODING_VERSION, ModelMetadata
from mpsl_train.data.frame_cache import FrameCache
from mpsl_train.recipe import Recipe

__all__ = ["cache_folder", "input_shape", "load_frames", "metadata_of"]


def cache_folder() -> Path:
    """`$MPSL_CACHE`, else `~/.cache/mpsl`."""
    named = os.environ.get("MPSL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "mpsl"


def _grid(recipe: Recipe, facts: datasets.DatasetFacts) -> float:
    if facts.kind == "events":
        return 1.0
    return 1 / 64 if recipe.data.image_mean or recipe.data.image_std else 1 / 256


def metadata_of(recipe: Recipe, recipe_hash: str = "") -> ModelMetadata:
    """What the run folder, and later the model, says about its input.

    Args:
        recipe_hash: sha256 of the recipe's text as the run folder has it; "": as it would be now.

    Raises:
        UsageError: the data set is not known, or the crop does not fit its sensor.
    """
    facts = datasets.facts_of(recipe.data.dataset)
    data = recipe.data
    rows_columns = facts.image_shape[1:] if facts.image_shape else (0, 0)
    width, height = facts.sensor_size if facts.kind == "events" else rows_columns[::-1]
    metadata = ModelMetadata(
        mpsl=ENCODING_VERSION,
        dataset=data.dataset,
        network=recipe.network,
        input_kind=facts.kind,
        steps=data.steps,
        step_us=data.step_us if facts.kind == "events" else 1,
        coding=data.coding,
        origin=facts.origin,
        downsample=data.downsample if facts.kind == "events" else 1,
        sensor_width=width,
        sensor_height=height,
        crop=",".join(str(part) for part in data.crop or []),
        image_mean=",".join(repr(value) for value in data.image_mean),
        image_std=",".join(repr(value) for value in data.image_std),
        input_grid=_grid(recipe, facts),
        classes=",".join(facts.class_names),
        readout="membrane" if recipe.training.loss == "ce-membrane" else "count",
        dt_s=1e-4,
        recipe_hash=recipe_hash or recipe.hash(),
    )
    if facts.kind == "events":
        _ = metadata.binning.shape
    return metadata


def input_shape(metadata: ModelMetadata) -> tuple[int, int, int]:
    """[C, H, W] of one step."""
    if metadata.input_kind == "events":
        return metadata.binning.shape
    shape = datasets.DATASETS[metadata.dataset].image_shape
    if shape is None:
        raise ValueError(f"{metadata.dataset} has no image shape")
    return shape


def load_frames(
    split: datasets.Split, metadata: ModelMetadata, content: str
) -> NDArray[np.unsignedinteger]:
    """All samples of a split: event counts [N, T, C, H, W], or images [N, C, H, W], unsigned.

    Args:
        content: `datasets.content_hash(split)`.

    Raises:
        DataError: a recording is damaged.
    """
    if split.kind == "image":
        return split.images()
    rule = metadata.binning
    shape = (len(split), rule.steps, *rule.shape)
    key = hashlib.sha256(f"frames 2\n{content}\n{sorted(asdict(rule).items())}".encode())
    cached = FrameCache(cache_folder() / "frames", key.hexdigest())
    known = cached.read(shape)
    if known is not None:
        return known
    frames: NDArray[np.unsignedinteger] = np.zeros(shape, np.uint8)
    for index in range(len(split)):
        one = binning.frames(split.events(index), rule)
        if one.max(initial=0) > np.iinfo(frames.dtype).max:
            frames = frames.astype(np.uint16 if one.max() < 65536 else np.uint32)
        frames[index] = one
    cached.write(frames)
    return frames
