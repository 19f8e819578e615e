"""Several weight banks of a layer -> its one weight: Eq. 12, and what is folded into it.

    W = (λ1·W1 + λ2·W2) + λ3·W3                                                       Eq. 12

in float32 and in this order, which is the order in which training adds the banks (Eq. 5), so that
all hold the same bits. The exporter merges by it, and banks that go on learning are merged by it
again at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["effective_weight", "folded"]

Array = NDArray[np.float32]


def effective_weight(banks: Sequence[Array], coefficients: Array) -> Array:
    """Eq. 12, float32.

    Args:
        banks: at least one, [Co, Ci, kh, kw] or [out, in]. coefficients: λ, [m] or [m, Co].
    """
    tail = (1,) * (banks[0].ndim - 1)
    total: Array | None = None
    for bank, coefficient in zip(banks, coefficients, strict=True):
        scale = coefficient.reshape(-1, *tail) if coefficient.ndim else coefficient
        part = scale * bank
        total = part if total is None else total + part
    if total is None:
        raise ValueError("a layer without banks")
    return np.asarray(total, dtype=np.float32)


def folded(weight: Array, scale: NDArray[np.float64]) -> Array:
    """A weight with the pooling before it (1/k²) and the normalisation behind it: multiplied in
    float64, rounded once. A scale of 1 changes no bit.

    Args:
        weight: [Co, …]. scale: float64 [Co].
    """
    wide = weight.astype(np.float64) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return wide.astype(np.float32)
