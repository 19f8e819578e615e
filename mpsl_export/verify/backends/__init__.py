"""The programs that `mpsl verify` holds against training's record, behind one protocol.

A back end runs one artifact. Each may need a package of its own, so their modules are imported
when a back end is opened and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError

__all__ = ["NAMES", "SUFFIXES", "Backend", "Outcome", "Recording", "open_backend"]

# What each back end reads.
SUFFIXES = {
    "torch": ".nir",
    "onnx": ".onnx",
    "reference": ".nir",
    "engine": ".nir",
    "norse": ".nir",
}
NAMES = tuple(SUFFIXES)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out of a batch.

    Attributes:
        spikes: uint8 [T, B, K], of the last population.
        membrane: float32 [B, K], its U at the last step; None where nobody reads it.
    """

    spikes: NDArray[np.uint8]
    membrane: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Recording:
    """One spiking population over one sample.

    Attributes:
        layer: name of the node in the NIR graph.
        spikes: bool [T, n], neurons in channel-major order.
        membrane: U before the reset, float32 [T, n]; None where the program does not show it.
    """

    layer: str
    spikes: NDArray[np.bool_]
    membrane: NDArray[np.float32] | None = None


class Backend(Protocol):
    """One artifact in one program.

    Attributes:
        name: as on the command line.
        device: what it runs on: `cpu`, `cuda`, or the execution providers of ONNX Runtime.
    """

    name: str
    device: str

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """Runs B independent samples from rest; `frames` float32 [T, B, C, H, W]."""
        ...

    def record(self, frames: NDArray[np.float32]) -> list[Recording]:
        """Runs one sample, [T, C, H, W], and keeps what every population did, in order."""
        ...


def open_backend(name: str, model: Path) -> Backend:
    """Loads `model` into the back end `name`.

    Raises:
        UsageError: no such back end, it does not read such a file, or norse is not installed.
        ModelError: the file is damaged. MissingExtraError: ONNX Runtime is not installed.
    """
    if name not in SUFFIXES:
        raise UsageError("unknown back end", got=name, expected=", ".join(NAMES))
    if model.suffix != SUFFIXES[name]:
        raise UsageError(
            f"back end {name} does not read this file",
            got=model.name,
            expected=f"a {SUFFIXES[name]} file",
        )
    if name == "onnx":
        from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime

        return OnnxRuntime(model)
    if name == "norse":
        from mpsl_export.verify.backends.norse_reader import Norse

        return Norse(model)
    from mpsl_runtime.model.graph import load_plan

    plan = load_plan(model)
    if name == "torch":
        from mpsl_export.verify.backends.torch_plan import TorchPlan

        return TorchPlan(plan)
    from mpsl_export.verify.backends.native import Native

    return Native(plan, name)
