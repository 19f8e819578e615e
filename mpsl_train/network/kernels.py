"""What the fused window does to whole tensors: a small set of functions, in torch.

`TORCH` runs on every device and in every precision; `compiled` has the same functions in C++.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.plasticity import Pre
from mpsl_train.network.plasticity.sbp import normalise
from mpsl_train.notation import LayerSpec

__all__ = ["TORCH", "Fired", "Kernels"]

_aten = torch.ops.aten


class Fired(NamedTuple):
    """One step of a population.

    Attributes:
        membrane: V_t, or U_t after the last step.
        fired, near: S_t and [|U_t − V_th| < a/2] as booleans: all that the backward pass needs.
        activity: g, if it was asked for; cut off at 0 where ρ is clipped.
    """

    membrane: Tensor
    fired: Tensor
    near: Tensor
    activity: Tensor | None


def _on_weights(values: Tensor | float, dimensions: int) -> Tensor | float:
    """[Co] as a factor of what has the shape of the weights."""
    if isinstance(values, float):
        return values
    return values.view(-1, *([1] * (dimensions - 1)))


class Kernels:
    """In torch's operations, in place wherever an operand is free.

    Tensors may lie in memory as `arrange` and `arrange_frames` leave them; shapes are always those
    of torch.

    Attributes:
        name: for the line that says what runs.
        reads_numbers: scalars of a layer are read from the device once a window, which is quicker
            where operations start one by one; else they stay tensors.
        biases_late: `fire` adds the bias, not `multiply`.
        bf16: products are in bfloat16 where that is faster.
    """

    name = "torch, in place"
    reads_numbers = True
    biases_late = False
    bf16 = False

    def arrange(self, weight: Tensor) -> Tensor:
        """What has the shape of weights, laid out as the other functions want it."""
        return weight.contiguous()

    def arrange_frames(self, frames: Tensor) -> Tensor:
        """The same of [T, B, C, H, W] or [B, C, H, W]."""
        return frames

    def fire(
        self, current: Tensor, carried: Tensor | None, neuron: NeuronSettings, activity: bool,
        last: bool, clipped: bool = False, bias: Tensor | None = None,
    ) -> Fired:  # fmt: skip
        """I_t and V_{t−1} are consumed. At the last step the membrane is not reset.

        Args:
            bias: what `multiply` has left out; None: nothing.
        """
        threshold = neuron.threshold
        # The same two roundings as in `neuron.step`; `current` is free after them.
        membrane = current.clone() if carried is None else carried.mul_(neuron.decay).add_(current)
        fired = membrane >= threshold
        near = torch.sub(membrane, threshold, out=current).abs_() < neuron.surrogate_width / 2
        g = torch.div(membrane, threshold, out=current).tanh_() if activity else None
        if g is not None and clipped:
            g.clamp_(min=0)
        if not last:
            membrane.sub_(fired.to(membrane.dtype), alpha=threshold)
        return Fired(membrane, fired, near, g)

    def pool(self, fired: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """S in floating point, averaged over size x size."""
        spikes = fired.to(dtype)
        return F.avg_pool2d(spikes, size) if size > 1 else spikes

    def unfire(
        self, gradient: Tensor, size: int, later: Tensor | None, near: Tensor,
        neuron: NeuronSettings,
    ) -> Tensor:  # fmt: skip
        """e_t = ρ·e_{t+1} + near·(∂L/∂S_t − V_th·ρ·e_{t+1})/a, Eq. 3 and 7 backwards.

        Args:
            gradient: ∂L/∂S_t, averaged over size x size; consumed. later: e_{t+1}; consumed.
        """
        if size > 1:
            gradient = _aten.avg_pool2d_backward(
                gradient, near.to(gradient.dtype), [size, size], [size, size], [0, 0], False, True,
                None,
            )  # fmt: skip
        if later is not None:
            later.mul_(neuron.decay)
            gradient.sub_(later, alpha=neuron.threshold)
        gradient.mul_(near)
        if neuron.surrogate_width != 1:
            gradient.div_(neuron.surrogate_width)
        return gradient if later is None else later.add_(gradient)

    def multiply(
        self, x: Tensor, weight: Tensor, bias: Tensor, spec: LayerSpec, spare: Tensor | None = None
    ) -> Tensor:
        """The current, bias included.

        Args:
            spare: a current that nobody needs any more; it may be written over.
        """
        if spec.kind == "conv":
            return F.conv2d(x, weight, bias, spec.stride, spec.padding)
        return F.linear(x, weight, bias)

    def multiply_back(
        self, gradient: Tensor, x: Tensor, weight: Tensor, spec: LayerSpec, needs_input: bool
    ) -> tuple[Tensor | None, Tensor]:
        """∂L/∂x (None: not needed) and ∂L/∂weight from ∂L/∂current."""
        if spec.kind == "conv":
            back, change, _ = _aten.convolution_backward(
                gradient, x, weight, None, spec.stride, spec.padding, (1, 1), False, (0, 0), 1,
                (needs_input, True, False),
            )  # fmt: skip
            return back, change
        return gradient @ weight if needs_input else None, gradient.t() @ x

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """Σ over all but the channels. [Co]"""
        return gradient.sum((0, 2, 3)) if gradient.dim() == 4 else gradient.sum(0)

    def correlate(self, pre: Pre, activity: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """D = C + β·P and P of Eq. 8."""
        mean = pre.mean
        column = beta.view(-1, *([1] * (mean.dim() - 1)))
        return pre.correlate(activity).addcmul_(column, mean), mean

    def merge(
        self, base: Tensor, banks: Sequence[Tensor], coefficients: Sequence[Tensor | float]
    ) -> Tensor:
        """Eq. 5 in its order: base = λ1·W1, then the other banks with their λ."""
        total = base
        for index, (bank, values) in enumerate(zip(banks, coefficients, strict=True)):
            part = bank * _on_weights(values, bank.dim())
            total = total.add_(part) if index else total + part
        return total

    def steer(
        self,
        received: Tensor,
        eta: float | Tensor,
        fraction: float | Tensor,
        steering: float | Tensor,
        how: str,
    ) -> Tensor:
        """c_t = λ_f·(1 + λ_p·δ_t), δ_t from r = η·`received`. [Co]

        Args:
            how: `normalise`'s.
        """
        return fraction * (1 + steering * normalise(received * eta, how))

    def learn(
        self,
        change: Tensor,
        eta: float | Tensor,
        decay: float,
        factor: Tensor | float,
        banks: Sequence[Tensor],
        base: Tensor,
        coefficients: Sequence[Tensor | float],
        merge: bool,
    ) -> Tensor | None:
        """W2 = d·W2 + η·D, W3 = d·W3 + c·η·D in place; W of the next step, if it is asked for.

        Args:
            change: D. factor: c. banks: W2 and, with self-back-propagation, W3.
        """
        change = change * eta
        for index, bank in enumerate(banks):
            if index:
                change.mul_(_on_weights(factor, change.dim()))
            bank.mul_(decay).add_(change)
        return self.merge(base, banks, coefficients) if merge else None

    def decay_add(self, trace: Tensor, gradient: Tensor, total: Tensor, decay: float) -> None:
        """(E, G, Σ, d): E becomes d·E + G and Σ becomes Σ + G."""
        trace.mul_(decay).add_(gradient)
        total.add_(gradient)

    def dot(self, first: Tensor, second: Tensor) -> Tensor:
        """⟨a, b⟩ over all dimensions but the first; b may have one row for all."""
        return torch.mul(first, second).sum(tuple(range(1, first.dim())))


TORCH = Kernels()
