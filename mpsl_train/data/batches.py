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
from mpsl_train.data.augmentation import Frames, augment, mixture
from mpsl_train.recipe import Augmentation

__all__ = ["Batch", "BatchOrder", "Samples", "to_window"]

Batch = tuple[Tensor, Tensor]
"""Input, and labels: classes int64 [B], or of mixed samples float32 [B, classes]."""
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
        batch, indices = index
        labels: NDArray[np.generic] = self.labels[indices]
        if batch is None:
            frames = self.frames[indices]
        else:
            rank, parts = self.share
            size = len(indices) // parts
            own = np.arange(rank * size, (rank + 1) * size)
            frames, labels = self._changed(batch, indices, own), labels[own]
            if self.augmentation.mixup:
                mixed = mixture(self.augmentation.mixup, batch, len(indices))
                other = mixed.partners[own]
                frames = mixed.images(frames, self._changed(batch, indices, other))
                classes = len(self.metadata.class_names)
                labels = mixed.labels(
                    self.labels[indices[own]], self.labels[indices[other]], classes
                )
        values: NDArray[np.generic]
        if self.metadata.input_kind == "image":
            values = image_current(frames.astype(np.uint8, copy=False), self.metadata)
        else:
            # Converted on the device: a quarter of the bytes to move.
            values = frames if frames.dtype == np.uint8 else frames.astype(np.float32)
        return torch.from_numpy(values), torch.from_numpy(labels)

    def _changed(
        self, batch: tuple[int, ...], indices: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> Frames:
        """Some samples of a batch of training, augmented."""
        frames = self.frames[indices[positions]]
        return augment(frames, self.augmentation, batch, indices, positions, self.metadata)


def to_window(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch as the network takes it: [B, T, C, H, W] becomes [T, B, C, H, W] of floating point; a
    constant current [B, C, H, W] stays."""
    values = values.to(dtype)
    return values if values.dim() == 4 else values.transpose(0, 1).contiguous()
