"""Dropout's masks of one window, drawn before it begins.

Every way to train a window takes the same masks, and every process draws those of the whole batch
and keeps the rows of its own samples: N processes then learn what one learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from mpsl_train.network.processes import place
from mpsl_train.notation import LayerSpec

__all__ = ["Masks", "draw_masks"]

Masks = Sequence[Tensor | None]
"""Of each layer: [B, …] in the shape of what enters its weights, 0 or 1/keep; None: no dropout."""


def _entering(spec: LayerSpec, below: Sequence[int]) -> tuple[int, ...]:
    """Shape of what enters the weights for one sample, from what the layer below fires."""
    shape = tuple(below)
    if spec.pool_before > 1:
        shape = (shape[0], *(length // spec.pool_before for length in shape[1:]))
    return (prod(shape),) if spec.flatten_before else shape


def draw_masks(specs: Sequence[LayerSpec], frames: Tensor) -> list[Tensor | None]:
    """The masks of a window, from torch's global random state: that of the caller decides them.

    Drawn layer by layer, sample by sample of the batch of all processes, which have as many samples
    each. Nothing is drawn for a layer without dropout.

    Args:
        frames: [T, B, C, H, W] or [B, C, H, W], of this process.
    """
    rank, world = place()
    batch, below = frames.shape[-4], tuple(frames.shape[-3:])
    masks: list[Tensor | None] = []
    for spec in specs:
        if spec.dropout_before > 0:
            keep = 1 - spec.dropout_before
            shape = (world * batch, *_entering(spec, below))
            whole = torch.empty(shape, dtype=frames.dtype, device=frames.device)
            whole.bernoulli_(keep).div_(keep)
            masks.append(whole[rank * batch : (rank + 1) * batch])
        else:
            masks.append(None)
        below = spec.neurons
    return masks
