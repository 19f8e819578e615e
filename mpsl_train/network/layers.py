"""A layer of spiking neurons whose weight is a sum of banks, one for each mechanism."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpsl_runtime.errors import RecipeError
from mpsl_runtime.model.scale import Scale, unclipped_scale
from mpsl_train.network import neuron
from mpsl_train.network.int8_training import fold, on_grid, on_grid_bias
from mpsl_train.network.plasticity import Post, Pre, Rule
from mpsl_train.network.processes import average
from mpsl_train.network.regulation import BankLimits, held
from mpsl_train.notation import LayerSpec

__all__ = ["LayerState", "NeuronSettings", "SpikingLayer", "membrane_of"]


@dataclass(frozen=True)
class NeuronSettings:
    """ρ_m, V_th, the surrogate's width a, and the reset (`subtract` or `zero`)."""

    decay: float = 0.75
    threshold: float = 0.3
    surrogate_width: float = 1.0
    reset: str = "subtract"


@dataclass(eq=False)
class LayerState:
    """A layer within one window: gone when the window ends, but for the committed banks.

    Attributes:
        banks: W1, W2, W3 … as they stand after the last step, in the shape of the weights.
        weighted: λk·Wk of the banks that do not change within a window, else None.
        carried: V, the membrane after its reset; None before the first step.
        membrane: U of the last step. mask: dropout's, one for all steps; None: no dropout.
        scale: of the int8 grid that the window runs on; None: float.
    """

    banks: list[Tensor]
    weighted: list[Tensor | None]
    carried: Tensor | None = None
    membrane: Tensor | None = None
    mask: Tensor | None = None
    scale: Scale | None = None
    source: Tensor | None = field(default=None, repr=False)
    pre: Pre | None = field(default=None, repr=False)


def membrane_of(state: LayerState) -> Tensor:
    """U of the last step."""
    if state.membrane is None:
        raise RuntimeError("no step has run")
    return state.membrane


class SpikingLayer(nn.Module):
    """Eq. 5 and 3 for one layer: current from the effective weight, then the neuron.

    Attributes:
        W1, W2, …: the banks, [Co, Ci, kh, kw] or [out, in], float32; the k-th belongs to the k-th
            mechanism. Learned banks are parameters, the others persistent state.
        bias: [Co].
        coefficients: λ, [m] or [m, Co].
        quantised: windows run on the layer's int8 grid. is_score: U is the score of a class, which
            a grid must not rescale.
    """

    def __init__(
        self,
        spec: LayerSpec,
        rules: Sequence[Rule],
        coefficients: nn.Parameter,
        settings: NeuronSettings,
        *,
        limits: BankLimits | None = None,
        flow: bool = False,
        bf16: bool = False,
    ) -> None:
        """
        Args:
            coefficients: λ of this layer, or of all layers, whose first rows belong to `rules`.
            limits: of the local banks.
            flow: s and U stay differentiable inside the rules.
            bf16: the layer's multiplications run in bfloat16; the banks stay float32.
        """
        super().__init__()
        self.spec, self.settings, self.flow, self.bf16 = spec, settings, flow, bf16
        self.limits = limits or BankLimits()
        self.clipped = any(rule.settings.clipped for rule in rules)
        self.quantised = self.is_score = False
        self.rules = nn.ModuleDict({rule.name: rule for rule in rules})
        self.shared_coefficients = coefficients
        bound = 1 / math.sqrt(spec.fan_in)
        for index, rule in enumerate(rules, start=1):
            if rule.learned:
                weight = torch.empty(spec.weight_shape).uniform_(-bound, bound)
                self.register_parameter(f"W{index}", nn.Parameter(weight))
            else:
                self.register_buffer(f"W{index}", torch.zeros(spec.weight_shape))
        self.bias = nn.Parameter(torch.empty(spec.weight_shape[0]).uniform_(-bound, bound))
        self.batchnorm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
        if spec.batchnorm:
            kind = nn.BatchNorm2d if spec.kind == "conv" else nn.BatchNorm1d
            self.batchnorm = kind(spec.weight_shape[0])

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Names of the mechanisms in the order of the banks."""
        return tuple(self.rules)

    @property
    def plastic(self) -> bool:
        """Whether any bank changes within a window."""
        return any(not rule.learned and not rule.fixed for rule in self.rule_list)

    @property
    def has_local_bank(self) -> bool:
        """Whether there is a bank that back-propagation does not learn."""
        return any(not rule.learned for rule in self.rule_list)

    @property
    def rule_list(self) -> list[Rule]:
        """The rules in the order of the banks."""
        return [rule for rule in self.rules.values() if isinstance(rule, Rule)]

    @property
    def coefficients(self) -> Tensor:
        """λ of the banks of this layer, [m] or [m, Co]."""
        return self.shared_coefficients[: len(self.rules)]

    @property
    def banks(self) -> list[Tensor]:
        """The banks as they were last committed."""
        return [getattr(self, f"W{k}") for k in range(1, len(self.rules) + 1)]

    def _times_coefficient(self, index: int, bank: Tensor) -> Tensor:
        coefficient = self.coefficients[index]
        if coefficient.dim() == 1:
            coefficient = coefficient.view(-1, *([1] * (bank.dim() - 1)))
        return coefficient * bank

    def effective_weight(self, state: LayerState | None = None) -> Tensor:
        """Eq. 5: (λ1·W1 + λ2·W2) + λ3·W3, float32, summed in the order of the banks.

        `mpsl_export.merge` is the same formula in the same order: bit-equal.
        """
        banks = self.banks if state is None else state.banks
        known = [None] * len(banks) if state is None else state.weighted
        parts = [
            self._times_coefficient(index, bank) if part is None else part
            for index, (bank, part) in enumerate(zip(banks, known, strict=True))
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    @torch.no_grad()
    def draw_fixed(self) -> None:
        """Fresh fixed banks, normal, from torch's global random state, of the size at which theirs
        is `current_share` of the current of independent weights."""
        share = min(self.limits.current_share, 0.99)
        for index, rule in enumerate(self.rule_list, start=1):
            if rule.fixed:
                learned = self.banks[0]
                bank = torch.randn_like(learned)
                size = share / math.sqrt(1 - share**2) * learned.norm() / bank.norm()
                setattr(self, f"W{index}", bank * size)

    def local_and_whole(self) -> tuple[Tensor, Tensor]:
        """(λ2·W2 + λ3·W3, λ1·W1 + λ2·W2 + λ3·W3): the local banks alone, and Eq. 5."""
        whole = self.effective_weight()
        local = torch.zeros_like(whole)
        for index, (rule, bank) in enumerate(zip(self.rule_list, self.banks, strict=True)):
            if not rule.learned:
                local = local + self._times_coefficient(index, bank)
        return local, whole

    def begin(self, mask: Tensor | None = None) -> LayerState:
        """The state before the first step of a window.

        Args:
            mask: of dropout, as `dropout.draw_masks` draws it.
        """
        weighted = [
            self._times_coefficient(index, bank) if rule.learned or rule.fixed else None
            for index, (rule, bank) in enumerate(zip(self.rule_list, self.banks, strict=True))
        ]
        scale = self.scale() if self.quantised else None
        return LayerState(banks=self.banks, weighted=weighted, mask=mask, scale=scale)

    @torch.no_grad()
    def scale(self) -> Scale:
        """The int8 grid of the banks as they were last committed: the finest that clips none of
        their merged weights. It holds for a whole window."""
        weight, _ = fold(self.effective_weight(), self.bias, self.batchnorm, self._area)
        threshold = self.settings.threshold
        return unclipped_scale(float(weight.abs().max()), threshold, is_score=self.is_score)

    @property
    def _area(self) -> int:
        return int(self.spec.pool_before**2)

    def synapses(self, state: LayerState) -> tuple[Tensor, Tensor]:
        """Weight and bias of the next step: those of Eq. 5, or what an int8 model makes of them."""
        weight = self.effective_weight(state)
        if state.scale is None:
            return weight, self.bias
        weight, bias = fold(weight, self.bias, self.batchnorm, self._area)
        return on_grid(weight, state.scale), on_grid_bias(bias, state.scale)

    def prepare(self, x: Tensor, state: LayerState) -> Tensor:
        """What comes before the weights: pooling, flattening, dropout. [N, …] -> [N, …]."""
        if self.spec.pool_before > 1:
            # On a grid 1/k² is part of the weights: a sum of spikes is a whole number.
            divisor = None if state.scale is None else 1
            x = F.avg_pool2d(x, self.spec.pool_before, divisor_override=divisor)
        if self.spec.flatten_before:
            x = x.flatten(1)
        return x if state.mask is None else x * state.mask

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The linear part of the current, bias included, before batch normalisation."""
        # Eight bits do not hold the sums of an int8 grid, which are whole numbers.
        low = self.bf16 and self.training and not self.quantised
        bf16 = torch.autocast(x.device.type, torch.bfloat16, enabled=low, cache_enabled=False)
        with bf16, self._whole_numbers(x):
            if self.spec.kind == "conv":
                out = F.conv2d(x, weight, bias, self.spec.stride, self.spec.padding)
            else:
                out = F.linear(x, weight, bias)
        return out.float() if out.dtype == torch.bfloat16 else out

    def _whole_numbers(self, x: Tensor) -> AbstractContextManager[Any]:
        """On an int8 grid every sum is a whole number of its steps, in any order. cuDNN's Winograd
        convolutions add fractions of them (*measured*: three of four sums of a layer of 128
        channels are wrong); torch's own do not."""
        if not self.quantised or not x.is_cuda:
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=False)

    def normalise(self, current: Tensor) -> Tensor:
        """BatchNorm with the statistics of this very step; its running statistics are shared by
        all steps. On a grid it is part of the weights."""
        if self.batchnorm is None or not self.normalises:
            return current
        normalised: Tensor = self.batchnorm(current)
        return normalised

    @property
    def normalises(self) -> bool:
        """Whether `normalise` does anything."""
        return self.batchnorm is not None and not self.quantised

    def fire(self, current: Tensor, state: LayerState) -> Tensor:
        """One step of the population; S."""
        width, scale = self.settings.surrogate_width, state.scale
        spikes, state.carried, state.membrane = neuron.step(
            state.carried,
            current,
            decay=self.settings.decay,
            threshold=self._threshold(state),
            surrogate_width=width if scale is None else width * scale.quantum / scale.step,
            reset=self.settings.reset,
        )
        return spikes

    def _threshold(self, state: LayerState) -> float:
        return self.settings.threshold if state.scale is None else state.scale.stored_threshold

    def see(self, x: Tensor, state: LayerState) -> Pre:
        """What the rules see of what enters the weights; detached unless the recipe asks for
        `flow`."""
        # A constant current is the same tensor at every step: what is known of it stays known.
        if state.pre is None or state.source is not x:
            seen = x if self.flow else x.detach()
            if state.scale is not None and self._area > 1:
                seen = seen / self._area
            state.source = x
            state.pre = Pre(seen, self.spec.weight_shape, self.spec.stride, self.spec.padding)
        return state.pre

    def observe(self, x: Tensor, spikes: Tensor, state: LayerState) -> tuple[Pre, Post]:
        """What the rules see of this step; detached unless the recipe asks for `flow`."""
        if state.membrane is None:
            raise RuntimeError("observe before fire")
        membrane = state.membrane if self.flow else state.membrane.detach()
        post = Post(membrane, spikes.detach(), self._threshold(state), clipped=self.clipped)
        return self.see(x, state), post

    def adapt(self, name: str, pre: Pre, post: Post, state: LayerState) -> None:
        """Runs one rule and advances its bank: W_t = d·W_{t−1} + ΔW."""
        rule = self.rules[name]
        if not isinstance(rule, Rule) or rule.learned or rule.fixed:
            return
        index = self.mechanisms.index(name)
        change = rule.update(pre, post)
        if change.shape != state.banks[index].shape:
            raise RecipeError(
                f"rule {name!r} returned a change of the wrong shape",
                got=tuple(change.shape),
                expected=tuple(state.banks[index].shape),
                where=f"layer {self.spec.name}",
            )
        post.updates[name] = change
        state.banks[index] = torch.add(change, state.banks[index], alpha=rule.settings.decay)

    @torch.no_grad()
    def commit(self, state: LayerState) -> None:
        """Keeps the banks for the next window, within the layer's limits. They are rebound: the old
        tensors are still needed by the backward pass."""
        learned = next(
            (bank for rule, bank in zip(self.rule_list, self.banks, strict=True) if rule.learned),
            None,
        )
        local = [
            index
            for index, rule in enumerate(self.rule_list)
            if not rule.learned and not rule.fixed
        ]
        # A rule that takes means of its own sees its share of the batch alone.
        banks = [average(state.banks[index].detach()) for index in local]
        for index, bank in zip(local, held(banks, learned, self.limits), strict=True):
            setattr(self, f"W{index + 1}", bank)
