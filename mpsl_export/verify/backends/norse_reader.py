"""norse, reading the `.nir` file by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity, Outcome
from mpsl_export.verify.backends.torch_plan import exact_float32, from_numpy
from mpsl_export.verify.peers import load_norse
from mpsl_runtime.model.graph import load_plan

__all__ = ["Norse"]


class Norse:
    """The model in norse, many samples at once, on the CPU.

    Raises:
        UsageError: norse is not installed.
        ModelError: norse cannot read the model.
    """

    name = "norse"
    device = "cpu"

    def __init__(self, path: Path) -> None:
        self._plan = load_plan(path)
        self._module = load_norse(path)
        self._spikes: dict[str, torch.Tensor] = {}
        self._membrane: torch.Tensor | None = None
        for part in self._module.modules():
            if isinstance(part, torch.nn.Flatten):
                # NIR counts without the batch axis that is in front here.
                part.start_dim += 1
        for neuron in self._plan.spiking:
            cell = self._module.get_submodule(neuron.name)
            cell.register_forward_hook(self._keep(neuron.name))

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        spikes = [step[self._plan.spiking[-1].name] for step in self._steps(frames)]
        membrane = None if self._membrane is None else self._membrane.numpy()
        return Outcome(torch.stack(spikes).numpy().astype(np.uint8), membrane)

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`."""
        steps = list(self._steps(frames[:, None]))
        return [
            LayerActivity(
                neuron.name, np.stack([step[neuron.name].numpy().reshape(-1) > 0 for step in steps])
            )
            for neuron in self._plan.spiking
        ]

    def _steps(self, frames: NDArray[np.float32]) -> Iterator[dict[str, torch.Tensor]]:
        """Spikes of every population by step."""
        state = None
        for frame in frames:
            self._spikes = {}
            with exact_float32():
                _, state = self._module(from_numpy(frame, torch.device("cpu")), state)
            yield self._spikes

    def _keep(self, name: str) -> Any:
        """A hook that keeps the spikes of a population, and U of the last one."""
        last = self._plan.spiking[-1].name

        def hook(cell: Any, inputs: tuple[Any, ...], outputs: tuple[torch.Tensor, Any]) -> None:
            self._spikes[name] = outputs[0]
            if name == last:
                # norse gives v after its reset only; before it, v is this, and U = v·tau/dt.
                before = inputs[1].v if len(inputs) > 1 and inputs[1] is not None else 0.0
                if not hasattr(cell.p, "tau_mem_inv"):
                    self._membrane = before + inputs[0]  # an IF: v = U
                    return
                rate = cell.dt * cell.p.tau_mem_inv
                self._membrane = (before + rate * (inputs[0] - before)) / rate

        return hook
