"""Which training samples are held out: defined once, because training and export both need it.

Early stopping, the choice of an epoch and the calibration of an int8 model see the held-out
samples alone; the test samples are read once, at the end (DESIGN §4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["stratified_split"]


def stratified_split(
    labels: NDArray[np.int64], fraction: float, seed: int, limit: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and validation samples: every class gives the same part, at random.

    Args:
        labels: of the whole training split, in its order.
        fraction: part that is held out. limit: keep only so many samples in all, 0 = all.
        seed: of the recipe.
    """
    generator = np.random.default_rng([seed, 1])
    order = generator.permutation(len(labels))
    if 0 < limit < len(order):
        order = order[:limit]
    held = []
    for label in np.unique(labels[order]):
        members = order[labels[order] == label]
        held.append(members[: round(fraction * len(members))])
    validation = np.sort(np.concatenate(held))
    training = np.setdiff1d(order, validation)
    return training.astype(np.int64), validation.astype(np.int64)
