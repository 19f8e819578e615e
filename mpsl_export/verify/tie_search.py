"""Searches for the ties that make the reference give an output: spikes flipped, and run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.forced import Forced
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Neuron, Plan

__all__ = ["TIE_TOLERANCE", "Found", "Tie", "TieSearch", "score_tolerance", "tie_tolerance"]

TIE_TOLERANCE = 1e-5
# Two membrane potentials as scores may come as near as this and still be a tie.
_SCORE_TOLERANCE = 2e-5

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


def _apart(
    run: _Run, output: NDArray[np.bool_], potentials: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    """Where a run is not what is looked for, (step, neuron) in order."""
    apart = np.argwhere(run.output != output)
    if len(apart) or potentials is None:
        return apart
    far = np.abs(run.membrane[-1] - potentials) > score_tolerance(potentials)
    neurons = np.flatnonzero(far)
    return np.stack([np.full_like(neurons, len(output) - 1), neurons], axis=1)


def score_tolerance(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far potentials as scores may be from others by rounding alone, in the shape of them."""
    return np.float32(_SCORE_TOLERANCE) * np.maximum(np.float32(1), np.abs(scores))


class TieSearch:
    """The search, for one network.

    Args:
        plan: spiking populations only.
    """

    def __init__(self, plan: Plan) -> None:
        self._neurons = plan.spiking
        self._forced = Forced(plan)
        last = plan.output_neuron
        self._last = next((i for i, neuron in enumerate(self._neurons) if neuron is last), None)

    def find(
        self,
        frames: NDArray[np.float32],
        output: NDArray[np.bool_],
        potentials: NDArray[np.float32] | None = None,
    ) -> Found:
        """Few ties that give an output; those are tried first whose output is right for longest.

        Args:
            frames: [T, C, H, W]. output: [T, K].
            potentials: also to be given, U of the last layer at the last step, [K].

        Raises:
            ModelError: the output of the network is no spikes.
        """
        if self._last is None:
            raise ModelError(
                "ties are searched for in output spikes", where=self._forced.plan.source
            )
        first: Tie | None = None
        # (−step up to which its parent is right, number of ties, order of arrival, ties)
        waiting: list[tuple[int, int, int, tuple[Tie, ...]]] = [(0, 0, 0, ())]
        runs, order = 0, 1
        while waiting and runs < _MOST_RUNS:
            batch = [heappop(waiting)[-1] for _ in range(min(_BATCH, len(waiting)))]
            for run in self._run(frames, batch):
                runs += 1
                apart = _apart(run, output, potentials)
                step, neuron = (int(i) for i in apart[0]) if len(apart) else (0, 0)
                if first is None:
                    membrane = float(run.membrane[step, neuron])
                    first = Tie(step, self._last, neuron, membrane)
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
        forced: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for number, ties in enumerate(hypotheses):
            for tie in ties:
                forced.setdefault((tie.step, tie.layer), []).append((number, tie.neuron))
        tolerances = [tie_tolerance(neuron) for neuron in self._neurons]
        thresholds = [neuron.threshold.reshape(-1) for neuron in self._neurons]
        membranes: list[NDArray[np.float32]] = []

        def decide(
            step: int, index: int, U: NDArray[np.float32], fired: NDArray[np.bool_]
        ) -> NDArray[np.bool_]:
            for b, i in np.argwhere(np.abs(U - thresholds[index]) <= tolerances[index]):
                near[int(b)].append(Tie(step, index, int(i), float(U[b, i])))
            if index == self._last:
                membranes.append(U.copy())
            decided = fired.copy()
            for b, i in forced.get((step, index), ()):
                decided[b, i] ^= True
            return decided

        frames = np.repeat(frames[:, None], count, axis=1)
        spikes = self._forced.run_decided(frames, decide).swapaxes(0, 1) > 0
        U = np.stack(membranes, axis=1)
        return [_Run(*each) for each in zip(hypotheses, spikes, U, near, strict=True)]
