"""A program that has loaded a file, and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import Backend, Outcome
from mpsl_runtime.errors import MpslError
from mpsl_runtime.model import readout
from mpsl_runtime.model.readout import Readout

__all__ = ["BackendRun"]


@dataclass(eq=False)
class BackendRun:
    """One back end, over the samples that it was given.

    Attributes:
        backend: the program with its file.
        own_units: it may round where an int8 model does not.
        fault: why it could not run a sample; then it has no outputs.
    """

    backend: Backend
    own_units: bool = False
    fault: str = ""
    _outcomes: list[Outcome] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the back end."""
        return self.backend.name

    def take(self, frames: NDArray[np.float32]) -> None:
        """Runs a batch, [T, B, C, H, W], and keeps what comes out; nothing after a fault."""
        if self.fault:
            return
        try:
            self._outcomes.append(self.backend.run(frames))
        except MpslError as error:
            self.fault = str(error)

    @property
    def spikes(self) -> NDArray[np.uint8]:
        """[N, T, K]"""
        return np.concatenate([o.spikes for o in self._outcomes], axis=1).swapaxes(0, 1)

    def scores(self, rule: Readout) -> NDArray[np.float32]:
        """[N, K]"""
        membranes = [o.membrane for o in self._outcomes if o.membrane is not None]
        membrane = np.concatenate(membranes) if membranes else None
        return readout.scores(rule, self.spikes.swapaxes(0, 1), membrane)
