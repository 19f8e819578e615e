"""What the fused window does to whole tensors, in place: one small table of functions.

`TORCH` runs on every device and in every precision; another table needs the same functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mpsl_train.layers import NeuronSettings

__all__ = ["TORCH", "Fired", "Kernels"]


class Fired(NamedTuple):
    """One step of a population.

    Attributes:
        membrane: V_t, or U_t after the last step. spikes: S_t in floating point.
        fired, near: S_t and [|U_t − V_th| < a/2] as booleans: two bits a neuron are all that the
            backward pass needs.
        activity: g, if it was asked for.
    """

    membrane: Tensor
    spikes: Tensor
    fired: Tensor
    near: Tensor
    activity: Tensor | None


@dataclass(frozen=True)
class Kernels:
    """
    Attributes:
        name: for the line that says what runs.
        fire: (I_t, V_{t−1} or None, neuron, activity?, last?) → `Fired`. I_t and V_{t−1} are
            consumed. At the last step the membrane is not reset.
        unfire: (∂L/∂S_t, ∂L/∂U_{t+1} or None, near, neuron) → ∂L/∂U_t. Both gradients are consumed.
        decay_add: (E, G, Σ, d): E becomes d·E + G and Σ becomes Σ + G.
        dot: row by row, ⟨a, b⟩ over all dimensions but the first.
    """

    name: str
    fire: Callable[[Tensor, Tensor | None, NeuronSettings, bool, bool], Fired]
    unfire: Callable[[Tensor, Tensor | None, Tensor, NeuronSettings], Tensor]
    decay_add: Callable[[Tensor, Tensor, Tensor, float], None]
    dot: Callable[[Tensor, Tensor], Tensor]


def _fire(
    current: Tensor, carried: Tensor | None, neuron: NeuronSettings, activity: bool, last: bool
) -> Fired:
    threshold = neuron.threshold
    # The same two roundings as in `neuron.step`; `current` is free after them.
    membrane = current.clone() if carried is None else carried.mul_(neuron.decay).add_(current)
    fired = membrane >= threshold
    spikes = fired.to(membrane.dtype)
    near = torch.sub(membrane, threshold, out=current).abs_() < neuron.surrogate_width / 2
    g = torch.div(membrane, threshold, out=current).tanh_() if activity else None
    if not last:
        membrane.sub_(spikes, alpha=threshold)
    return Fired(membrane, spikes, fired, near, g)


def _unfire(
    spike_gradient: Tensor, later: Tensor | None, near: Tensor, neuron: NeuronSettings
) -> Tensor:
    # e_t = ρ·e_{t+1} + near·(∂L/∂S_t − V_th·ρ·e_{t+1})/a, Eq. 3 and 7 backwards
    if later is not None:
        later.mul_(neuron.decay)
        spike_gradient.sub_(later, alpha=neuron.threshold)
    spike_gradient.mul_(near)
    if neuron.surrogate_width != 1:
        spike_gradient.div_(neuron.surrogate_width)
    return spike_gradient if later is None else later.add_(spike_gradient)


def _decay_add(trace: Tensor, gradient: Tensor, total: Tensor, decay: float) -> None:
    trace.mul_(decay).add_(gradient)
    total.add_(gradient)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return torch.mul(first, second).sum(tuple(range(1, first.dim())))


TORCH = Kernels("torch, in place", _fire, _unfire, _decay_add, _dot)
