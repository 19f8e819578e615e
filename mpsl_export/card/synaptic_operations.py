"""How much work a model does on real samples, beside the same network computed densely."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import fanout

__all__ = ["dense_macs", "measure_operations"]


def dense_macs(plan: Plan) -> int:
    """Multiply-accumulates of one step when every input of every weighted layer counts; taps that
    fall outside an image do not."""
    return sum(
        int(fanout(node).sum()) for node in plan.nodes if isinstance(node, Convolution | Dense)
    )


def measure_operations(plan: Plan, samples: Iterable[NDArray[np.float32]]) -> dict[str, Any]:
    """Synaptic operations (a weight added because its input was not 0) of the engine.

    Args:
        samples: each [T, C, H, W], from rest.

    Returns:
        `samples`; means over them: `synops`, `dense_macs` over all T steps, and `ratio` of the two;
        `one_pass_macs`: of a network without time, once.
    """
    engine = Engine(plan)
    once = dense_macs(plan)
    count = synops = dense = 0
    for frames in samples:
        engine.run(frames)
        synops += engine.synops
        dense += len(frames) * once
        count += 1
    if count == 0:
        raise ValueError("no sample")
    return {
        "samples": count,
        "synops": synops / count,
        "dense_macs": dense / count,
        "ratio": synops / dense,
        "one_pass_macs": once,
    }
