"""A plan in torch, one sample and one step at a time, as fast as eager torch is on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_export.verify.backends.torch_plan import TorchPlan, exact_float32
from mpsl_runtime.model.plan import Convolution, Neuron, Plan

__all__ = ["TorchStep"]

Array = NDArray[np.float32]


class TorchStep(TorchPlan):
    """Weights and states in `channels_last`, numbers that a population shares as one number.

    Attributes:
        device: what it is and runs on, in words.
    """

    def __init__(self, plan: Plan, threads: int) -> None:
        super().__init__(plan, torch.device("cpu"))
        torch.set_num_threads(threads)
        plural = "s" * (threads > 1)
        self.device = f"torch {torch.__version__}, eager, CPU, {threads} thread{plural}"
        for node in plan.nodes:
            constants = self._constants[node.name]
            if isinstance(node, Convolution):
                constants["weight"] = constants["weight"].contiguous(
                    memory_format=torch.channels_last
                )
            elif isinstance(node, Neuron):
                for key, values in constants.items():
                    first = values.flatten()[0]
                    if bool((values == first).all()):
                        constants[key] = first.clone()
        self._kept: dict[str, torch.Tensor] = {}

    def reset(self) -> None:
        """See `mpsl_runtime.bench.programs.Program.reset`."""
        self._kept = {}

    def step(self, frame: Array) -> Array:
        """See `mpsl_runtime.bench.programs.Program.step`."""
        with exact_float32():
            values = torch.tensor(frame)[None]
            if values.ndim == 4:
                values = values.contiguous(memory_format=torch.channels_last)
            spikes: Array = self._step(values, self._kept).reshape(-1).numpy()
        return spikes

    def states(self) -> dict[str, Array]:
        """See `mpsl_runtime.bench.programs.Program.states`."""
        return {
            name.removesuffix(".v"): values.numpy()[0]
            for name, values in self._kept.items()
            if name.endswith(".v")
        }
