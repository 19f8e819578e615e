"""What a plasticity rule is: `update(pre, post) → ΔW`, parameters of its own, and a name.

A rule owns one weight bank of each plastic layer. After every step of a training window the layer
calls `update` and advances that bank, W_t = d·W_{t−1} + ΔW with d = exp(−1/τ_w). Mechanisms run in
the order of the recipe, each on every layer, so that a rule can read in `post.updates` what the
rules before it did in the same step, here and in the layer above.

To add a rule, put a file into this folder, or name one with `mpsl train --plugins FILE`:

    @register("oja")
    class Oja(Rule):
        def update(self, pre, post):
            return 1e-3 * pre.correlate(post.activity)
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.processes import average

__all__ = [
    "Post",
    "Pre",
    "Rule",
    "RuleSettings",
    "find_rule",
    "load_rules",
    "names",
    "register",
]


@dataclass(frozen=True)
class RuleSettings:
    """The recipe's `[rules]` as every rule sees them.

    Attributes:
        tau_w_steps: τ_w, the time constant of a bank, in steps.
        eta_hat, eta_learnable: η̂, and whether back-propagation changes it.
        beta: initial β.
        sign: +1 (Eq. 8), −1 (anti-Hebbian), or 0: learned.
        delta: `l1`, `split` or `literal`.
        clipped: ρ(U) = max(0, tanh(U/V_th)), so that a membrane below rest weakens nothing.
    """

    tau_w_steps: float = 40.0
    eta_hat: float = 1.0
    eta_learnable: bool = True
    beta: float = 0.0
    sign: int = 1
    delta: str = "l1"
    clipped: bool = False

    @property
    def decay(self) -> float:
        """d = exp(−1/τ_w), of one step."""
        return math.exp(-1.0 / self.tau_w_steps)


@dataclass(eq=False)
class Pre:
    """What enters a layer's weights in one step.

    Attributes:
        spikes: s, [B, Ci, H, W] or [B, in] (average pooling makes fractions of them).
        weight_shape: [Co, Ci, kh, kw] or [out, in].
        stride, padding: (rows, columns) of a convolution.
    """

    spikes: Tensor
    weight_shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def correlate(self, post: Tensor) -> Tensor:
        """C: the mean over the batch (and positions) of post·preᵀ, in the shape of the weights.

        The batch is that of all processes, here and in `mean`.

        Args:
            post: g, [B, Co, Ho, Wo] or [B, out].
        """
        if post.dim() == 2:
            return average(post.t() @ self.spikes / post.shape[0])
        count = post.shape[0] * post.shape[2] * post.shape[3]
        template = self.spikes.new_empty(1).expand(self.weight_shape)
        gradient: Tensor = torch.ops.aten.convolution_backward(
            post, self.spikes, template, None, self.stride, self.padding, (1, 1), False, (0, 0), 1,
            (False, True, False),
        )[1]  # fmt: skip
        return average(gradient / count)

    @cached_property
    def mean(self) -> Tensor:
        """P: `correlate` with g ≡ 1, the same for every output; [1, Ci, kh, kw] or [1, in]."""
        if self.spikes.dim() == 2:
            return average(self.spikes.mean(0, keepdim=True))
        rows, columns = self.weight_shape[2:]
        total = F.pad(self.spikes.sum(0), (self.padding[1],) * 2 + (self.padding[0],) * 2)
        windows = total.unfold(1, rows, self.stride[0]).unfold(2, columns, self.stride[1])
        count = self.spikes.shape[0] * windows.shape[1] * windows.shape[2]
        return average(windows.sum((1, 2)).unsqueeze(0) / count)


@dataclass(eq=False)
class Post:
    """What a layer did in one step.

    Attributes:
        membrane: U; spikes: S; [B, Co, Ho, Wo] or [B, out].
        threshold: V_th.
        updates: ΔW of each rule that has run in this step, by name.
        above: the same of the next weighted layer, None in the last one.
        reward: [B], 1 where the output with the highest U of this step is the right class, else 0;
            None where nobody tells the labels.
        clipped: ρ is cut off at 0.
    """

    membrane: Tensor
    spikes: Tensor
    threshold: float
    updates: dict[str, Tensor] = field(default_factory=dict)
    above: Post | None = None
    reward: Tensor | None = None
    clipped: bool = False

    @cached_property
    def activity(self) -> Tensor:
        """g = ρ(U) = tanh(U/V_th), or what of it is positive."""
        g = torch.tanh(self.membrane / self.threshold)
        return g.clamp(min=0) if self.clipped else g


class Rule(nn.Module):
    """Base of all rules.

    Attributes:
        name: set by `register`.
        learned: the bank itself is learned by back-propagation and `update` is never called.
        fixed: the bank never changes within a window, and `update` is never called either.
        needs: rules that must stand before this one in the recipe.
        shared: several processes learn what one does: whatever `update` averages over the batch
            comes from `pre`, whose means are those of all processes. A rule that takes a mean of
            its own would drift apart.
    """

    name: ClassVar[str] = ""
    learned: ClassVar[bool] = False
    fixed: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[bool] = False

    def __init__(self, weight_shape: tuple[int, ...], settings: RuleSettings) -> None:
        super().__init__()
        self.weight_shape = weight_shape
        self.settings = settings

    def per_output(self, values: Tensor) -> Tensor:
        """[Co] seen as [Co, 1, 1, 1] or [out, 1], to be multiplied with the weights."""
        return values.view(-1, *([1] * (len(self.weight_shape) - 1)))

    def warm(self, factor: float) -> None:
        """Takes so much of its rate of change in the windows to come; nothing by default."""

    def strengthen(self, factor: float) -> None:
        """Multiplies its rate of change, for `rules.current_share`; nothing by default."""

    def update(self, pre: Pre, post: Post) -> Tensor:
        """ΔW of one step, in the shape of the weights, differentiable in the rule's parameters."""
        raise NotImplementedError


_RULES: dict[str, type[Rule]] = {}
R = TypeVar("R", bound=type[Rule])


def register(name: str) -> Callable[[R], R]:
    """Makes a rule known to recipes under `name`.

    Raises:
        RecipeError: not a plain name, or another class has it.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise RecipeError(
            "rule has no plain name", got=repr(name), expected="small letters, digits, - and _"
        )

    def decorate(rule: R) -> R:
        known = _RULES.get(name)
        # The same class again is a newer version of a plug-in.
        same = (rule.__module__, rule.__qualname__)
        if known is not None and (known.__module__, known.__qualname__) != same:
            raise RecipeError("two rules have the same name", got=repr(name), where=rule.__module__)
        rule.name = name
        _RULES[name] = rule
        return rule

    return decorate


def load_rules() -> None:
    """Imports every module of this folder, so that each registers its rule."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")


def names() -> list[str]:
    """The names of all rules that are known."""
    load_rules()
    return sorted(_RULES)


def find_rule(name: str) -> type[Rule]:
    """The rule of that name.

    Raises:
        RecipeError: there is none.
    """
    known = names()
    if name not in _RULES:
        near = difflib.get_close_matches(name, known, 1)
        raise RecipeError(
            "mechanism is not known",
            got=repr(name),
            expected=repr(near[0]) if near else " or ".join(known),
            where="mechanisms",
        )
    return _RULES[name]
