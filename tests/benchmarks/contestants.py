"""One training step of the same network in each framework, for `train_speed.py`.

Each builder returns a step: called, it runs forward, backward and Adam's update on one batch and
returns the loss. STBP: a rectangular surrogate of width 1, soft reset, MSE of the mean rate. Where
a framework has no such neuron (snntorch resets one step later, norse has its own box) its work is
that of ours, its spikes are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import NeuronSettings, SpikingLayer
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import LayerSpec

__all__ = ["CONTESTANTS", "MECHANISMS", "SLOW_TO_START", "Step", "Task", "ours", "same_network"]

MECHANISMS = ["stbp", "hebbian", "sbp"]


@dataclass(frozen=True)
class Task:
    """What all contestants train.

    Attributes:
        specs: the layers. frames: [B, C, H, W], shown at every step, or [T, B, C, H, W].
        labels: [B]. steps: T. state: of our network with all mechanisms; the others begin with its
            merged weights.
    """

    specs: tuple[LayerSpec, ...]
    frames: Tensor
    labels: Tensor
    steps: int
    neuron: NeuronSettings
    state: dict[str, Tensor]

    @property
    def target(self) -> Tensor:
        """One-hot [B, K]."""
        return F.one_hot(self.labels, self.specs[-1].neurons[0]).to(self.frames.dtype)

    def double(self) -> Task:
        """The same in float64, where no rounding turns a spike."""
        state = {name: value.double() for name, value in self.state.items()}
        return replace(self, frames=self.frames.double(), state=state)

    def frame(self, step: int) -> Tensor:
        """[B, C, H, W]."""
        return self.frames if self.frames.dim() == 4 else self.frames[step]

    def merged(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of every layer as a network with a single rule has them."""
        network = ours(self.specs, self.neuron, MECHANISMS).to(self.frames.dtype)
        network.load_state_dict(self.state)
        with torch.no_grad():
            return [
                (layer.effective_weight().clone(), layer.bias.clone())
                for layer in network.layer_list
            ]


def ours(specs: tuple[LayerSpec, ...], neuron: NeuronSettings, mechanisms: list[str]) -> Network:
    """Our network with fresh weights."""
    torch.manual_seed(0)
    return build_network(specs, mechanisms, neuron, RuleSettings()).train()


class Step:
    """Trains on the task's batch, one step a call.

    Attributes:
        first: spikes of every output in the first window, int64 [B, K]; None before it.
    """

    def __init__(self, task: Task, parameters: Any, rate: Callable[[], Tensor]) -> None:
        self._rate, self._target, self._steps = rate, task.target, task.steps
        self._optimiser = torch.optim.Adam(parameters, 1e-4, fused=True)
        self.first: Tensor | None = None

    def __call__(self) -> float:
        rates = self._rate()
        if self.first is None:
            self.first = (rates.detach() * self._steps).round().long()
        loss = F.mse_loss(rates, self._target)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())


# ---------------------------------------------------------------- ours


class _Apart(SpikingLayer):
    """λ1·conv(s, W1) + λ2·conv(s, W2) + λ3·conv(s, W3), as Eq. 5 reads before it is merged."""

    def synapses(self, state):  # type: ignore[no-untyped-def]
        return state.banks, self.bias

    def multiply(self, x, weight, bias):  # type: ignore[no-untyped-def]
        parts = [
            coefficient * super(_Apart, self).multiply(x, bank, None)
            for coefficient, bank in zip(self.coefficients, weight, strict=True)
        ]
        return sum(parts) + bias.view(-1, *([1] * (parts[0].dim() - 2)))


def _ours(
    mechanisms: list[str],
    step: str = "auto",
    apart: bool = False,
    kernels: Kernels | None = None,
    int8: bool = False,
    bf16: bool = False,
) -> Callable[[Task], Step]:
    def build(task: Task) -> Step:
        network = ours(task.specs, task.neuron, mechanisms).to(task.frames.dtype)
        if mechanisms == MECHANISMS:
            network.load_state_dict(task.state)
        else:
            with torch.no_grad():
                for layer, (weight, bias) in zip(network.layer_list, task.merged(), strict=True):
                    layer.banks[0].copy_(weight)
                    layer.bias.copy_(bias)
        network.step, network.kernels = step, kernels
        network.quantise(int8)
        for layer in network.layer_list:
            layer.bf16 = bf16 and task.frames.dtype == torch.float32
            if apart:
                layer.__class__ = _Apart
        return Step(
            task,
            network.parameters(),
            lambda: network(task.frames, task.steps).spikes.mean(0),
        )

    return build


# ---------------------------------------------------------------- plain torch


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(above)
        ctx.width = width
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return gradient * (above.abs() < ctx.width / 2) / ctx.width, None


def _words(task: Task, convolution: Any, linear: Any, pool: Any, flatten: Any, neuron: Any) -> Any:
    """The network as a list of modules, weights copied in, a neuron after each weighted layer."""
    modules = []
    for spec, (weight, bias) in zip(task.specs, task.merged(), strict=True):
        if spec.pool_before > 1:
            modules.append(pool(spec.pool_before))
        if spec.flatten_before:
            modules.append(flatten())
        out, into = weight.shape[:2]
        module = linear(into, out)
        if spec.kind == "conv":
            size = weight.shape[2]
            module = convolution(into, out, size, stride=spec.stride, padding=spec.padding)
        module = module.to(task.frames.dtype)
        with torch.no_grad():
            module.weight.copy_(weight)
            module.bias.copy_(bias)
        modules += [module, neuron()]
    return modules


class _Window(nn.Module):
    """The textbook's way: for each step, for each layer."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.words = nn.ModuleList(
            _words(task, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.Flatten, nn.Identity)
        )

    def forward(self, *frames: Tensor) -> Tensor:
        neuron = self.task.neuron
        left: dict[int, Tensor] = {}
        total: Any = 0.0
        for step in range(self.task.steps):
            x = frames[step % len(frames)]
            for index, word in enumerate(self.words):
                if not isinstance(word, nn.Identity):
                    x = word(x)
                    continue
                u = neuron.decay * left[index] + x if index in left else x
                x = _Spike.apply(u - neuron.threshold, neuron.surrogate_width)
                left[index] = u - x * neuron.threshold
            total = total + x
        return total / self.task.steps


def _plain(
    channels_last: bool = False, compiled: bool = False, bf16: bool = False
) -> Callable[[Task], Step]:
    def build(task: Task) -> Step:
        window: Any = _Window(task)
        parameters = list(window.parameters())
        constant = task.frames.dim() == 4
        frames = [task.frame(step) for step in range(1 if constant else task.steps)]
        if channels_last:
            window = window.to(memory_format=torch.channels_last)
            frames = [x.contiguous(memory_format=torch.channels_last) for x in frames]
        if compiled:
            window = torch.compile(window)
        low = bf16 and task.frames.dtype == torch.float32

        def rate() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return window(*frames)

        return Step(task, parameters, rate)

    return build


# ---------------------------------------------------------------- other frameworks


def _spikingjelly(many: bool, channels_last: bool = False) -> Callable[[Task], Step]:
    def build(task: Task) -> Step:
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        def lif() -> Any:
            return neuron.LIFNode(
                tau=1 / (1 - task.neuron.decay), decay_input=False,
                v_threshold=task.neuron.threshold, v_reset=None,
                surrogate_function=surrogate.Rect(alpha=1 / task.neuron.surrogate_width),
            )  # fmt: skip

        module = nn.Sequential(
            *_words(task, layer.Conv2d, layer.Linear, layer.AvgPool2d, layer.Flatten, lif)
        )
        functional.set_step_mode(module, "m" if many else "s")
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        frames = task.frames
        if frames.dim() == 4:
            frames = frames.expand(task.steps, *frames.shape)

        def rate() -> Tensor:
            functional.reset_net(module)
            if many:
                return module(frames).mean(0)
            return sum(module(frame) for frame in frames) / task.steps

        return Step(task, module.parameters(), rate)

    return build


def _snntorch(task: Task) -> Step:
    import snntorch
    from snntorch import utils

    def lif() -> Any:
        return snntorch.Leaky(
            beta=task.neuron.decay, threshold=task.neuron.threshold, init_hidden=True,
            spike_grad=lambda above: _Spike.apply(above, task.neuron.surrogate_width),
            reset_mechanism="subtract",
        )  # fmt: skip

    module = nn.Sequential(*_words(task, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.Flatten, lif))

    def rate() -> Tensor:
        utils.reset(module)
        return sum(module(task.frame(step)) for step in range(task.steps)) / task.steps

    return Step(task, module.parameters(), rate)


def _norse(task: Task) -> Step:
    import norse.torch
    from norse.torch.functional.lif_box import LIFBoxParameters

    leak = 1 - task.neuron.decay  # its input is multiplied with the same number
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1000 * leak), v_th=torch.tensor(task.neuron.threshold * leak),
        alpha=torch.tensor(100.0),
    )  # fmt: skip
    words = _words(
        task, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.Flatten,
        lambda: norse.torch.LIFBoxCell(p=parameters, dt=0.001),
    )  # fmt: skip
    module = norse.torch.SequentialState(*words)

    def rate() -> Tensor:
        state, total = None, 0.0
        for step in range(task.steps):
            spikes, state = module(task.frame(step), state)
            total = total + spikes
        return total / task.steps

    return Step(task, module.parameters(), rate)


CONTESTANTS: dict[str, Callable[[Task], Step]] = {
    "eager": _plain(),
    "eager, channels_last": _plain(channels_last=True),
    "eager, channels_last, bf16": _plain(channels_last=True, bf16=True),
    "eager, compiled": _plain(compiled=True),
    "spikingjelly": _spikingjelly(many=False),
    "spikingjelly, all steps at once": _spikingjelly(many=True),
    "spikingjelly, all steps, channels_last": _spikingjelly(many=True, channels_last=True),
    "snntorch": _snntorch,
    "norse": _norse,
    "ours stbp, autograd": _ours(["stbp"], "autograd"),
    "ours stbp, fused C++": _ours(["stbp"]),
    "ours stbp, fused C++, bf16": _ours(["stbp"], bf16=True),
    "ours mpsl, three convolutions": _ours(MECHANISMS, "autograd", apart=True),
    "ours mpsl, autograd": _ours(MECHANISMS, "autograd"),
    "ours mpsl, fused torch": _ours(MECHANISMS, "fused", kernels=TORCH),
    "ours mpsl, fused C++": _ours(MECHANISMS, "fused"),
    "ours mpsl, fused C++, bf16": _ours(MECHANISMS, "fused", bf16=True),
    "ours int8, autograd": _ours(MECHANISMS, "autograd", int8=True),
    "ours int8, fused C++": _ours(MECHANISMS, "fused", int8=True),
}
# Compiled before their first step, for minutes.
SLOW_TO_START = ["eager, compiled"]


def same_network(name: str) -> str:
    """Contestants with the same answer compute the same thing: their first spikes agree."""
    for ours_alone in ("mpsl", "int8"):
        if name.startswith(f"ours {ours_alone}"):
            return ours_alone
    return name if name in ("snntorch", "norse") else "stbp"
