"""Windows of a trained network that show more, or do more, than evaluation.

`potentials`: what the penultimate layer's membranes do (Fig. 5). `aligned`: the control of every
claim about adaptation, currents shifted back to their training means. `adaptive`: the local rules
go on at test time. None needs a label. Networks are in evaluation: no dropout, running statistics
of batch normalisation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from mpsl_train.network.finite import NonFiniteError
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network, Output
from mpsl_train.network.plasticity import Post, Pre

__all__ = [
    "adaptive",
    "aligned",
    "currents_of",
    "mean_currents",
    "potentials",
    "preserved",
    "unfolded",
]


def currents_of(layer: SpikingLayer, x: Tensor) -> Tensor:
    """Currents of all steps, [T or 1, B, …], from inputs [T or 1, B, …]."""
    state = layer.begin()
    current = layer.multiply(layer.prepare(x.flatten(0, 1), state), *layer.synapses(state))
    return layer.normalise(current).view(*x.shape[:2], *current.shape[1:])


def _fire(layer: SpikingLayer, currents: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Spikes and membrane potentials U of all steps, both [T, B, …]."""
    state = layer.begin()
    spikes, membranes = [], []
    for step in range(steps):
        spikes.append(layer.fire(currents[0 if len(currents) == 1 else step], state))
        membranes.append(_membrane(state.membrane))
    return torch.stack(spikes), torch.stack(membranes)


def _membrane(membrane: Tensor | None) -> Tensor:
    if membrane is None:
        raise RuntimeError("no step has run")
    return membrane


def unfolded(frames: Tensor, steps: int) -> tuple[Tensor, int]:
    """Frames with an axis of time, [T or 1, B, …], and T."""
    constant = frames.dim() == 4
    return (frames.unsqueeze(0), steps) if constant else (frames, len(frames))


@torch.no_grad()
def potentials(network: Network, frames: Tensor, steps: int = 0) -> Tensor:
    """U of the penultimate layer, the mean over the T steps, [B, neurons].

    The mean, because events of a recording may end before its last step.

    Args:
        frames: [T, B, C, H, W], or a constant current [B, C, H, W] shown for `steps` steps.
    """
    x, steps = unfolded(frames, steps)
    membranes = x
    for layer in network.layer_list[:-1]:
        x, membranes = _fire(layer, currents_of(layer, x), steps)
    return membranes.mean(0).flatten(1)


def _channel_mean(currents: Tensor) -> Tensor:
    """[T, B, Co, …] -> [Co]"""
    return currents.transpose(0, 2).flatten(1).mean(1)


@torch.no_grad()
def mean_currents(network: Network, windows: Sequence[Tensor], steps: int = 0) -> list[Tensor]:
    """The mean current of each channel, over samples, steps and positions; [Co] for each layer.

    Args:
        windows: of training samples, as `potentials` takes them, of one size.
    """
    sums = [torch.zeros(layer.spec.weight_shape[0]) for layer in network.layer_list]
    for frames in windows:
        x, count = unfolded(frames, steps)
        for index, layer in enumerate(network.layer_list):
            currents = currents_of(layer, x)
            sums[index] += _channel_mean(currents) / len(windows)
            x, _ = _fire(layer, currents, count)
    return sums


@torch.no_grad()
def aligned(network: Network, frames: Tensor, means: Sequence[Tensor], steps: int = 0) -> Output:
    """A window whose channels have the mean currents of training: in each layer, in order,

        I ← I − mean over this batch + mean in training

    so that the prediction depends on the other samples of the batch.

    Args:
        frames: as `potentials` takes them. means: of `mean_currents`.
    """
    x, steps = unfolded(frames, steps)
    membranes = x
    for layer, mean in zip(network.layer_list, means, strict=True):
        currents = currents_of(layer, x)
        shift = mean - _channel_mean(currents)
        currents = currents + shift.view(-1, *([1] * (currents.dim() - 3)))
        x, membranes = _fire(layer, currents, steps)
    return Output(x, membranes[-1])


@torch.no_grad()
def adaptive(
    network: Network, frames: Tensor, steps: int = 0, *, learning: Collection[str] | None = None
) -> Output:
    """A window in which the local rules go on: Eq. 8–11 at every step, committed at its end.

    Not Eq. 12: the prediction depends on what came before and on the rest of the batch.
    `mpsl_runtime.run.plastic_runner` is the same for a batch of one.

    Args:
        frames: as `potentials` takes them.
        learning: names of the layers whose rules go on; the others are frozen. None: all.

    Raises:
        NonFiniteError: a bank or a membrane is NaN or infinite; nothing was committed.
    """
    x0, steps = unfolded(frames, steps)
    layers = network.layer_list
    states = [layer.begin() for layer in layers]
    outputs = []
    for step in range(steps):
        x = x0[0 if len(x0) == 1 else step]
        seen: list[tuple[Pre, Post]] = []
        for layer, state in zip(layers, states, strict=True):
            x = layer.prepare(x, state)
            current = layer.multiply(x, *layer.synapses(state))
            spikes = layer.fire(layer.normalise(current), state)
            seen.append(layer.observe(x, spikes, state))
            x = spikes
        outputs.append(x)
        for (_, post), (_, above) in pairwise(seen):
            post.above = above
        for name in network.mechanisms:
            for layer, state, (pre, post) in zip(layers, states, seen, strict=True):
                if name in layer.rules and (learning is None or layer.spec.name in learning):
                    layer.adapt(name, pre, post, state)
    for layer, state in zip(layers, states, strict=True):
        values = [_membrane(state.membrane), *state.banks]
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise NonFiniteError(
                "a bank that stays plastic is not finite", where=f"layer {layer.spec.name}"
            )
    for layer, state in zip(layers, states, strict=True):
        if learning is None or layer.spec.name in learning:
            layer.commit(state)
    return Output(torch.stack(outputs), _membrane(states[-1].membrane))


@contextmanager
def preserved(network: Network) -> Iterator[None]:
    """The banks after the block are those before it."""
    before = [list(layer.banks) for layer in network.layer_list]
    try:
        yield
    finally:
        for layer, banks in zip(network.layer_list, before, strict=True):
            for index, (rule, bank) in enumerate(zip(layer.rule_list, banks, strict=True), start=1):
                if not rule.learned:
                    setattr(layer, f"W{index}", bank)
