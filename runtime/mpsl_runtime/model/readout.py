"""From output spikes to a label: defined once, here (DESIGN §1).

`count`: the spikes of each output neuron over the last T steps; ties go to the lowest class.
`membrane`: the membrane potential U of the last layer at the last step.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Readout", "confidence", "label", "scores"]

Readout = Literal["count", "membrane"]


def scores(
    readout: Readout, spikes: NDArray[np.generic], membrane: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Class scores of one window.

    Args:
        readout: `count` or `membrane`.
        spikes: output spikes [T, …, K].
        membrane: U of the last layer at the last step [..., K]; needed by `membrane`.

    Returns:
        float32 [..., K].
    """
    if readout == "membrane":
        if membrane is None:
            raise TypeError("readout 'membrane' needs the membrane potential")
        return np.asarray(membrane, dtype=np.float32)
    count: NDArray[np.float32] = np.asarray(spikes, dtype=np.float32).sum(axis=0, dtype=np.float32)
    return count


def label(class_scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class with the highest score; ties go to the lowest class. [..., K] -> [...]."""
    return np.asarray(np.argmax(class_scores, axis=-1), dtype=np.int64)


def confidence(readout: Readout, class_scores: NDArray[np.float32]) -> float:
    """Confidence in the label of one window [K], 0…1: score/Σscores, or softmax for `membrane`.

    Without a single output spike it is 0.
    """
    values = np.asarray(class_scores, dtype=np.float64)
    if readout == "membrane":
        exponent = np.exp(values - values.max())
        return float(exponent.max() / exponent.sum())
    total = values.sum()
    return float(values.max() / total) if total > 0 else 0.0
