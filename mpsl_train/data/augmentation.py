"""Random changes of training samples, decided by the seed, the epoch and the sample alone.

So a run that was resumed sees what one that was not sees, and each of several processes changes its
share of a batch as one process would. All steps of a sample are changed alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.recipe import Augmentation

__all__ = ["Frames", "Mixture", "augment", "check_augmentation", "mixture"]

Frames = NDArray[np.unsignedinteger]
_IMAGES = ("cutout", "colour_jitter", "mixup")
_EVENTS = ("drop", "drop_area", "time_shift")
# Drawn for each sample by itself, and not for its batch.
_OF_A_SAMPLE = ("cutout", "colour_jitter", "drop", "drop_area", "time_shift")
# ITU-R BT.601: how much of each channel a grey value takes.
_GREY = (0.299, 0.587, 0.114)


def check_augmentation(how: Augmentation, metadata: ModelMetadata, shape: Sequence[int]) -> None:
    """Whether every change that the recipe asks for suits its data.

    Args:
        metadata: of the run. shape: [C, H, W] of one step's input.

    Raises:
        UsageError: one does not; it names the key.
    """
    kind, facts = metadata.input_kind, datasets.facts_of(metadata.dataset)
    for key in _EVENTS if kind == "image" else _IMAGES:
        if getattr(how, key):
            raise UsageError(
                f"{key} is no change of {'images' if kind == 'image' else 'events'}",
                got=getattr(how, key), expected="0", where=f"recipe key augmentation.{key}",
            )  # fmt: skip
    if how.flip and not facts.flips:
        raise UsageError(
            f"labels of {metadata.dataset} do not survive a flip", got="true", expected="false",
            where="recipe key augmentation.flip",
        )  # fmt: skip
    for key, end in (("cutout", min(shape[1:])), ("time_shift", metadata.steps)):
        if getattr(how, key) >= end:
            raise UsageError(
                f"{key} leaves nothing of a sample", got=getattr(how, key), expected=f"< {end}",
                where=f"recipe key augmentation.{key}",
            )  # fmt: skip


def augment(
    frames: Frames,
    how: Augmentation,
    batch: Sequence[int],
    indices: NDArray[np.int64],
    positions: NDArray[np.int64],
    metadata: ModelMetadata,
) -> Frames:
    """Changed copies of some samples of a batch.

    Args:
        frames: of these samples, events [n, T, C, H, W] or images [n, C, H, W].
        batch: (seed, 3, epoch, number) of the batch.
        indices: of all samples of the batch in the split. positions: of these among them.
        metadata: whose `image_mean` fills what cutout takes away.
    """
    moves = np.random.default_rng(batch)
    if not any(getattr(how, key) for key in _OF_A_SAMPLE):
        return _move(frames, how, moves, positions, len(indices))
    places = [_numbers(batch, int(indices[position])) for position in positions]
    draws = np.array([draw for draw, _ in places])
    if how.colour_jitter:
        frames = _jitter(frames, how.colour_jitter, draws[:, 0:3])
    frames = _move(frames, how, moves, positions, len(indices))
    if how.cutout:
        frames = frames.copy()
        size = (how.cutout, how.cutout)
        for one, (row, column) in zip(frames, draws[:, 3:5], strict=True):
            one[_box(one.shape, (row, column), size)] = _fill(metadata)
    if how.time_shift:
        frames = _later(frames, np.floor(draws[:, 5] * (2 * how.time_shift + 1)) - how.time_shift)
    if how.drop_area:
        frames = frames.copy()
        for one, (part, row, column) in zip(frames, draws[:, 6:9], strict=True):
            size = tuple(round(part * how.drop_area * length) for length in one.shape[-2:])
            one[_box(one.shape, (row, column), size)] = 0
    if how.drop:
        frames = frames.copy()
        for one, draw, (_, generator) in zip(frames, draws[:, 9], places, strict=True):
            present = one > 0
            one[present] = generator.binomial(one[present], 1 - draw * how.drop)
    return frames


def _numbers(batch: Sequence[int], index: int) -> tuple[NDArray[np.float64], np.random.Generator]:
    """What a sample's changes are made of: ten numbers in [0, 1), each with a fixed use, so that
    one key does not change what another draws; and a generator for more."""
    seed, _, epoch, _ = batch
    generator = np.random.default_rng([seed, 8, epoch, index])
    return generator.random(10), generator


def _move(
    frames: Frames,
    how: Augmentation,
    generator: np.random.Generator,
    positions: NDArray[np.int64],
    count: int,
) -> Frames:
    """Shift, crop and flip, drawn for a whole batch of `count`."""
    reach = how.shift + how.crop
    if not reach and not how.flip:
        return frames
    rows, columns = frames.shape[-2:]
    padded = np.pad(frames, [(0, 0)] * (frames.ndim - 2) + [(reach, reach)] * 2)
    top, left = generator.integers(0, 2 * reach + 1, (count, 2))[positions].T
    # All places of the window, of which each sample takes one: [n, …, top, left, rows, columns].
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), (-2, -1))
    out: Frames = windows[np.arange(len(frames)), ..., top, left, :, :]
    if how.flip:
        mirrored = (generator.random(count) < 0.5)[positions]
        out[mirrored] = out[mirrored][..., ::-1]
    return out


def _box(
    shape: tuple[int, ...], centre: tuple[float, float], size: tuple[int, ...]
) -> tuple[object, ...]:
    """A rectangle of `size` rows and columns around a pixel anywhere; what is outside is cut off.

    Args:
        centre: numbers in [0, 1).
    """
    parts = []
    for length, where, extent in zip(shape[-2:], centre, size, strict=True):
        begin = int(where * length) - extent // 2
        parts.append(slice(max(0, begin), max(0, begin + extent)))
    return (..., *parts)


def _fill(metadata: ModelMetadata) -> NDArray[np.uint8]:
    """Black; of normalised images the mean colour, which is no current. [C or 1, 1, 1]"""
    mean = [float(word) for word in metadata.image_mean.split(",") if word]
    colour: NDArray[np.uint8] = np.rint(255 * np.array(mean or [0.0])).astype(np.uint8)
    return colour[:, None, None]


def _jitter(images: Frames, strength: float, draws: NDArray[np.float64]) -> Frames:
    """Brightness, contrast and, of three channels, saturation, in this order, rounded once.

    Args:
        images: [n, C, H, W]. draws: [n, 3] in [0, 1), factors in [1 − strength, 1 + strength).
    """
    factors = 1 + strength * (2 * draws - 1)
    brightness, contrast, saturation = (part[:, None, None, None] for part in factors.T)
    values = images * brightness
    colours = images.shape[1] == len(_GREY)
    grey = np.tensordot(values, _GREY, (1, 0))[:, None] if colours else values.mean(1)[:, None]
    mean = grey.mean((1, 2, 3), keepdims=True)
    values = mean + contrast * (values - mean)
    if colours:
        grey = mean + contrast * (grey - mean)
        values = grey + saturation * (values - grey)
    jittered: Frames = np.rint(values.clip(0, 255)).astype(images.dtype)
    return jittered


def _later(frames: Frames, steps: NDArray[np.float64]) -> Frames:
    """Each recording so many steps later, or earlier where negative; silence moves in."""
    out = np.zeros_like(frames)
    for one, old, by in zip(out, frames, steps.astype(int), strict=True):
        if by >= 0:
            one[by:] = old[: len(old) - by]
        else:
            one[:by] = old[-by:]
    return out


class Mixture:
    """Mixup (Zhang et al. 2018) of one batch: each sample with another of the batch.

    Attributes:
        share: λ of Beta(α, α), of a sample itself. partners: the other's position, for each
            position in the batch.
    """

    def __init__(self, share: float, partners: NDArray[np.int64]) -> None:
        self.share, self.partners = share, partners

    def images(self, own: Frames, other: Frames) -> Frames:
        """λ·own + (1 − λ)·other, rounded to whole pixel values."""
        mixed = self.share * own + (1 - self.share) * other.astype(np.float64)
        return np.rint(mixed).astype(own.dtype)

    def labels(
        self, own: NDArray[np.int64], other: NDArray[np.int64], classes: int
    ) -> NDArray[np.float32]:
        """What the output should be: the same mixture of one-hot labels, [n, classes]."""
        target = np.zeros((len(own), classes), np.float32)
        rows = np.arange(len(own))
        np.add.at(target, (rows, own), np.float32(self.share))
        np.add.at(target, (rows, other), np.float32(1 - self.share))
        return target


def mixture(alpha: float, batch: Sequence[int], count: int) -> Mixture:
    """The mixture of a batch of `count` samples, whose key `batch` is."""
    generator = np.random.default_rng([*batch, 1])
    return Mixture(float(generator.beta(alpha, alpha)), generator.permutation(count))
