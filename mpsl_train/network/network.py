"""A feed-forward network of layers with banks, and how a window of T steps runs through it.

Two ways, the same numbers: step by step over all layers while anything is plastic (a layer's bank
at step t needs what the next layer did at step t − 1), and layer by layer with the T steps folded
into the batch when nothing is: at evaluation, and in training by back-propagation alone where C++
is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from mpsl_train.network.compiled import choose
from mpsl_train.network.dropout import Masks, draw_masks
from mpsl_train.network.finite import (
    NonFiniteError,
    check_membrane,
    check_parameters,
    is_finite,
    name_bank,
)
from mpsl_train.network.graphed import ON_DEVICE, GraphedWindow
from mpsl_train.network.kernels import Kernels
from mpsl_train.network.layers import LayerState, NeuronSettings, SpikingLayer, membrane_of
from mpsl_train.network.plasticity import Post, Pre, Rule, RuleSettings, find_rule
from mpsl_train.network.regulation import BankLimits, regulate
from mpsl_train.network.step_choice import detour, graph_obstacle, obstacle
from mpsl_train.network.window import run_window
from mpsl_train.notation import LayerSpec

__all__ = ["Network", "Output", "build_network"]


@dataclass(frozen=True, eq=False)
class Output:
    """What comes out of a window.

    Attributes:
        spikes: of the last layer, [T, B, K].
        membrane: U of the last layer at the last step, [B, K].
        layers: spikes of every layer [T, B, …] where they were asked for, else empty.
    """

    spikes: Tensor
    membrane: Tensor
    layers: tuple[Tensor, ...] = ()


class Network(nn.Module):
    """Layers in graph order.

    Attributes:
        layers: in order; their names are `L00`, `L01`, ….
        mechanisms: of the network; a layer may have fewer.
        step: how a plastic window runs: `auto`, `fused`, `graphed`, or `autograd`, the reference.
        kernels: of a fused window; None: C++ where it can be.
        taken: what the last one did, in words; empty before the first.
    """

    def __init__(self, layers: Sequence[SpikingLayer], mechanisms: Sequence[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.mechanisms = tuple(mechanisms)
        self._labels: Tensor | None = None
        self.step, self.taken = "auto", ""
        self.kernels: Kernels | None = None
        self._window: GraphedWindow | None = None
        self._potentials: list[Tensor] = []

    @property
    def layer_list(self) -> list[SpikingLayer]:
        """The layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    @property
    def plastic(self) -> bool:
        """Whether a window changes banks now: in training, where a mechanism is local."""
        return self.training and any(layer.plastic for layer in self.layer_list)

    def quantise(self, quantised: bool, *, read_by_membrane: bool = False) -> None:
        """Sets whether windows run on the grids of the int8 model that the banks would make.

        Args:
            read_by_membrane: the last layer's U are the scores of the classes.
        """
        for layer in self.layer_list:
            layer.quantised, layer.is_score = quantised, False
        self.layer_list[-1].is_score = read_by_membrane

    def forward(
        self,
        frames: Tensor,
        steps: int = 0,
        *,
        record: bool = False,
        labels: Tensor | None = None,
    ) -> Output:
        """Runs one window from a state of rest; in training it commits the banks at its end.

        Args:
            frames: [T, B, C, H, W], or a constant current [B, C, H, W] shown for `steps` steps.
            record: also return the spikes of every layer.
            labels: [B], for rules that ask for a reward; nothing else reads them.

        Raises:
            NonFiniteError: a membrane or a bank is NaN or infinite; no bank was committed.
        """
        constant = frames.dim() == 4
        if constant and steps < 1:
            raise ValueError("a constant current needs the number of steps")
        steps = steps if constant else len(frames)
        self._labels = labels
        masks = self._masks(frames)
        if self._takes_graph(frames, record):
            return self._graph(frames, steps, masks)
        if self.plastic:
            if not record and self._takes_fused(frames):
                return self._fused(frames, steps, masks)
            return self._step_by_step(frames, steps, record, masks)
        if self.training:
            if not record and torch.is_grad_enabled() and self._gains_by_fusing(frames):
                return self._fused(frames, steps, masks)
            self.taken = "autograd over all steps at once, since no bank changes within a window"
        return self._layer_by_layer(frames, steps, record, masks)

    def _masks(self, frames: Tensor) -> Masks:
        """Of dropout, which is a matter of training."""
        specs = [layer.spec for layer in self.layer_list]
        return draw_masks(specs, frames) if self.training else [None] * len(specs)

    def _takes_graph(self, frames: Tensor, record: bool) -> bool:
        if self.step != "graphed" or not frames.is_cuda or not self.training or record:
            return False
        if not torch.is_grad_enabled() or (reason := graph_obstacle(self.layer_list, frames)):
            if torch.is_grad_enabled():
                self.taken = f"not as a CUDA graph, because {reason}"
            return False
        self.taken = f"fused (CUDA graphs, {self._recorded_kernels().name})"
        return True

    def _recorded_kernels(self) -> Kernels:
        kernels, _ = self._kernels()
        return ON_DEVICE if kernels.reads_numbers else kernels

    def _graph(self, frames: Tensor, steps: int, masks: Masks) -> Output:
        window = self._window
        if window is None or (window.shape, window.steps) != (frames.shape, steps):
            window = self._window = GraphedWindow(
                self.layer_list, frames, steps, masks, self._recorded_kernels()
            )
        spikes, membrane, self._potentials = window(frames, masks)
        return Output(spikes, membrane)

    def settle(self) -> None:
        """Windows that are CUDA graphs wait for nothing, and tell of numbers that are not finite
        only here.

        Raises:
            NonFiniteError: a window since the last call had one; banks may be broken by it.
        """
        if self._window is None or self._window.settled():
            return
        self.check_parameters()
        for layer, potential in zip(self.layer_list, self._potentials, strict=True):
            check_membrane(layer, potential, None, self.training)
        raise NonFiniteError("a number of a window is not finite")

    def _takes_fused(self, frames: Tensor) -> bool:
        reason = detour(self.step, self.layer_list, frames)
        name = self._kernels()[1]
        self.taken = f"autograd, because {reason}" if reason else f"fused ({name})"
        return reason is None

    def _gains_by_fusing(self, frames: Tensor) -> bool:
        """Without local rules all steps can be one batch; only C++ is faster than that."""
        kernels, name = self._kernels()
        if self.step == "autograd" or type(kernels) is Kernels:
            return False
        if frames.dim() == 4 and self.layer_list[0].normalises:
            return False  # its one current is normalised once, and counted once
        self.taken = f"fused ({name})"
        return obstacle(self.layer_list, frames) is None

    def _kernels(self) -> tuple[Kernels, str]:
        if self.kernels is not None:
            return self.kernels, self.kernels.name
        first = self.layer_list[0]
        return choose(first.banks[0], bf16=first.bf16)

    def _fused(self, frames: Tensor, steps: int, masks: Masks) -> Output:
        layers = self.layer_list
        kernels, _ = self._kernels()
        spikes, membrane, states = run_window(layers, frames, steps, kernels, masks)
        self._finish_window(layers, states, frames, steps)
        return Output(spikes, membrane)

    def _finish_window(
        self,
        layers: Sequence[SpikingLayer],
        states: Sequence[LayerState],
        frames: Tensor,
        steps: int,
    ) -> None:
        """Commits the banks, or names what is not finite."""
        if not is_finite(states, self.training):
            with torch.no_grad():
                masks = [state.mask for state in states]
                self._step_by_step(frames, steps, False, masks, check=True)
            name_bank(self.layer_list, states, self.training)
        for layer, state in zip(layers, states, strict=True):
            layer.commit(state)
            regulate(layer, state, steps)

    def _step_by_step(
        self,
        frames: Tensor,
        steps: int,
        record: bool,
        masks: Masks,
        *,
        check: bool = False,
    ) -> Output:
        """With `check`, of a window that broke, every step is checked, to name the first layer and
        step: a broken bank soon breaks the layers below it too."""
        layers = self.layer_list
        states = [layer.begin(mask) for layer, mask in zip(layers, masks, strict=True)]
        recorded: list[list[Tensor]] = [[] for _ in layers]
        constant = frames.dim() == 4
        for step in range(steps):
            x = frames if constant else frames[step]
            seen: list[tuple[Pre, Post]] = []
            for index, (layer, state) in enumerate(zip(layers, states, strict=True)):
                x = layer.prepare(x, state)
                current = layer.normalise(layer.multiply(x, *layer.synapses(state)))
                spikes = layer.fire(current, state)
                if check:
                    check_membrane(layer, membrane_of(state), step, self.training)
                seen.append(layer.observe(x, spikes, state))
                if record or index == len(layers) - 1:
                    recorded[index].append(spikes)
                x = spikes
            for (_, post), (_, above) in pairwise(seen):
                post.above = above
            if self._labels is not None:
                reward = membrane_of(states[-1]).detach().argmax(1).eq(self._labels).float()
                for _, post in seen:
                    post.reward = reward
            for name in self.mechanisms:
                for layer, state, (pre, post) in zip(layers, states, seen, strict=True):
                    if name in layer.rules:
                        layer.adapt(name, pre, post, state)
        if not check:
            self._finish_window(layers, states, frames, steps)
        every = tuple(torch.stack(spikes) for spikes in recorded) if record else ()
        return Output(torch.stack(recorded[-1]), membrane_of(states[-1]), every)

    def _layer_by_layer(self, frames: Tensor, steps: int, record: bool, masks: Masks) -> Output:
        constant = frames.dim() == 4
        x = frames.unsqueeze(0) if constant else frames  # [T or 1, B, …]
        states = []
        recorded = []
        for layer, mask in zip(self.layer_list, masks, strict=True):
            state = layer.begin(mask)
            folded = (
                layer.prepare(x.flatten(0, 1), state)
                if mask is None
                else torch.cat([layer.prepare(one, state) for one in x])
            )
            if self.training and layer.limits.current_share > 0:
                layer.see(folded[-x.shape[1] :], state)  # of the last step
            current = layer.multiply(folded, *layer.synapses(state))
            current = current.view(*x.shape[:2], *current.shape[1:])
            if layer.normalises and self.training:
                current = torch.stack([layer.normalise(one) for one in current])
            elif layer.normalises:
                current = layer.normalise(current.flatten(0, 1)).view(current.shape)
            x = torch.stack(
                [layer.fire(current[0 if len(current) == 1 else t], state) for t in range(steps)]
            )
            states.append(state)
            if record:
                recorded.append(x)
        if not is_finite(states, self.training):
            name_bank(self.layer_list, states, self.training)
        if self.training:
            for layer, state in zip(self.layer_list, states, strict=True):
                regulate(layer, state, steps)
        return Output(x, membrane_of(states[-1]), tuple(recorded))

    def warm(self, factor: float) -> None:
        """The rules take so much of their rates in the windows to come."""
        for layer in self.layer_list:
            for rule in layer.rule_list:
                rule.warm(factor)

    def check_parameters(self) -> None:
        """Raises NonFiniteError when a parameter or a bank is NaN or infinite, naming its layer."""
        check_parameters(self, self.layer_list)


def build_network(
    specs: Sequence[LayerSpec],
    mechanisms: Sequence[str],
    neuron: NeuronSettings,
    rules: RuleSettings,
    *,
    plastic_layers: str = "all",
    coefficient_scope: str = "layer",
    coefficient_init: Sequence[float] | None = None,
    coefficients_learned: bool = True,
    eta_hats: Sequence[float] = (),
    limits: BankLimits | None = None,
    flow: bool = False,
    bf16: bool = False,
    init_gain: float = 1.0,
) -> Network:
    """A network with fresh weights; draws from torch's global random state.

    Args:
        plastic_layers: `all`, or `fc`: convolutions then have the learned bank alone.
        coefficient_scope: one λ for each `layer`, for the whole network (`global`), or for each
            `channel`.
        coefficient_init: first values of λ, one for each mechanism; default 1.
        eta_hats: η̂ of each layer; empty: that of `rules` in all. limits: of the local banks.
        init_gain: learned banks start uniform within ±init_gain/√fan_in.
    """
    kinds = [find_rule(name) for name in mechanisms]
    init = torch.tensor(list(coefficient_init or [1.0] * len(kinds)), dtype=torch.float32)
    shared = nn.Parameter(init.clone(), requires_grad=coefficients_learned)
    layers = []
    for number, spec in enumerate(specs):
        used = [
            index
            for index, kind in enumerate(kinds)
            if kind.learned or plastic_layers == "all" or spec.kind == "fc"
        ]
        settings = replace(rules, eta_hat=eta_hats[number]) if eta_hats else rules
        own: list[Rule] = [kinds[index](spec.weight_shape, settings) for index in used]
        if coefficient_scope == "global":
            coefficients = shared
        else:
            values = init[used]
            if coefficient_scope == "channel":
                values = values[:, None].expand(-1, spec.weight_shape[0])
            coefficients = nn.Parameter(values.clone(), requires_grad=coefficients_learned)
        layers.append(
            SpikingLayer(spec, own, coefficients, neuron, limits=limits, flow=flow, bf16=bf16)
        )
    with torch.no_grad():
        for bank in (bank for layer in layers for bank in layer.banks):
            bank.mul_(init_gain)  # the local rules' are 0 yet
        for layer in layers:  # after all others, which a seed gives every method alike
            layer.draw_fixed()
    return Network(layers, mechanisms)
