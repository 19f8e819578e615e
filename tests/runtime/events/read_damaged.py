"""Reads every file of a folder as a model, in a process of its own; for test_damaged_files.py.

A line before each file and one after it, so that whoever waits knows which one ended or held up the
process. Anything but an `MpslError` of one line leaves as a traceback.

    python tests/runtime/read_damaged.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MpslError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]


def verdict(path: Path) -> str:
    """`refused: …`, `equal` or `tie`; an exception where that is not what happens."""
    try:
        plan = load_plan(path, dt_s=1e-4 if "foreign" in path.name else None)
        engine = Engine(plan)
        frames = np.random.default_rng(0).integers(0, 3, (3, *plan.input_shape))
        return compared(plan, engine, frames.astype(np.float32))
    except MpslError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
        return f"refused: {type(error).__name__}"


def compared(plan: Plan, engine: Engine, frames: Array) -> str:
    """A changed weight is not exact in any order: the first difference may be a tie."""
    reference = Reference(plan)
    ours, theirs = engine.record(frames), reference.record(frames)
    for step in range(len(frames)):
        for layer, neuron in enumerate(plan.spiking):
            differ = ours[layer][step] != theirs[layer][step]
            if not differ.any():
                continue
            membrane = reference.record_membrane(frames)[layer][step]
            scale = np.maximum(np.abs(neuron.threshold), np.abs(membrane).max())
            near = np.abs(membrane - neuron.threshold) <= 1e-5 * np.maximum(1, scale)
            assert near[differ].all(), f"differs from the reference in {neuron.name}, step {step}"
            return "tie"
    return "equal"


if __name__ == "__main__":
    warnings.simplefilter("error", DeprecationWarning)
    for file in sorted(Path(sys.argv[1]).iterdir()):
        print(f"{file.name} …", flush=True)
        print(f"{file.name} {verdict(file)}", flush=True)
