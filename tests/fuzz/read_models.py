"""A file as a model: a network that equals the reference, or one line. For `child.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]


def verdict(path: Path) -> str:
    """`equal` or `tie`; an exception where that is not what happens."""
    plan = load_plan(path, dt_s=None if "ours" in path.name else 1e-4)
    engine = Engine(plan)
    frames = np.random.default_rng(0).integers(0, 3, (3, *plan.input_shape))
    return compared(plan, engine, frames.astype(np.float32))


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
