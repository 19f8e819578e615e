"""One layer of a fused window: its steps forward and back. The equations stand in `window`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.kernels import Kernels
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.plasticity import Pre
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.plasticity.sbp import SelfBackpropagation
from mpsl_train.network.plasticity.sbp import received as summed
from mpsl_train.network.window_grid import Stored, WindowGrid
from mpsl_train.network.window_rules import Change

__all__ = ["WindowLayer"]

_aten = torch.ops.aten


@dataclass(eq=False)
class _Step:
    """What the backward pass needs of one step."""

    fired: Tensor
    near: Tensor
    weight: Tensor
    normalised: tuple[Tensor, Tensor, Tensor] | None = None
    stored: Stored | None = None  # what `weight` is on an int8 grid
    D: Tensor | None = None
    P: Tensor | None = None
    received: Tensor | None = None  # r/η of the layer above, [Co]
    factor: Tensor | float = 1.0  # c_t


class WindowLayer:
    """A layer within one window.

    Attributes:
        values: what gets a gradient, in the order of `names`; η, λ_f and λ_p are themselves made
            of parameters, outside.
        above: the next layer, if its changes steer this one's.
        grid: the int8 grid that the window runs on; None: float. settings: of the neurons there.
        tape: a `_Step` for each step. later: ∂L/∂U of the step after, in the backward pass.
    """

    def __init__(
        self,
        layer: SpikingLayer,
        above: WindowLayer | None,
        kernels: Kernels,
        mask: Tensor | None = None,
    ) -> None:
        self.layer, self.kernels, self.state = layer, kernels, layer.begin(mask)
        scale = self.state.scale
        self.grid = None if scale is None else WindowGrid(layer, scale)
        self.settings = layer.settings if self.grid is None else self.grid.settings
        self.on_grid: Stored | None = None
        self.mask: Tensor | None = None
        self.fixed: list[Tensor] = []
        rules = {rule.name: rule for rule in layer.rule_list}
        hebbian, sbp = rules.get("hebbian"), rules.get("sbp")
        self.hebbian = hebbian if isinstance(hebbian, Hebbian) else None
        self.sbp = sbp if isinstance(sbp, SelfBackpropagation) else None
        steered = self.sbp is not None and above is not None and above.hebbian is not None
        self.above = above if steered else None
        named = {"weight": layer.banks[0], "bias": layer.bias, "lambda": layer.coefficients}
        if self.hebbian is not None:
            named |= {"eta": self.hebbian.eta, "beta": self.hebbian.beta}
        if self.sbp is not None:
            named["fraction"] = self.sbp.fraction
            if steered:
                named["steering"] = self.sbp.steering
        if layer.batchnorm is not None:
            named |= {"gain": layer.batchnorm.weight, "shift": layer.batchnorm.bias}
        self.names, self.values = list(named), list(named.values())
        self.tape: list[_Step] = []
        self.carried: Tensor | None = None
        self.later: Tensor | None = None
        self.source: Tensor | None = None
        self.spare: Tensor | None = None

    # ---------------------------------------------------------------- forward

    def begin(self, values: Sequence[Tensor]) -> int:
        """Takes its values from the front of `values` and says how many it took."""
        count = len(self.names)
        self.value = {name: value.detach() for name, value in zip(self.names, values, strict=False)}
        weight = self.value["weight"]
        # Numbers, not tensors, where there is one for a layer: a single look at the device.
        scalars = [name for name in ("eta", "fraction", "steering") if name in self.value]
        weight = self.kernels.arrange(weight)
        coefficients = self.value["lambda"]
        shared = coefficients.dim() == 1
        flat = [self.value[name].reshape(1) for name in scalars]
        read = torch.cat([*flat, coefficients] if shared else flat or [weight.new_zeros(1)])
        numbers: list[Any] = list(read.tolist() if self.kernels.reads_numbers else read.unbind())
        self.number: dict[str, Any] = dict(zip(scalars, numbers, strict=False))
        # λ of each bank, as a factor of weights and as one of rows.
        self.rows: list[Tensor | float] = (
            [*numbers[len(scalars) :]] if shared else list(coefficients)
        )
        self.factors = [self._on_weights(row) for row in self.rows]
        self.base = weight * self.factors[0]
        rules = self.layer.rule_list
        if any(rule.fixed for rule in rules):  # as much a part of every step's weight as W1
            self.fixed = [self.kernels.arrange(bank.detach()) for bank in self.state.banks[1:]]
            self.base = self.kernels.merge(self.base, self.fixed, self.rows[1:])
        self.weight = self.base
        if self.hebbian is not None:
            self.initial = [bank.detach() for bank in self.state.banks[1:]]
            if not self.kernels.reads_numbers:  # committed in place before the backward pass
                self.initial = [bank.clone() for bank in self.initial]
            arranged = [self.kernels.arrange(bank) for bank in self.initial]
            # Changed in place from here on. What is laid out already stays where it is: all of it,
            # or, with one channel on both sides, another view of the same memory.
            self.banks = [
                bank.clone() if bank.data_ptr() == given.data_ptr() else bank
                for bank, given in zip(arranged, self.initial, strict=True)
            ]
            self.weight = self.kernels.merge(self.base, self.banks, self.rows[1:])
        return count

    def _on_weights(self, row: Tensor | float) -> Tensor | float:
        if isinstance(row, float):
            return row
        return row.view(-1, *([1] * (len(self.layer.spec.weight_shape) - 1)))

    def _on_channels(self, values: Tensor) -> Tensor:
        """[Co] as a summand of currents."""
        return values.view(-1, 1, 1) if self.layer.spec.kind == "conv" else values

    def _prepare(self, x: Tensor) -> Tensor:
        """Pooling, flattening and dropout of the layer below's booleans, or of a frame."""
        spec, dtype = self.layer.spec, self.base.dtype
        if x.dtype == torch.bool:
            x = self.kernels.pool(x, spec.pool_before, dtype)
        elif spec.pool_before > 1:
            x = F.avg_pool2d(x, spec.pool_before)
        if spec.flatten_before:
            x = x.flatten(1)
        if self.state.mask is not None:
            if self.mask is None:  # laid out in memory as what it is multiplied with
                self.mask = torch.empty_like(x).copy_(self.state.mask)
            x = x * self.mask
        return x

    def step(self, x: Tensor, last: bool) -> Tensor:
        """Current, neurons and correlation of one step; S, as booleans."""
        layer, spec = self.layer, self.layer.spec
        source = x
        x = self._prepare(x)
        weight, bias, stored = self.weight, self.value["bias"], self._stored()
        if stored is not None:
            weight, bias = stored.weight, stored.bias
        current = self.kernels.multiply(x, weight, bias, spec, self.spare)
        late = self.kernels.biases_late
        normalised = None
        if layer.batchnorm is not None and layer.normalises:
            if late:
                current, late = current + self._on_channels(bias), False
            norm, before = layer.batchnorm, current
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            current, mean, scale = _aten.native_batch_norm(
                before, self.value["gain"], self.value["shift"], norm.running_mean,
                norm.running_var, True, norm.momentum, norm.eps,
            )  # fmt: skip
            normalised = (before, mean, scale)
        plastic = self.hebbian is not None
        now = self.kernels.fire(
            current,
            self.carried,
            self.settings,
            plastic,
            last,
            layer.clipped,
            bias if late else None,
        )
        self.carried = now.membrane
        entry = _Step(now.fired, now.near, weight, normalised, stored)
        if now.activity is not None:
            # A constant current is the same tensor at every step: its mean stays known.
            if self.source is not source:
                self.source = source
                self.pre = Pre(x, spec.weight_shape, spec.stride, spec.padding)
            entry.D, entry.P = self.kernels.correlate(self.pre, now.activity, self.value["beta"])
        if last and layer.limits.current_share > 0:
            self.state.pre = Pre(x, spec.weight_shape, spec.stride, spec.padding)
        self.tape.append(entry)
        self.spare = None if normalised else current
        return now.fired

    def _stored(self) -> Stored | None:
        """This step's weight on the grid; without plasticity, that of all steps."""
        if self.grid is None:
            return None
        if self.on_grid is None or self.hebbian is not None:
            self.on_grid = self.grid.stored(self.weight)
        return self.on_grid

    def learn(self, last: bool) -> None:
        """Eq. 8–11: the banks after this step, and the weight of the next."""
        entry = self.tape[-1]
        if self.hebbian is None or entry.D is None:
            return
        if self.sbp is not None:
            entry.factor = self.number["fraction"]
            if self.above is not None and (above := self.above.tape[-1].D) is not None:
                entry.received = summed(above, self.layer.spec.weight_shape[0])
                entry.factor = self.kernels.steer(
                    entry.received, self.above.number["eta"], entry.factor,
                    self.number["steering"], self.sbp.settings.delta,
                )  # fmt: skip
        weight = self.kernels.learn(
            entry.D, self.number["eta"], self.hebbian.settings.decay, entry.factor, self.banks,
            self.base, self.rows[1:], merge=not last,
        )  # fmt: skip
        if weight is not None:
            self.weight = weight

    def hand_over(self) -> None:
        """The end of the window as the rest of the program knows it."""
        if self.carried is None:
            raise RuntimeError("no step has run")
        self.state.membrane = self.membrane = self.carried
        self.carried = None
        if self.hebbian is not None:
            self.state.banks = [self.state.banks[0], *(bank.contiguous() for bank in self.banks)]
            del self.banks
        self.source = self.spare = None

    # ---------------------------------------------------------------- backward

    def spikes(self) -> Tensor:
        """S of the step that is being undone, as booleans."""
        return self.tape[-1].fired

    def _start_backward(self) -> None:
        self.sums: dict[str, Any] = dict.fromkeys(self.names, 0.0)
        self.sums["lambda"] = [0.0] * len(self.rows)
        self.total = torch.zeros_like(self.base)
        self.trace = torch.zeros_like(self.base) if self.hebbian is not None else None
        self.changes: list[Change] = []

    def note_change(self) -> None:
        """Before this step is undone: what the loss asks of the change of banks that ended it."""
        entry = self.tape[-1]
        if self.later is None:  # no step came after: the last change has no part in the loss
            self._start_backward()
        elif self.trace is not None and entry.D is not None and entry.P is not None:
            dot = self.kernels.dot
            with_change, with_mean = dot(self.trace, entry.D), dot(self.trace, entry.P)
            self.changes.append(
                Change(with_change, with_mean, entry.P, entry.factor, entry.received)
            )

    def step_back(
        self,
        gradient: Tensor,
        size: int,
        x: Tensor,
        membrane_gradient: Tensor | None,
        needs_input: bool,
    ) -> Tensor:
        """From ∂L/∂S of this layer to ∂L/∂S of the one below, each averaged over the windows of
        the layer above it.

        Args:
            size: of those windows. x: what the layer below fired, or the frame.
            membrane_gradient: ∂L/∂U of the last step.
        """
        layer, spec, entry = self.layer, self.layer.spec, self.tape[-1]
        gradient = self.kernels.unfire(gradient, size, self.later, entry.near, self.settings)
        if membrane_gradient is not None:
            gradient.add_(membrane_gradient)
        self.later = gradient
        if layer.batchnorm is not None and entry.normalised is not None:
            before, mean, scale = entry.normalised
            norm = layer.batchnorm
            gradient, gain, shift = _aten.native_batch_norm_backward(
                gradient, before, self.value["gain"], norm.running_mean, norm.running_var,
                mean, scale, True, norm.eps, [True, True, True],
            )  # fmt: skip
            self.sums["gain"] += gain
            self.sums["shift"] += shift
        back, change = self.kernels.multiply_back(
            gradient, self._prepare(x), entry.weight, spec, needs_input
        )
        bias = self.kernels.bias_gradient(gradient)
        if entry.stored is not None and self.trace is not None:
            change, bias = self._through_grid(entry.stored, change, bias)
        self.sums["bias"] += bias
        if self.trace is None:
            self.total.add_(change)
        else:
            decay = layer.rule_list[1].settings.decay
            self.kernels.decay_add(self.trace, change, self.total, decay)
        return gradient if back is None else self._unprepare(back, x)

    def _through_grid(self, stored: Stored, change: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """∂L of weight and bias as they are, from ∂L of them as they are stored."""
        change, bias, *norm = stored.back(change, bias)
        for name, gradient in zip(("gain", "shift"), norm, strict=False):
            self.sums[name] += gradient
        return self.kernels.arrange(change), bias

    def _unprepare(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Dropout and flattening backwards."""
        if self.mask is not None:
            gradient = gradient * self.mask
        if self.layer.spec.flatten_before:
            size = self.layer.spec.pool_before
            gradient = gradient.view(*x.shape[:2], *(length // size for length in x.shape[2:]))
        return gradient

    def gradients(self) -> list[Tensor]:
        """∂L of everything in `values`."""
        sums, shared = self.sums, self.value["lambda"].dim() == 1
        dot = self.kernels.dot
        if self.on_grid is not None and self.trace is None:
            self.total, sums["bias"] = self._through_grid(self.on_grid, self.total, sums["bias"])
        sums["lambda"][0] = dot(self.total, self.kernels.arrange(self.value["weight"]))
        for index, bank in enumerate(self.fixed, start=1):
            sums["lambda"][index] = dot(self.total, bank)
        if self.trace is not None:
            for index, bank in enumerate(self.initial, start=1):
                given = dot(self.trace, self.kernels.arrange(bank))
                sums["lambda"][index] = sums["lambda"][index] + given
        rows = torch.stack(sums["lambda"])
        sums["lambda"] = rows.sum(1) if shared else rows
        sums["weight"] = self.total.mul_(self.factors[0])
        return [
            torch.as_tensor(sums[name], dtype=value.dtype, device=value.device).expand(value.shape)
            for name, value in self.value.items()
        ]
