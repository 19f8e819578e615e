"""Searches for the ties that make the reference give an output: spikes flipped, and run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Neuron, Node, Plan
from mpsl_runtime.run.reference import apply

__all__ = ["TIE_TOLERANCE", "Found", "Tie", "TieSearch", "chains_of", "tie_tolerance"]

TIE_TOLERANCE = 1e-5

# Spikes flipped in one run of the reference, runs that one search may take, and how many of them go
# side by side.
_MOST_FLIPPED = 8
_MOST_RUNS = 256
_BATCH = 8


class Tie(NamedTuple):
    """A neuron at a step, in the order of time and layers; U of it in the reference."""

    step: int
    layer: int
    neuron: int
    membrane: float


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        ties: which, flipped together, give the output; empty: the reference gives it as it is;
            None: none do.
        first: the first output that differs from the reference's.
    """

    ties: tuple[Tie, ...] | None
    first: Tie


@dataclass(frozen=True, eq=False)
class _Run:
    """The reference with some ties flipped.

    Attributes:
        flipped: which. output: bool [T, K]. membrane: U of the last layer, [T, K].
        near: every tie that it met itself.
    """

    flipped: tuple[Tie, ...]
    output: NDArray[np.bool_]
    membrane: NDArray[np.float32]
    near: list[Tie]


def tie_tolerance(neuron: Neuron) -> NDArray[np.float64]:
    """How near to its threshold each neuron of a population is a tie, [n]."""
    return TIE_TOLERANCE * np.maximum(1.0, neuron.threshold.reshape(-1).astype(np.float64))


def chains_of(plan: Plan) -> list[list[Node]]:
    """For each population the nodes between the one before it and itself.

    Raises:
        ModelError: a population that is none of mpsl.
    """
    if not plan.is_chain:
        raise ModelError("only layers one behind the other can be compared", where=plan.source)
    chains: list[list[Node]] = []
    nodes: list[Node] = []
    for node in plan.nodes:
        if not isinstance(node, Neuron):
            nodes.append(node)
            continue
        if not _is_ours(node):
            raise ModelError("only neurons of mpsl can be compared", where=node.name)
        chains.append(nodes)
        nodes = []
    return chains


def _is_ours(node: Neuron) -> bool:
    steps_otherwise = node.has_input_map or node.many or node.resets_late
    arrays = (node.synaptic_decay, node.drop, node.initial)
    return node.kind == "spiking" and not steps_otherwise and all(array is None for array in arrays)


class TieSearch:
    """The search, for one network.

    Args:
        plan: spiking populations only.
    """

    def __init__(self, plan: Plan) -> None:
        self._neurons = plan.spiking
        self._chains = chains_of(plan)

    def find(self, frames: NDArray[np.float32], output: NDArray[np.bool_]) -> Found:
        """Few ties that give an output; those are tried first whose output is right for longest.

        Args:
            frames: [T, C, H, W]. output: [T, K].
        """
        first: Tie | None = None
        # (−step up to which its parent is right, number of ties, order of arrival, ties)
        waiting: list[tuple[int, int, int, tuple[Tie, ...]]] = [(0, 0, 0, ())]
        runs, order = 0, 1
        while waiting and runs < _MOST_RUNS:
            batch = [heappop(waiting)[-1] for _ in range(min(_BATCH, len(waiting)))]
            for run in self._run(frames, batch):
                runs += 1
                apart = np.argwhere(run.output != output)
                step, neuron = (int(i) for i in apart[0]) if len(apart) else (0, 0)
                if first is None:
                    membrane = float(run.membrane[step, neuron])
                    first = Tie(step, len(self._neurons) - 1, neuron, membrane)
                if not len(apart):
                    return Found(run.flipped, first)
                if len(run.flipped) == _MOST_FLIPPED:
                    continue
                # A cause comes no later than what it causes, and after those flipped before it.
                after = run.flipped[-1][:3] if run.flipped else (-1, -1, -1)
                for tie in run.near:
                    if tie.step <= step and tie[:3] > after:
                        ties = (*run.flipped, tie)
                        heappush(waiting, (-step, len(ties), order, ties))
                        order += 1
        if first is None:
            raise ValueError("a sample without a step")
        return Found(None, first)

    def _run(
        self, frames: NDArray[np.float32], hypotheses: Sequence[tuple[Tie, ...]]
    ) -> list[_Run]:
        """The reference, once for each set of ties, side by side."""
        count, near = len(hypotheses), [list[Tie]() for _ in hypotheses]
        forced = {
            (tie.step, tie.layer, number, tie.neuron)
            for number, ties in enumerate(hypotheses)
            for tie in ties
        }
        states = [np.zeros((count, n.threshold.size), np.float32) for n in self._neurons]
        outputs, membranes = [], []
        for step, frame in enumerate(frames):
            x = np.repeat(frame[None], count, axis=0)
            for index, neuron in enumerate(self._neurons):
                for node in self._chains[index]:
                    x = apply(node, x)
                decay, threshold, low = (
                    v.reshape(-1) for v in (neuron.decay, neuron.threshold, neuron.reset_value)
                )
                membrane = decay * states[index] + x.reshape(count, -1)
                fired = membrane >= threshold
                for b, i in np.argwhere(np.abs(membrane - threshold) <= tie_tolerance(neuron)):
                    tie = Tie(step, index, int(i), float(membrane[b, i]))
                    near[int(b)].append(tie)
                for at, layer, b, i in forced:
                    if (at, layer) == (step, index):
                        fired[b, i] ^= True
                after = membrane - threshold if neuron.reset == "subtract" else low
                states[index] = np.where(fired, after, membrane)
                x = fired.astype(np.float32).reshape(count, *neuron.output_shape)
            outputs.append(fired)
            membranes.append(membrane)
        spikes, U = np.stack(outputs, axis=1), np.stack(membranes, axis=1)
        return [_Run(*each) for each in zip(hypotheses, spikes, U, near, strict=True)]
