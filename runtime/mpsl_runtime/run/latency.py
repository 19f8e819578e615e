"""How long steps took: a histogram of constant memory, however long a camera runs.

Its bounds are 1.00, 1.01, … 9.99 times a power of ten, as in log-linear histograms (H. Schwartz et
al., "Circllhist", 2020): a percentile is right within 1 %, and every bound that a reader of
`/metrics` may want (1 ms, 2.5 ms, 5 ms) is one of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.kept import Kept

__all__ = ["LatencyHistogram"]

_PARTS = 900  # of a decade
_FIRST_DECADE, _DECADES = -1, 10  # 0.1 µs … 1000 s
_BINS = _PARTS * _DECADES


def _bin(microseconds: float) -> int:
    """The bin that holds a time; what is outside falls into the first or the last one."""
    if not microseconds >= 10.0**_FIRST_DECADE:
        return 0
    decade = math.floor(math.log10(microseconds))
    # Rounded to where a bound stays what it is written as: 2.5 is not 2.49.
    part = math.floor(round(microseconds / 10.0**decade * 100, 6)) - 100
    place = (decade - _FIRST_DECADE) * _PARTS + part
    return min(max(place, 0), _BINS - 1)


class LatencyHistogram:
    """Times that are added one by one.

    Attributes:
        count: of them. sum_us, max_us: their sum, and the longest, in microseconds.
    """

    def __init__(self) -> None:
        self._bins: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.count = 0
        self.sum_us = self.max_us = 0.0

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        filled = np.flatnonzero(self._bins)
        counts = self._bins[filled]
        return {"bins": filled, "counts": counts, "sum_us": self.sum_us, "max_us": self.max_us}

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken; DataError where that cannot be."""
        filled = kept.array("bins", np.int64)
        counts = kept.array("counts", np.int64, (len(filled),))
        if len(filled) and not (0 <= filled.min() <= filled.max() < _BINS and counts.min() >= 0):
            raise DataError("state is damaged", got="times that cannot be", where=kept.where)
        self._bins = np.zeros(_BINS, np.int64)
        self._bins[filled] = counts
        self.count = int(counts.sum())
        self.sum_us, self.max_us = kept.number("sum_us"), kept.number("max_us")

    def add(self, microseconds: float) -> None:
        """A step took so long."""
        self._bins[_bin(microseconds)] += 1
        self.count += 1
        self.sum_us += microseconds
        self.max_us = max(self.max_us, microseconds)

    def below(self, microseconds: float) -> int:
        """How many took no longer than a bound; exact for 1.00, 1.01, … 9.99 times a power of ten,
        up to times that equal the bound."""
        return int(self._bins[: _bin(microseconds)].sum())

    def percentile(self, share: float) -> float:
        """The time in µs that this share (0 … 1) of the steps did not exceed, within 1 %."""
        if not self.count:
            return 0.0
        if share >= 1:
            return self.max_us
        rank = max(1, math.ceil(share * self.count))
        place = int(np.searchsorted(self._bins.cumsum(), rank))
        decade, part = divmod(place, _PARTS)
        middle = (100.5 + part) / 100 * 10.0 ** (decade + _FIRST_DECADE)
        return min(middle, self.max_us)
