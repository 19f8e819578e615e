"""The last T steps of the output, summed up: what a decision is made of.

The sum is not made anew for each step: a step costs the same however long the window is.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.kept import Kept
from mpsl_runtime.model import readout as read_out
from mpsl_runtime.model.readout import Readout

__all__ = ["HasMembrane", "Window"]


class HasMembrane(Protocol):
    """What `membrane` scores are read from: an engine."""

    @property
    def membrane(self) -> NDArray[np.float32]:
        """U of the last population [K]."""


class Window:
    """Scores over the last T steps (fewer after a reset).

    The window is a queue of two parts. Of the newer part the steps and their sum are kept, of the
    older part the sum from each step on, so that the oldest step leaves by moving on by one. When
    the older part is used up, it is made of the newer one: once in T steps. Nothing is ever
    subtracted, so that no rounding and no infinity outlives its step.

    Args:
        readout: `count` or `membrane`.
        steps: T.

    Attributes:
        readout: as given.
    """

    def __init__(self, readout: Readout, steps: int) -> None:
        self.readout = readout
        self._steps = steps
        self.clear()

    def clear(self) -> None:
        """Forgets all steps."""
        self._newer: list[NDArray[np.float32]] = []
        self._sum = np.zeros(1)  # of the newer part [K]
        self._older = np.zeros((0, 1))  # [step of the older part, K]: the sum from there on
        self._gone = 0  # steps of the older part that have left

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        newer = np.stack(self._newer) if self._newer else np.zeros((0, 1), np.float32)
        return {"newer": newer, "older": self._older, "gone": self._gone}

    def restore(self, kept: Kept, outputs: int) -> None:
        """Goes on where `kept` was taken, of a network with so many outputs; DataError where that
        cannot be."""
        self.clear()
        newer = kept.array("newer", np.float32, (None, None))
        older = kept.array("older", np.float64, (None, None))
        self._gone = kept.integer("gone", 0, len(older))
        for part in (newer, older):
            if len(part) and part.shape[1] != outputs:
                raise DataError(
                    "state is damaged", got=f"{part.shape[1]} outputs", where=kept.where
                )
        if len(newer) + len(older) - self._gone > self._steps:
            raise DataError("state is damaged", got="too many steps", where=kept.where)
        self._newer, self._older = list(newer), older
        for spikes in newer:  # in the order in which they were added
            self._sum = self._sum + spikes

    def push(self, spikes: NDArray[np.float32], runner: HasMembrane) -> NDArray[np.float32]:
        """Adds the spikes of one step [K]; returns the scores [K]."""
        if self.readout == "membrane":
            membrane = np.array(runner.membrane, np.float32).reshape(-1)
            return read_out.scores("membrane", spikes, membrane)
        if len(self._newer) + len(self._older) - self._gone == self._steps:
            self._forget_oldest()
        self._newer.append(spikes)
        self._sum = self._sum + spikes
        older = self._older[self._gone] if self._gone < len(self._older) else 0.0
        return read_out.scores("count", (older + self._sum)[None])

    def _forget_oldest(self) -> None:
        if self._gone == len(self._older):
            newest_first = np.array(self._newer, np.float64)[::-1]
            self._older = newest_first.cumsum(axis=0)[::-1]
            self._newer, self._sum, self._gone = [], np.zeros(1), 0
        self._gone += 1
