"""Batches in an order that depends on the seed and the epoch alone.

No random state runs on from epoch to epoch, so a run that was killed and resumed sees the same
batches, changed by the same augmentation, as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mpsl_runtime.data.datasets import image_current
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.recipe import Augmentation

__all__ = ["Batch", "BatchOrder", "Samples", "augment", "to_window"]

Batch = tuple[Tensor, Tensor]
Index = tuple[tuple[int, ...] | None, NDArray[np.int64]]


class BatchOrder(Sampler[Index]):
    """Yields (seed of the batch or None, indices); incomplete batches are dropped in training."""

    def __init__(
        self, indices: NDArray[np.int64], batch_size: int, seed: int | None = None
    ) -> None:
        """
        Args:
            seed: of the order in training; None: as they are, all of them.
        """
        self.indices, self.batch_size, self.seed, self.epoch = indices, batch_size, seed, 0

    def __len__(self) -> int:
        if self.seed is not None:
            return len(self.indices) // self.batch_size
        return -(-len(self.indices) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Index]:
        order = self.indices
        if self.seed is not None:
            order = np.random.default_rng([self.seed, 2, self.epoch]).permutation(order)
        for number in range(len(self)):
            part = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield (None if self.seed is None else (self.seed, 3, self.epoch, number)), part


class Samples(Dataset[Batch]):
    """Samples of a split in memory, handed out a batch at a time.

    Attributes:
        frames: unsigned event counts [N, T, C, H, W], or images [N, C, H, W].
        labels: int64 [N].
        share: (rank, processes): a batch of training is cut into so many parts of equal size.
    """

    def __init__(
        self,
        frames: NDArray[np.unsignedinteger],
        labels: NDArray[np.int64],
        metadata: ModelMetadata,
        augmentation: Augmentation | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.frames, self.labels, self.metadata = frames, labels, metadata
        self.augmentation = augmentation or Augmentation()
        self.share = share

    def __getitem__(self, index: Index) -> Batch:
        seed, indices = index
        if seed is None:
            frames = self.frames[indices]
        else:
            count, (rank, parts) = len(indices), self.share
            first = rank * (count // parts)
            indices = indices[first : first + count // parts]
            generator = np.random.default_rng(seed)
            frames = augment(self.frames[indices], self.augmentation, generator, first, count)
        values: NDArray[np.generic]
        if self.metadata.input_kind == "image":
            values = image_current(frames.astype(np.uint8, copy=False), self.metadata)
        else:
            # Converted on the device: a quarter of the bytes to move.
            values = frames if frames.dtype == np.uint8 else frames.astype(np.float32)
        return torch.from_numpy(values), torch.from_numpy(self.labels[indices])


def to_window(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch as the network takes it: [B, T, C, H, W] becomes [T, B, C, H, W] of floating point; a
    constant current [B, C, H, W] stays."""
    values = values.to(dtype)
    return values if values.dim() == 4 else values.transpose(0, 1).contiguous()


def augment(
    frames: NDArray[np.unsignedinteger],
    how: Augmentation,
    generator: np.random.Generator,
    first: int = 0,
    count: int | None = None,
) -> NDArray[np.unsignedinteger]:
    """Randomly changed copies; all steps of a sample are changed alike.

    Args:
        frames: [B, …, H, W].
        first, count: these are samples first … first + B − 1 of a batch of `count`, and are changed
            as they would be in the whole batch.
    """
    reach = how.shift + how.crop
    if not reach and not how.flip:
        return frames
    rows, columns = frames.shape[-2:]
    padded = np.pad(frames, [(0, 0)] * (frames.ndim - 2) + [(reach, reach)] * 2)
    out = np.empty_like(frames)
    count = len(frames) if count is None else count
    places = generator.integers(0, 2 * reach + 1, (count, 2))[first : first + len(frames)]
    mirrored = generator.random(count) < 0.5 if how.flip else np.zeros(count, bool)
    mirrored = mirrored[first : first + len(frames)]
    for index, ((top, left), mirror) in enumerate(zip(places, mirrored, strict=True)):
        one = padded[index, ..., top : top + rows, left : left + columns]
        out[index] = one[..., ::-1] if mirror else one
    return out
