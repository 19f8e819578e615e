"""The merged network in torch: each node of the plan by the torch operation that training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity, Outcome, check_steps, outputs
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Plan,
    Pooling,
    Scaling,
    Sum,
)

__all__ = ["TorchPlan", "exact_float32", "from_numpy", "preferred_device"]

_KNOWN = (Convolution, Delay, Dense, Flatten, Neuron, Pooling, Scaling, Sum)


def preferred_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exact_float32() -> Iterator[None]:
    """float32 as training's record was made: without gradients, TF32 off, and without cuDNN, whose
    Winograd convolutions add fractions of the products."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.enabled, matmul.allow_tf32
    cudnn.enabled = matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
            yield
    finally:
        cudnn.enabled, matmul.allow_tf32 = before


def from_numpy(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy on `device`: arrays of a file are read-only, which torch does not know."""
    return torch.from_numpy(np.array(values)).to(device)


class TorchPlan:
    """Runs a plan in torch, many samples at once.

    Raises:
        ModelError: the plan has a node that this back end does not know.
    """

    name = "torch"

    def __init__(self, plan: Plan, device: torch.device | None = None) -> None:
        self._plan = plan
        self._device = device or preferred_device()
        self.device = self._device.type
        self._constants: dict[str, dict[str, torch.Tensor]] = {}
        for node in plan.nodes:
            if not isinstance(node, _KNOWN):
                raise ModelError(
                    "node has no torch form",
                    got=type(node).__name__,
                    where=f"{node.name} of {plan.source}",
                )
            arrays = {k: v for k, v in vars(node).items() if isinstance(v, np.ndarray)}
            self._constants[node.name] = {
                key: from_numpy(value, self._device) for key, value in arrays.items()
            }

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        check_steps(frames)
        spikes, membrane = [], None
        last = self._plan.output_neuron
        for values, kept in self._steps(frames):
            spikes.append(values)
            membrane = values if last is None else kept.get(f"{last.name}.u")
        return Outcome(
            spikes=outputs(torch.stack(spikes).cpu().numpy()),
            membrane=None if membrane is None else membrane.cpu().numpy(),
        )

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`."""
        layers: dict[str, list[list[NDArray[np.float32]]]] = {
            n.name: [] for n in self._plan.spiking
        }
        for _, kept in self._steps(frames[:, None]):
            for name, rows in layers.items():
                spikes = kept[f"{name}.s"]
                membrane = kept.get(f"{name}.u", torch.zeros_like(spikes))
                rows.append([values.cpu().numpy().reshape(-1) for values in (spikes, membrane)])
        stacked = {name: np.array(rows).swapaxes(0, 1) for name, rows in layers.items()}
        return [LayerActivity(name, spikes > 0, U) for name, (spikes, U) in stacked.items()]

    def _steps(
        self, frames: NDArray[np.float32]
    ) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Output and neuron values of each step."""
        kept: dict[str, torch.Tensor] = {}
        for frame in frames:
            with exact_float32():
                values = self._step(from_numpy(frame, self._device), kept)
            yield values, kept

    def _step(self, x: torch.Tensor, kept: dict[str, torch.Tensor]) -> torch.Tensor:
        """One step, x [B, *input_shape]; states and late values are in `kept`."""
        if self._plan.is_chain:
            for node in self._plan.nodes:
                x = self._apply(node, x, kept)
            return x
        signals = {-1: x}
        for index, (node, sources) in enumerate(
            zip(self._plan.nodes, self._plan.wiring, strict=True)
        ):
            parts = [kept.get(f"{i}.late") if delayed else signals[i] for i, delayed in sources]
            seen = [part for part in parts if part is not None]  # before the first step: 0
            shape = (len(x), *node.input_shape)
            total = seen[0].reshape(shape) if seen else x.new_zeros(shape)
            for part in seen[1:]:
                total = total + part.reshape(shape)
            signals[index] = self._apply(node, total, kept)
        for index in self._plan.late:
            kept[f"{index}.late"] = signals[index]
        return signals[len(self._plan.nodes) - 1]

    def _apply(self, node: Any, x: torch.Tensor, kept: dict[str, torch.Tensor]) -> torch.Tensor:
        c = self._constants[node.name]
        if isinstance(node, Convolution):
            (top, bottom), (left, right) = node.padding
            padding: tuple[int, int] = (top, left)
            if (top, left) != (bottom, right):
                x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
            return F.conv2d(
                x, c["weight"], c["bias"], node.stride, padding, node.dilation, node.groups
            )
        if isinstance(node, Dense):
            return F.linear(x.reshape(len(x), -1), c["weight"], c["bias"])
        if isinstance(node, Pooling):
            total = F.avg_pool2d(x, node.kernel, node.stride, node.padding, divisor_override=1)
            return total * node.scale
        if isinstance(node, Flatten):
            return x.reshape(len(x), *node.output_shape)
        if isinstance(node, Sum):
            return x
        if isinstance(node, Delay):
            return _delayed(node, x, c["steps"], kept)
        if isinstance(node, Scaling):
            return c["scale"] * x
        return _neuron(node, x, c, kept)


def _delayed(
    node: Delay, x: torch.Tensor, steps: torch.Tensor, kept: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The value of `steps` steps before; the ring [D, B, *shape], the latest first, in `kept`."""
    longest = int(node.steps.max())
    ring = kept.get(f"{node.name}.ring", x.new_zeros((longest, *x.shape)))
    past = torch.cat([x[None], ring])
    kept[f"{node.name}.ring"] = past[:longest]
    return past.gather(0, steps.expand(x.shape)[None])[0]


def _neuron(
    node: Neuron, current: torch.Tensor, c: dict[str, torch.Tensor], kept: dict[str, torch.Tensor]
) -> torch.Tensor:
    """One step of `mpsl_runtime.model.plan.Neuron`; leaves U, S and the states in `kept`."""
    name = node.name
    zero = torch.zeros_like(current)
    if node.kind == "threshold":
        kept[f"{name}.s"] = (current >= c["threshold"]).to(current.dtype)
        return kept[f"{name}.s"]
    if node.synaptic_decay is not None:
        current = c["synaptic_decay"] * kept.get(f"{name}.j", zero) + c["synaptic_gain"] * current
        kept[f"{name}.j"] = current
    if node.has_input_map:
        current = c["gain"] * current + c["leak"]
    start = zero if node.initial is None else c["initial"]
    before = kept.get(f"{name}.v", start)
    membrane = c["decay"] * before + current
    if node.kind == "spiking" and node.resets_late:
        membrane = _after_spikes(node, membrane, _spikes_at(node, before, c), c)
    kept[f"{name}.u"] = kept[f"{name}.v"] = membrane
    if node.kind == "integrating":
        return membrane
    spikes = kept[f"{name}.s"] = _spikes_at(node, membrane, c)
    if not node.resets_late:
        kept[f"{name}.v"] = _after_spikes(node, membrane, spikes, c)
    return spikes


def _spikes_at(node: Neuron, membrane: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """How often each neuron fires at this U."""
    spikes = (membrane >= c["threshold"]).to(membrane.dtype)
    if not node.many:
        return spikes
    return torch.where(spikes > 0, torch.floor(membrane / c.get("drop", c["threshold"])), spikes)


def _after_spikes(
    node: Neuron, membrane: torch.Tensor, spikes: torch.Tensor, c: dict[str, torch.Tensor]
) -> torch.Tensor:
    """What spikes leave of U."""
    if node.reset in ("subtract", "subtract-undecayed"):
        return membrane - spikes * c.get("drop", c["threshold"])
    return torch.where(spikes > 0, c["reset_value"], membrane)
