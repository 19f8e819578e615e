"""The functions of `kernels` for CUDA: passes in Triton, products in cuDNN and cuBLAS.

A window there is bound by memory and by the number of passes, not by arithmetic: each pass reads
and writes its tensors once, and the products take spikes and weights in the precision that the
recipe names. Activities lie channels last, weights [Co, kh, kw, Ci].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.cuda_layout import (
    dense,
    flat_weight,
    folded,
    patches_of,
    power_of_two,
    rows_of,
    stacked,
)
from mpsl_train.network.kernels import Fired, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.plasticity import Pre
from mpsl_train.network.plasticity.sbp import EPSILON
from mpsl_train.network.processes import average
from mpsl_train.notation import LayerSpec

__all__ = ["FEW_INPUTS", "CudaKernels", "cuda_kernels"]

_aten = torch.ops.aten
_BLOCK = 1024
_PROGRAMS = 1056  # eight for each multiprocessor of an H100
FEW_INPUTS = 8  # channels; below, cuDNN has no tensor cores for what lies channels last
_DELTAS = ("l1", "split", "literal")


def _grid(count: int) -> tuple[int]:
    return (-(-count // _BLOCK),)


class _Made(NamedTuple):
    """What the pass that made e has made of it, too.

    Attributes:
        gradient: e. low: as products take it, if that is another. sums: over some places each,
            [programs, C].
    """

    gradient: Tensor
    low: Tensor | None
    sums: Tensor


class CudaKernels(Kernels):
    """float32 and float64 on a CUDA device.

    Attributes:
        bf16: spikes, weights and gradients enter the products in bfloat16; what is kept is not.
    """

    reads_numbers = False
    biases_late = True

    def __init__(self, passes: Any, *, bf16: bool = False) -> None:
        self._run, self.bf16 = passes, bf16
        self.name = "Triton, products in bfloat16" if bf16 else "Triton"
        self._made: _Made | None = None
        # What a tensor's positions see, which an image shows at every step.
        self._seen: tuple[Tensor, Tensor] | None = None
        # Weights of this window as products take them, beside what they were made of.
        self._low: dict[int, tuple[Tensor, Tensor]] = {}

    def lowered(self, x: Tensor) -> Tensor:
        """As products take it."""
        return x.to(torch.bfloat16) if self.bf16 else x

    def _lowered_weight(self, weight: Tensor) -> Tensor:
        """Made once: products need it forward and back."""
        if not self.bf16:
            return weight
        known = self._low.get(id(weight))
        if known is None or known[0] is not weight:
            known = self._low[id(weight)] = weight, weight.to(torch.bfloat16)
        return known[1]

    def arrange(self, weight: Tensor) -> Tensor:
        return dense(weight)

    def arrange_frames(self, frames: Tensor) -> Tensor:
        # A window begins. A CUDA graph is given new frames in the same memory.
        self._seen, self._low = None, {}
        if frames.dim() == 4:
            return dense(frames)
        return dense(frames.flatten(0, 1)).view_as(frames)

    def fire(
        self, current: Tensor, carried: Tensor | None, neuron: NeuronSettings, activity: bool,
        last: bool, clipped: bool = False, bias: Tensor | None = None,
    ) -> Fired:  # fmt: skip
        current = dense(current)
        kind = current.dtype if bias is None else bias.dtype
        membrane = torch.empty_like(current, dtype=kind) if carried is None else carried
        fired, near = (torch.empty_like(current, dtype=torch.bool) for _ in range(2))
        g = torch.empty_like(current) if activity else None
        count = current.numel()
        self._run.fire[_grid(count)](
            current, bias, membrane, fired, near, g, count, current.shape[1],
            decay=neuron.decay, threshold=neuron.threshold, half_width=neuron.surrogate_width / 2,
            biased=bias is not None, first=carried is None, last=last, active=activity,
            clipped=clipped, block=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        return Fired(membrane, fired, near, g)

    def pool(self, fired: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        dtype = torch.bfloat16 if self.bf16 else dtype
        if size == 1:
            return fired.to(dtype)
        channels, rows, columns = rows_of(fired)
        out = fired.new_empty(
            (fired.shape[0], rows // size, columns // size, channels), dtype=dtype
        ).permute(0, 3, 1, 2)
        count = out.numel()
        self._run.pool[_grid(count)](
            fired, out, count, channels, rows, columns, rows // size, columns // size,
            size=size, block=_BLOCK,
        )  # fmt: skip
        return out

    def unfire(
        self, gradient: Tensor, size: int, later: Tensor | None, near: Tensor,
        neuron: NeuronSettings,
    ) -> Tensor:  # fmt: skip
        kind = gradient.dtype if gradient.dtype != torch.bfloat16 else torch.float32
        out = torch.empty_like(near, dtype=kind) if later is None else later
        low = torch.empty_like(near, dtype=torch.bfloat16) if self.bf16 else None
        strides = gradient.stride() if gradient.dim() == 4 else (*gradient.stride(), 0, 0)
        channels = near.shape[1]
        places = near.numel() // channels
        wide = min(128, power_of_two(channels))
        high = _BLOCK // wide
        turns = min(16, max(1, places // (high * _PROGRAMS)))
        programs = -(-places // (high * turns))
        sums = out.new_empty((programs, channels))
        self._run.unfire[(programs, -(-channels // wide))](
            gradient, near, out, out, low, sums, places, *rows_of(near), *strides,
            decay=neuron.decay, threshold=neuron.threshold, width=neuron.surrogate_width,
            size=size, follows=later is not None, lowers=low is not None, turns=turns, high=high,
            wide=wide,
        )  # fmt: skip
        self._made = _Made(out, low, sums)
        return out

    def fire_all(
        self, current: Tensor, bias: Tensor, neuron: NeuronSettings, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`fire` for T steps: S as products take it, [|U − V_th| < a/2] and U of the last step.

        Args:
            current: without bias, [T or 1, B, …], channels last.
        """
        one = dense(current[0])
        current = folded(current)
        spikes, near = (
            stacked(one, steps, kind) for kind in (self.lowered(bias).dtype, torch.bool)
        )
        membrane = torch.empty_like(one, dtype=bias.dtype)
        count = one.numel()
        self._run.fire_all[_grid(count)](
            current, bias, spikes, near, membrane, count, one.shape[1],
            decay=neuron.decay, threshold=neuron.threshold, half_width=neuron.surrogate_width / 2,
            steps=steps, constant=len(current) == 1, block=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        return spikes, near, membrane

    def unfire_all(
        self, of_spikes: Tensor, of_membrane: Tensor, near: Tensor, neuron: NeuronSettings,
        constant: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """∂L/∂current and ∂L/∂bias.

        Args:
            of_spikes: ∂L/∂S. of_membrane: ∂L/∂U of the last step. constant: one current for all.
        """
        one, steps = near[0], len(near)
        of_spikes, of_membrane = folded(of_spikes), dense(of_membrane)
        out = stacked(one, 1 if constant else steps, of_spikes.dtype)
        channels = one.shape[1]
        places = one.numel() // channels
        wide = min(128, power_of_two(channels))
        high = _BLOCK // wide
        turns = min(16, max(1, places // (high * _PROGRAMS)))
        programs = -(-places // (high * turns))
        sums = of_membrane.new_empty((programs, channels))
        self._run.unfire_all[(programs, -(-channels // wide))](
            of_spikes, of_membrane, near, out, sums, places, channels,
            decay=neuron.decay, threshold=neuron.threshold, width=neuron.surrogate_width,
            steps=steps, constant=constant, turns=turns, high=high, wide=wide,
        )  # fmt: skip
        return out, sums.sum(0)

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        made = self._made
        if made is not None and made.gradient is gradient:
            return made.sums.sum(0)
        return super().bias_gradient(gradient)

    def multiply(
        self, x: Tensor, weight: Tensor, bias: Tensor, spec: LayerSpec, spare: Tensor | None = None
    ) -> Tensor:
        """Without the bias, which `fire` adds."""
        weight = self._lowered_weight(weight)
        if spec.kind != "conv":
            return F.linear(self.lowered(x), weight)
        if weight.shape[1] >= FEW_INPUTS:
            return F.conv2d(self.lowered(x), weight, None, spec.stride, spec.padding)
        patches = self._patches(x, weight.shape, spec.stride, spec.padding)
        flat = F.pad(flat_weight(weight), (0, patches.shape[1] - weight[0].numel()))
        out = F.linear(patches, flat).view(len(x), *spec.neurons[1:], len(weight))
        return out.permute(0, 3, 1, 2)

    def multiply_back(
        self, gradient: Tensor, x: Tensor, weight: Tensor, spec: LayerSpec, needs_input: bool
    ) -> tuple[Tensor | None, Tensor]:
        made = self._made
        own = made is not None and made.gradient is gradient
        lowered = made.low if made is not None and own else None
        gradient = self.lowered(gradient) if lowered is None else lowered
        weight = self._lowered_weight(weight)
        if spec.kind != "conv":
            x = self.lowered(x)
            return gradient @ weight if needs_input else None, gradient.t() @ x
        few = weight.shape[1] < FEW_INPUTS
        change = self._outer(gradient, x, weight.shape, spec.stride, spec.padding) if few else None
        if change is not None and not needs_input:
            return None, change
        back, other, _ = _aten.convolution_backward(
            gradient, self.lowered(x), weight, None, spec.stride, spec.padding, (1, 1), False,
            (0, 0), 1, (needs_input, not few, False),
        )  # fmt: skip
        return back, other if change is None else change

    def correlate(self, pre: Pre, activity: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        shape, x = pre.weight_shape, pre.spikes
        count = activity.numel() // activity.shape[1]
        if activity.dim() == 2:
            raw = activity.t() @ self.lowered(x)
        elif shape[1] < FEW_INPUTS:
            raw = self._outer(activity, x, shape, pre.stride, pre.padding)
        else:
            x = self.lowered(x)
            template = x.new_empty(1).expand(shape)
            raw = _aten.convolution_backward(
                activity, x, template, None, pre.stride, pre.padding, (1, 1), False, (0, 0), 1,
                (False, True, False),
            )[1]  # fmt: skip
        raw, mean = dense(average(raw)), self._mean(pre, x, beta.dtype, activity)
        out = torch.empty_like(raw, dtype=beta.dtype)
        self._run.correlation[_grid(out.numel())](
            raw, mean, beta, out, out.numel(), out[0].numel(), count, block=_BLOCK
        )
        return out, mean

    def _mean(self, pre: Pre, x: Tensor, dtype: torch.dtype, activity: Tensor) -> Tensor:
        """P; of a constant current it stays known."""
        known: Tensor | None = pre.__dict__.get("mean")
        if known is not None:
            return known
        x = dense(x)
        total = x.new_empty(x[0].numel(), dtype=dtype)
        wide = 64
        self._run.over_batch[(-(-total.numel() // wide),)](
            x, total, total.numel(), batch=len(x), high=min(128, power_of_two(len(x))), wide=wide
        )
        if x.dim() == 2:
            out = (total / len(x)).unsqueeze(0)
        else:
            channels, (high, wide) = pre.weight_shape[1], pre.weight_shape[2:]
            out = total.new_empty((1, high, wide, channels)).permute(0, 3, 1, 2)
            block = 32
            self._run.mean[(high * wide, -(-channels // block))](
                total, out, len(x), channels, *x.shape[2:], activity.shape[3], wide,
                *pre.stride, *pre.padding, places=activity[0, 0].numel(), block=block,
                positions=128,
            )  # fmt: skip
        pre.__dict__["mean"] = average(out)
        return out

    def steer(
        self, received: Tensor, eta: float | Tensor, fraction: float | Tensor,
        steering: float | Tensor, how: str,
    ) -> Tensor:  # fmt: skip
        out, channels = torch.empty_like(received), len(received)
        self._run.steer[(1,)](
            received, eta, fraction, steering, out, channels, how=_DELTAS.index(how),
            least=EPSILON, block=power_of_two(channels),
        )  # fmt: skip
        return out

    def _patches(
        self, x: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]
    ) -> Tensor:
        """`patches_of`, made once of a tensor."""
        if self._seen is not None and self._seen[0] is x:
            return self._seen[1]
        self._seen = x, patches_of(self.lowered(x), shape, stride, padding)
        return self._seen[1]

    def _outer(
        self, gradient: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int],
        padding: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Σ gradient·xᵀ over samples and positions, in the shape of the weights."""
        patches = self._patches(x, shape, stride, padding)
        rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        out = (rows.t() @ patches)[:, : shape[1] * shape[2] * shape[3]]
        return out.view(len(out), shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)

    def learn(
        self, change: Tensor, eta: float | Tensor, decay: float, factor: Tensor | float,
        banks: Sequence[Tensor], base: Tensor, coefficients: Sequence[Tensor | float], merge: bool,
    ) -> Tensor | None:  # fmt: skip
        first, second = banks[0], banks[1] if len(banks) > 1 else None
        merged = torch.empty_like(base) if merge else None
        low = torch.empty_like(base, dtype=torch.bfloat16) if merge and self.bf16 else None
        outer = [values if isinstance(values, Tensor) else None for values in coefficients]
        rows = [values is not None and values.dim() > 0 for values in outer]
        self._run.learn[_grid(base.numel())](
            change, eta, factor if second is not None else None, first, second, base, merged, low,
            outer[0], outer[-1], base.numel(), base[0].numel(), decay=decay,
            by_row=isinstance(factor, Tensor) and factor.dim() > 0, outer_by_row=rows[0],
            banks=len(banks), merges=merge, lowers=low is not None, block=_BLOCK,
        )  # fmt: skip
        if merged is not None and low is not None:
            self._low[id(merged)] = merged, low
        return merged

    def decay_add(self, trace: Tensor, gradient: Tensor, total: Tensor, decay: float) -> None:
        gradient = dense(gradient)
        self._run.decay_add[_grid(trace.numel())](
            trace, gradient, total, trace.numel(), decay=decay, block=_BLOCK
        )

    def dot(self, first: Tensor, second: Tensor) -> Tensor:
        first, second = dense(first), dense(second)
        out = first.new_empty(len(first))
        own = first[0].numel() if len(second) == len(first) else 0
        self._run.dot[(len(first),)](first, second, out, own, fan_in=first[0].numel(), block=_BLOCK)
        return out


@cache
def cuda_kernels(*, bf16: bool = False) -> CudaKernels | None:
    """They, where triton is installed, as it is beside torch for CUDA; else None."""
    try:
        from mpsl_train.network import triton_passes
    except ImportError:
        return None
    return CudaKernels(triton_passes, bf16=bf16)
