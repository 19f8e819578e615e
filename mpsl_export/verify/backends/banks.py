"""The network of banks as training evaluated it: Eq. 5, batch normalisation and pooling unfolded.

`mpsl verify` runs it again for samples that differ from the record, because the record holds the
spikes of the hidden layers only for a few probe samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint, Layer
from mpsl_export.verify.backends import LayerActivity, Outcome
from mpsl_export.verify.backends.torch_plan import exact_float32, from_numpy, preferred_device

__all__ = ["TrainedBanks"]


class TrainedBanks:
    """The trained network, rebuilt from its banks alone; nothing of `merge` is used.

    Args:
        layer_names: names for the populations in recordings, those of the NIR graph.
    """

    name = "trained-replay"

    def __init__(self, checkpoint: Checkpoint, layer_names: list[str]) -> None:
        self._layers = checkpoint.layers
        self._names = layer_names
        self._device = preferred_device()
        self.device = self._device.type
        self._weights = [self._effective_weight(layer) for layer in self._layers]

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        steps = list(self._steps(frames))
        spikes = np.stack([layers[-1].cpu().numpy() for layers, _ in steps])
        return Outcome(spikes.astype(np.uint8), steps[-1][1].cpu().numpy())

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`."""
        steps = [layers for layers, _ in self._steps(frames[:, None])]
        return [
            LayerActivity(
                name,
                np.stack([layers[i].cpu().numpy().reshape(-1) > 0 for layers in steps]),
            )
            for i, name in enumerate(self._names)
        ]

    def _effective_weight(self, layer: Layer) -> torch.Tensor:
        """Eq. 5: (λ1·W1 + λ2·W2) + λ3·W3."""
        coefficients = from_numpy(layer.coefficients, self._device)
        if coefficients.ndim == 2:
            coefficients = coefficients.reshape(
                *coefficients.shape, *(1,) * (layer.banks[0].ndim - 1)
            )
        banks = [from_numpy(bank, self._device) for bank in layer.banks]
        total = coefficients[0] * banks[0]
        for k in range(1, len(banks)):
            total = total + coefficients[k] * banks[k]
        return total

    def _steps(
        self, frames: NDArray[np.float32]
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Spikes of every layer, and U of the last, for each step."""
        states: list[torch.Tensor | None] = [None] * len(self._layers)
        for frame in frames:
            with exact_float32():
                values = from_numpy(frame, self._device)
                spikes, membrane = [], values
                for i, layer in enumerate(self._layers):
                    current = self._current(layer, self._weights[i], values)
                    # Eq. 3 and 1; the state is U − S·V_th, or 0 where a neuron resets to zero.
                    state = states[i]
                    membrane = current if state is None else layer.decay * state + current
                    values = (membrane >= layer.threshold).to(membrane.dtype)
                    states[i] = (
                        membrane - values * layer.threshold
                        if layer.reset == "subtract"
                        else membrane * (1 - values)
                    )
                    spikes.append(values)
            yield spikes, membrane

    def _current(self, layer: Layer, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        if layer.pool_before > 1:
            values = F.avg_pool2d(values, layer.pool_before)
        if layer.flatten_before:
            values = values.flatten(1)
        bias = from_numpy(layer.bias, self._device)
        if layer.kind == "conv":
            current = F.conv2d(values, weight, bias, layer.stride, layer.padding)
        else:
            current = F.linear(values, weight, bias)
        if layer.norm is None:
            return current
        mean, var, gain, shift = (
            from_numpy(part, self._device)
            for part in (layer.norm.mean, layer.norm.var, layer.norm.weight, layer.norm.bias)
        )
        return F.batch_norm(current, mean, var, gain, shift, training=False, eps=layer.norm.eps)
