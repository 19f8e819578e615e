"""How tensors lie in memory for the passes and products on CUDA: channels last, steps first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "dense",
    "flat_weight",
    "folded",
    "patches_of",
    "power_of_two",
    "rows_of",
    "stacked",
    "steps_apart",
]

_ALIGNED = 8  # columns of a matrix, for tensor cores


def dense(x: Tensor) -> Tensor:
    """Channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def rows_of(x: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of [B, C, H, W] or [B, C]."""
    return (x.shape[1], x.shape[2], x.shape[3]) if x.dim() == 4 else (x.shape[1], 1, 1)


def power_of_two(count: int) -> int:
    """The power of two that is not below."""
    return 1 << (count - 1).bit_length()


def flat_weight(weight: Tensor) -> Tensor:
    """[Co, kh·kw·Ci] of [Co, Ci, kh, kw], as it lies in memory."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def patches_of(
    x: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """What each output position sees, [B·Ho·Wo, kh·kw·Ci up to a multiple of 8].

    Args:
        shape: of the weights.
    """
    padded = F.pad(x, (padding[1],) * 2 + (padding[0],) * 2)
    windows = padded.unfold(2, shape[2], stride[0]).unfold(3, shape[3], stride[1])
    batch, channels, rows, columns, high, wide = windows.shape
    length = high * wide * channels
    out = padded.new_zeros((batch, rows, columns, -(-length // _ALIGNED) * _ALIGNED))
    seen = out[..., :length].view(batch, rows, columns, high, wide, channels)
    seen.copy_(windows.permute(0, 2, 3, 4, 5, 1))
    return out.flatten(0, 2)


def folded(x: Tensor) -> Tensor:
    """[T, B, …] with channels last in memory, step after step."""
    return steps_apart(dense(x.flatten(0, 1)), len(x))


def stacked(one: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Room for T tensors like this one, [T, B, …], laid out alike."""
    shape = (steps * len(one), *one.shape[1:])
    if one.dim() == 2:
        return steps_apart(one.new_empty(shape, dtype=dtype), steps)
    batch, channels, rows, columns = shape
    out = one.new_empty((batch, rows, columns, channels), dtype=dtype).permute(0, 3, 1, 2)
    return steps_apart(out, steps)


def steps_apart(x: Tensor, steps: int) -> Tensor:
    """[T·B, …] as [T, B, …]."""
    return x.view(steps, -1, *x.shape[1:])
