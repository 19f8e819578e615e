"""The programs that `mpsl verify` holds against training's record, behind one protocol.

A back end runs one exported file. Each may need a package of its own, so its module is imported
when a back end is opened and not before; an export format names those that run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError

__all__ = ["Backend", "LayerActivity", "Outcome", "check_steps", "outputs"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out of a batch.

    Attributes:
        spikes: [T, B, K], of the last population: uint8, or float32 where they are other numbers
            than 0 … 255; see `outputs`.
        membrane: float32 [B, K], its U at the last step; None where nobody reads it.
    """

    spikes: NDArray[np.uint8] | NDArray[np.float32]
    membrane: NDArray[np.float32] | None


def check_steps(frames: NDArray[np.float32]) -> None:
    """Raises DataError: frames [T, B, …] without a time step, of which nothing can come out."""
    if not len(frames):
        raise DataError("input has no time step", got=frames.shape, expected="[T, B, …], T ≥ 1")


def outputs(values: NDArray[np.float32]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """What a program gave, float32, as `Outcome.spikes` holds it."""
    with np.errstate(invalid="ignore", over="ignore"):
        whole = values.astype(np.uint8)
    return whole if (whole == values).all() else values


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one spiking population did over one sample.

    Attributes:
        layer: name of the node in the NIR graph.
        spikes: bool [T, n], neurons in channel-major order.
        membrane: U before the reset, float32 [T, n]; None where the program does not show it.
    """

    layer: str
    spikes: NDArray[np.bool_]
    membrane: NDArray[np.float32] | None = None


class Backend(Protocol):
    """One file in one program.

    Attributes:
        name: as on the command line.
        device: what it runs on: `cpu`, `cuda`, or the execution providers of ONNX Runtime.
    """

    name: str
    device: str

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """Runs B independent samples from rest; `frames` float32 [T, B, C, H, W].

        Raises:
            ModelError: the program fails on this file. DataError: T is 0.
        """
        ...

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """Runs one sample, [T, C, H, W], and keeps what every population did, in order.

        Raises:
            ModelError: the program fails on this file.
        """
        ...
