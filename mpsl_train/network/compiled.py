"""The functions of `kernels` in C++, for CPUs: fused passes, and convolutions that follow spikes.

What enters a layer is mostly zeros. Where few enough of its entries are not, the current, the
correlation C and the gradients are sums over those alone: exact but for the order of the sums. How
many they are is counted at each call. Activities lie channels last, what has the shape of a
convolution's weights [taps, Ci, Co], so that the inner loops run along the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mpsl_runtime.errors import UsageError
from mpsl_train.network.cuda import cuda_kernels
from mpsl_train.network.kernels import TORCH, Fired, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.plasticity import Pre
from mpsl_train.network.processes import average
from mpsl_train.notation import LayerSpec

if TYPE_CHECKING:
    from mpsl_train._native import Functions

__all__ = ["CROSSOVER", "CROSSOVER_BF16", "CompiledKernels", "built", "choose"]

CROSSOVER = 0.45
"""Part of the entries that is not zero, above which oneDNN's dense convolutions are faster.
*Measured* with AVX-512 on 3 x 3 convolutions of 128 and 256 channels: 0.4 to 0.7."""
CROSSOVER_BF16 = 0.2
"""The same in bfloat16. *Measured* with AVX512-BF16: 0.1 to 0.3 are alike."""
_FEW_INPUTS = 8  # channels; below, oneDNN's convolutions are slower still

_last = torch.channels_last


def _rows(x: Tensor) -> tuple[int, int, int, int]:
    """(B, H, W, C) of [B, C, H, W] or [B, C]."""
    if x.dim() == 2:
        return x.shape[0], 1, 1, x.shape[1]
    return x.shape[0], x.shape[2], x.shape[3], x.shape[1]


def _dense(x: Tensor) -> Tensor:
    """Channels last."""
    return x.contiguous(memory_format=_last) if x.dim() == 4 else x.contiguous()


def _empty(like: Tensor, batch: int, channels: int, rows: int, columns: int) -> Tensor:
    return like.new_empty((batch, rows, columns, channels)).permute(0, 3, 1, 2)


class CompiledKernels(Kernels):
    """float32 and float64 on a CPU.

    Attributes:
        crossover: follows spikes below this density; 0: never, 1: always.
        bf16: the dense products take bfloat16, those that follow spikes stay as they are.
    """

    # What the last convolution in C++ went over: its list is still there for the correlation.
    _listed: ClassVar[Tensor | None] = None

    def __init__(self, module: Any, crossover: float | None = None, *, bf16: bool = False) -> None:
        usual = CROSSOVER_BF16 if bf16 else CROSSOVER
        crossover = usual if crossover is None else crossover
        self.module, self.crossover, self.bf16 = module, crossover, bf16
        # Sums of patches gain more: their accumulators are written once an image.
        self.patches = min(1.0, 1.4 * crossover)
        dense = ", in bfloat16 above" if bf16 else ""
        self.name = f"C++, {module.isa()}, event-driven below {crossover:.0%} nonzero inputs{dense}"

    def _of(self, tensor: Tensor) -> Functions:
        single = tensor.dtype == torch.float32
        functions: Functions = self.module.float32 if single else self.module.float64
        return functions

    def _lowered(self, x: Tensor) -> Tensor:
        """As dense products take it."""
        return x.bfloat16() if self.bf16 else x

    def _sparse(self, x: Tensor, crossover: float) -> bool:
        if self.crossover in (0, 1) or x.shape[1] < _FEW_INPUTS:
            return self.crossover > 0
        count = self._of(x).nonzero(x.data_ptr(), x.numel(), torch.get_num_threads())
        return bool(count <= crossover * x.numel())

    def arrange(self, weight: Tensor) -> Tensor:
        if weight.dim() == 2:
            return weight.contiguous()
        return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)

    def _bank(self, weight: Tensor) -> tuple[int, int, bool]:
        """(outputs, inputs, an output is a column) of what `arrange` laid out."""
        return weight.shape[0], weight[0].numel(), weight.dim() == 4

    def arrange_frames(self, frames: Tensor) -> Tensor:
        if frames.dim() == 4:
            return _dense(frames)
        return _dense(frames.flatten(0, 1)).view_as(frames)

    def fire(
        self, current: Tensor, carried: Tensor | None, neuron: NeuronSettings, activity: bool,
        last: bool, clipped: bool = False, bias: Tensor | None = None,
    ) -> Fired:  # fmt: skip
        current = _dense(current)
        membrane = torch.empty_like(current) if carried is None else carried
        fired = torch.empty_like(current, dtype=torch.bool)
        near = torch.empty_like(fired)
        self._of(current).fire(
            current.data_ptr(), membrane.data_ptr(), fired.data_ptr(), near.data_ptr(),
            current.numel(), neuron.decay, neuron.threshold, neuron.surrogate_width,
            carried is None, last, activity, torch.get_num_threads(),
        )  # fmt: skip
        if activity and clipped:
            current.clamp_(min=0)
        return Fired(membrane, fired, near, current if activity else None)

    def pool(self, fired: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        shape = _rows(fired)
        if fired.dim() == 2:
            out = torch.empty_like(fired, dtype=dtype)
        else:
            template = torch.empty(0, dtype=dtype)
            rows, columns = (length // size for length in fired.shape[2:])
            out = _empty(template, shape[0], shape[3], rows, columns)
        self._of(out).pool(fired.data_ptr(), out.data_ptr(), shape, size, torch.get_num_threads())
        return out

    def unfire(
        self, gradient: Tensor, size: int, later: Tensor | None, near: Tensor,
        neuron: NeuronSettings,
    ) -> Tensor:  # fmt: skip
        gradient = _dense(gradient)
        result = torch.empty_like(near, dtype=gradient.dtype) if later is None else later
        self._of(gradient).unfire(
            gradient.data_ptr(), result.data_ptr(), near.data_ptr(), _rows(near), size,
            neuron.decay, neuron.threshold, neuron.surrogate_width, later is None,
            torch.get_num_threads(),
        )  # fmt: skip
        return result

    def multiply(
        self, x: Tensor, weight: Tensor, bias: Tensor, spec: LayerSpec, spare: Tensor | None = None
    ) -> Tensor:
        if spec.kind == "fc":
            return self._dense_product(x, weight, bias, spec)
        x = _dense(x)
        if not self._follows(x, spec):
            return self._dense_product(x, self._channels_last(weight), bias, spec)
        size, stride, padding = weight.shape[2], spec.stride[0], spec.padding[0]
        rows, columns = ((n + 2 * padding - size) // stride + 1 for n in x.shape[2:])
        # New memory would cost as much as the convolution of a small layer: a page at a time.
        if spare is not None and spare.is_contiguous(memory_format=_last):
            out = spare
        else:
            out = _empty(x, x.shape[0], weight.shape[0], rows, columns)
        outputs, inputs = weight.shape[:2]
        CompiledKernels._listed = x
        self._of(x).convolve(
            x.data_ptr(), weight.data_ptr(), bias.data_ptr(), out.data_ptr(), _rows(x), _rows(out),
            size, stride, padding, inputs * outputs, outputs, False, torch.get_num_threads(),
        )  # fmt: skip
        return out

    def _dense_product(self, x: Tensor, weight: Tensor, bias: Tensor, spec: LayerSpec) -> Tensor:
        if not self.bf16:
            return super().multiply(x, weight, bias, spec)
        none = torch.zeros_like(bias, dtype=torch.bfloat16)
        current = super().multiply(x.bfloat16(), weight.bfloat16(), none, spec).float()
        # Not rounded: the bias is added to each current.
        return current.add_(bias.view(-1, *([1] * (current.dim() - 2))))

    def _follows(self, x: Tensor, spec: LayerSpec, crossover: float | None = None) -> bool:
        square = spec.stride[0] == spec.stride[1] and spec.padding[0] == spec.padding[1]
        return (
            square
            and spec.weight_shape[2] == spec.weight_shape[3]
            and self._sparse(x, self.crossover if crossover is None else crossover)
        )

    def _follows_patches(self, x: Tensor, spec: LayerSpec) -> bool:
        known = spec.weight_shape[2:] == (3, 3) and spec.stride == (1, 1) and spec.padding[0] <= 2
        return known and self._follows(x, spec, self.patches)

    def _channels_last(self, weight: Tensor) -> Tensor:
        """[Co, Ci, k, k] out of what `arrange` laid out: the inputs side by side."""
        outputs, inputs, rows, columns = weight.shape
        out = weight.new_empty((outputs, rows, columns, inputs))
        lines = rows * columns * inputs
        self._of(weight).transpose(
            weight.data_ptr(), out.data_ptr(), lines, outputs, torch.get_num_threads()
        )
        return out.permute(0, 3, 1, 2)

    def _outer(self, x: Tensor, gradient: Tensor, spec: LayerSpec) -> Tensor:
        """Σ x ⊗ gradient over the entries of x that are not zero."""
        outputs, inputs, size, _ = spec.weight_shape
        out = x.new_empty((size, size, inputs, outputs))
        again, CompiledKernels._listed = CompiledKernels._listed is x, None
        self._of(x).correlate(
            x.data_ptr(), gradient.data_ptr(), out.data_ptr(), _rows(x), _rows(gradient),
            spec.padding[0], again, torch.get_num_threads(),
        )  # fmt: skip
        return out.permute(3, 2, 0, 1)

    def multiply_back(
        self, gradient: Tensor, x: Tensor, weight: Tensor, spec: LayerSpec, needs_input: bool
    ) -> tuple[Tensor | None, Tensor]:
        if spec.kind == "fc":
            low = self._lowered
            back, change = super().multiply_back(
                low(gradient), low(x), low(weight), spec, needs_input
            )
            return None if back is None else back.to(x.dtype), change.to(x.dtype)
        gradient, x = _dense(gradient), _dense(x)
        back = None
        if needs_input:
            dense = self._channels_last(weight)
            if spec.stride == (1, 1) and self._follows(gradient, spec):
                back = torch.empty_like(x)
                _, inputs, size, _ = weight.shape
                CompiledKernels._listed = None
                self._of(x).convolve(
                    gradient.data_ptr(), dense.data_ptr(), 0, back.data_ptr(), _rows(gradient),
                    _rows(x), size, 1, size - 1 - spec.padding[0], inputs, size * size * inputs,
                    True, torch.get_num_threads(),
                )  # fmt: skip
            else:
                back = self._convolution_back(gradient, x, spec, dense)
        if self._follows_patches(x, spec):
            return back, self._outer(x, gradient, spec)
        return back, self.arrange(self._convolution_back(gradient, x, spec))

    def _convolution_back(
        self, gradient: Tensor, x: Tensor, spec: LayerSpec, weight: Tensor | None = None
    ) -> Tensor:
        """∂L/∂x with a weight, without one ∂L/∂weight."""
        asked = (weight is not None, weight is None, False)
        gradient, low = self._lowered(gradient), self._lowered(x)
        weight = low.new_empty(1).expand(spec.weight_shape) if weight is None else weight
        found = torch.ops.aten.convolution_backward(
            gradient, low, self._lowered(weight), None, spec.stride, spec.padding, (1, 1), False,
            (0, 0), 1, asked,
        )  # fmt: skip
        wanted: Tensor = found[0] if asked[0] else found[1]
        return wanted.to(x.dtype)

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        gradient = _dense(gradient)
        channels = gradient.shape[1]
        out = gradient.new_empty(channels)
        self._of(gradient).sums(
            gradient.data_ptr(), out.data_ptr(), gradient.numel() // channels, channels,
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    def correlate(self, pre: Pre, activity: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        x = pre.spikes
        count = activity.numel() // activity.shape[1]
        if activity.dim() == 2:
            # (C + β·P) as one product: P is one more sample, with the activity β.
            mean = pre.mean
            left = torch.cat([activity / count, beta[None]])
            right = self._lowered(torch.cat([x, mean]))
            return average((self._lowered(left).t() @ right).to(x.dtype)), mean
        x, activity = _dense(x), _dense(activity)
        spec, mean = _spec_of(pre), self._mean(x, activity, pre)
        if self._follows_patches(x, spec):
            change = self._outer(x, activity, spec)
        else:
            change = self.arrange(self._convolution_back(activity, x, spec))
        change = self.arrange(average(change))  # what comes from elsewhere lies as it likes
        self._of(change).finish(
            change.data_ptr(), beta.data_ptr(), mean.data_ptr(), *self._bank(change), float(count),
            torch.get_num_threads(),
        )  # fmt: skip
        return change, mean

    def _mean(self, x: Tensor, activity: Tensor, pre: Pre) -> Tensor:
        _, inputs, rows, columns = pre.weight_shape
        if rows != columns or len({*pre.stride}) > 1 or len({*pre.padding}) > 1:
            return self.arrange(pre.mean)
        out = x.new_empty((rows, columns, inputs, 1))
        self._of(x).mean(
            x.data_ptr(), out.data_ptr(), _rows(x), _rows(activity), rows, pre.stride[0],
            pre.padding[0], torch.get_num_threads(),
        )  # fmt: skip
        return self.arrange(average(out.permute(3, 2, 0, 1)))

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
        weight = torch.empty_like(base) if merge else None

        def row(values: Tensor | float) -> Tensor:
            if isinstance(values, Tensor):
                return values.contiguous()
            return base.new_full((len(base),), values)

        rows = [row(values) for values in [*coefficients, factor]]
        steered = len(banks) > 1
        self._of(base).learn(
            change.data_ptr(), base.data_ptr(), banks[0].data_ptr(),
            banks[1].data_ptr() if steered else 0, 0 if weight is None else weight.data_ptr(),
            rows[0].data_ptr(), rows[1].data_ptr(), rows[-1].data_ptr(), decay, float(eta),
            *self._bank(base), torch.get_num_threads(),
        )  # fmt: skip
        return weight

    def decay_add(self, trace: Tensor, gradient: Tensor, total: Tensor, decay: float) -> None:
        self._of(trace).decay_add(
            trace.data_ptr(), gradient.data_ptr(), total.data_ptr(), trace.numel(), decay,
            torch.get_num_threads(),
        )  # fmt: skip

    def dot(self, first: Tensor, second: Tensor) -> Tensor:
        out = first.new_empty(len(first))
        shared = len(second) == 1 and len(first) > 1
        self._of(first).dot(
            first.data_ptr(), second.data_ptr(), out.data_ptr(), *self._bank(first), shared,
            torch.get_num_threads(),
        )  # fmt: skip
        return out


def _spec_of(pre: Pre) -> LayerSpec:
    return LayerSpec(
        "", "conv", pre.weight_shape, pre.stride, pre.padding, 1, False, 0.0, False, ()
    )


@cache
def built(*, bf16: bool = False) -> CompiledKernels | None:
    """The C++ functions; None: there was no compiler when mpsl was installed.

    Args:
        bf16: dense products are to be in bfloat16.

    Raises:
        UsageError: $MPSL_ISA names an instruction set that is not here.
    """
    try:
        from mpsl_train import _native
    except ImportError:
        return None
    try:
        return CompiledKernels(_native, bf16=bf16)
    except ValueError as error:
        raise UsageError(str(error)) from error


def choose(weight: Tensor, *, bf16: bool = False) -> tuple[Kernels, str]:
    """The functions for windows over such weights, and their name with the reason.

    Args:
        bf16: products are to be in bfloat16.
    """
    device = cuda_kernels(bf16=bf16) if weight.is_cuda else None
    if device is not None:
        return device, device.name
    if weight.device.type != "cpu":
        return TORCH, f"{TORCH.name}: the device is {weight.device.type}"
    if weight.dtype not in (torch.float32, torch.float64):
        return TORCH, f"{TORCH.name}: the weights are {weight.dtype}"
    compiled = built(bf16=bf16 and weight.dtype == torch.float32)
    if compiled is None:
        return TORCH, f"{TORCH.name}: mpsl was installed without its C++ part"
    return compiled, compiled.name
