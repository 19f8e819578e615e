"""What `mpsl verify --dump` writes: samples, and for each file what it was judged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing

__all__ = ["write_dump"]


def write_dump(
    path: Path,
    frames: Sequence[NDArray[np.float32]],
    ids: Sequence[str],
    right: Mapping[str, NDArray[np.uint8]],
) -> None:
    """Writes `input` [T, B, C, H, W], `ids` [B], and `spikes` [T, B, K], float32: what the files
    were judged against. Where that is not the same for all, `spikes` is that of the first, and each
    has its own as `spikes:NAME`.

    Args:
        frames: batches of the input. right: by the name of a file, uint8 [N, T, K].

    Raises:
        OutputError: it cannot be written.
    """
    spikes = {name: values.swapaxes(0, 1).astype(np.float32) for name, values in right.items()}
    first = next(iter(spikes.values()))
    arrays: dict[str, Any] = {
        "input": np.concatenate(frames, axis=1),
        "ids": np.array(ids),
        "spikes": first,
    }
    if any(not np.array_equal(values, first) for values in spikes.values()):
        arrays |= {f"spikes:{name}": values for name, values in spikes.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
