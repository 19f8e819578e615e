"""The input of an int8 model, held against what its proof covers (`grid`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.model.metadata import ModelMetadata

__all__ = ["InputBound"]


class InputBound:
    """Refuses input of an int8 model beyond what its proof covers; passes any other model's."""

    def __init__(self, metadata: ModelMetadata | None) -> None:
        self._bound = np.float32(np.inf)
        self._grid = np.float32(1)
        self._is_int8 = metadata is not None and metadata.weights == "int8"
        if metadata is not None and self._is_int8 and metadata.input_grid > 0:
            self._grid = np.float32(metadata.input_grid)
            self._bound = np.float32(metadata.input_max or np.inf)

    def check(self, values: NDArray[np.float32]) -> None:
        """Checks frames, or the values of sparse input, float32.

        Raises:
            DataError: a value is larger than `input_max`, or no multiple of `input_grid`.
        """
        if not self._is_int8 or not values.size:
            return
        quanta = values if self._grid == 1 else values / self._grid
        largest = max(quanta.max(), -quanta.min())
        if largest > self._bound:
            raise DataError(
                "input is larger than this int8 model was proven exact for",
                got=f"{largest:g} in one step, in units of {self._grid:g}",
                expected=f"≤ {self._bound:g}",
            )
        off = np.rint(quanta) != quanta
        if off.any():
            raise DataError(
                "input of an int8 model is off its grid",
                got=float(values[off].flat[0]),
                expected=f"multiples of {self._grid:g}",
            )
