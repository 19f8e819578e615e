"""What every scale that is tried does to its layer, measured in one pass of the float network.

The error of a weight is a weight: what it adds to the current flows, beside the float signals,
through pools and sums to the next population. There a shadow of that population sees the float
current and that error, keeps its own state, and its spikes are compared with the real ones. So each
scale is judged with its layer's input in the float network: with int8 layers before it all scales
look alike, since their errors outweigh the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.int8.quantize import Stage, integers
from mpsl_runtime.model.plan import Convolution, Delay, Dense, Neuron, Node, Plan
from mpsl_runtime.model.scale import Scale
from mpsl_runtime.run.neuron_step import NeuronState, fire
from mpsl_runtime.run.reference import Reference, apply

__all__ = ["Trial", "try_scales"]

Array = NDArray[np.float32]
_Key = tuple[int, int]  # a stage, and one of its scales

# Numbers that the shadows of one batch may keep.
_MOST_VALUES = 1 << 25


@dataclass
class Trial:
    """One scale of one stage.

    Attributes:
        scale: the scale. clipped: part of the weights that it clips.
        differing, outputs: outputs of the populations behind it that differ, of how many.
        current: sum of the squares of the current's error, over `currents` of them.
        potential: the same of U, over `potentials`, where a population does not fire or its U are
            the scores.
        power: sum of the squares of the current itself.
    """

    scale: Scale
    clipped: float
    differing: int = 0
    outputs: int = 0
    current: float = 0.0
    power: float = 0.0
    currents: int = 0
    potential: float = 0.0
    potentials: int = 0


def try_scales(
    plan: Plan, stages: Sequence[Stage], scales: Sequence[Sequence[Scale]], frames: Array
) -> list[list[Trial]]:
    """The trials of each stage, in the order of its scales.

    Args:
        plan: in float32. scales: for each stage. frames: float32 [T, B, *input_shape].
    """
    running = _Trials(plan, stages, scales)
    count = frames.shape[1]
    size = max(1, min(count, _MOST_VALUES // max(1, running.values)))
    for start in range(0, count, size):
        running.take(frames[:, start : start + size])
    return running.trials


class _Trials(Reference):
    """The float network, with the errors of every scale beside its signals."""

    def __init__(
        self, plan: Plan, stages: Sequence[Stage], scales: Sequence[Sequence[Scale]]
    ) -> None:
        super().__init__(plan)
        self._index = {node.name: index for index, node in enumerate(plan.nodes)}
        self._errors: dict[int, list[tuple[_Key, Node]]] = {}
        self._read = {stage.index for stage in stages if stage.is_score}
        self.trials: list[list[Trial]] = []
        for number, (stage, given) in enumerate(zip(stages, scales, strict=True)):
            parts = [_error(stage, scale) for scale in given]
            self.trials.append([Trial(s, c) for s, (_, c) in zip(given, parts, strict=True)])
            self._errors[stage.index] = [((number, i), node) for i, (node, _) in enumerate(parts)]
        self._bare = {
            node.name: replace(node, bias=np.zeros_like(node.bias))
            for node in plan.nodes
            if isinstance(node, Convolution | Dense)
        }
        self._flowing: dict[int, Mapping[_Key, Array]] = {}
        self._shadows: dict[tuple[str, _Key], NeuronState] = {}
        self._at_rest: dict[str, NeuronState] = {}

    @property
    def values(self) -> int:
        """Numbers that one sample's shadows keep, and errors that flow at once, at most."""
        sizes = [
            math.prod(node.output_shape) for node in self.plan.nodes if isinstance(node, Neuron)
        ]
        return 4 * max(map(len, self.trials), default=0) * sum(sizes)

    def take(self, frames: Array) -> None:
        """Runs some samples, [T, B, *input_shape], from rest."""
        self._shadows = {}
        self.reset(batch=frames.shape[1])
        self._at_rest = {
            name: NeuronState(state.V, state.U, state.J) for name, state in self._states.items()
        }
        for frame in frames:
            self._flowing = {}
            self._step(np.ascontiguousarray(frame, np.float32))

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        index = self._index[node.name]
        flowing = self._incoming(index, x.shape)
        y, behind = super()._apply(node, x, activity)
        if isinstance(node, Neuron):
            for key, error in flowing.items():
                self._compare(node, key, x + error, y)
        elif isinstance(node, Convolution | Dense):
            passed = {key: apply(self._bare[node.name], error) for key, error in flowing.items()}
            for key, error_node in self._errors[index]:
                passed[key] = self._own(key, apply(error_node, x), y)
            self._flowing[index] = passed
        elif not isinstance(node, Delay):  # behind one the current's error alone is known
            self._flowing[index] = {key: apply(node, error) for key, error in flowing.items()}
        return y, behind

    def _incoming(self, index: int, shape: tuple[int, ...]) -> dict[_Key, Array]:
        """The errors of all sources of a node, added up."""
        found: dict[_Key, Array] = {}
        for i, delayed in self.plan.wiring[index]:
            if delayed:
                continue
            for key, error in self._flowing.get(i, {}).items():
                part = error.reshape(shape)
                found[key] = found[key] + part if key in found else part
        return found

    def _own(self, key: _Key, error: Array, current: Array) -> Array:
        trial = self.trials[key[0]][key[1]]
        trial.current += _squares(error)
        trial.power += _squares(current)
        trial.currents += error.size
        return error

    def _compare(self, node: Neuron, key: _Key, current: Array, output: Array) -> None:
        rest = self._at_rest[node.name]
        if (node.name, key) not in self._shadows:
            self._shadows[node.name, key] = NeuronState(rest.V, rest.U, rest.J)
        shadow = self._shadows[node.name, key]
        got = fire(node, shadow, current)
        trial, real = self.trials[key[0]][key[1]], self._states[node.name]
        if node.kind != "integrating":
            trial.differing += int((got != output).sum())
            trial.outputs += got.size
        if node.kind == "integrating" or node is self.plan.output_neuron:
            trial.potential += _squares(shadow.U - real.U)
            trial.potentials += got.size


def _error(stage: Stage, scale: Scale) -> tuple[Node, float]:
    """The stage's weights with what `scale` makes of them taken off, in trained units; and the part
    that it clips."""
    weight, bias, clipped = integers(stage, scale)
    node = stage.weighted
    parts: dict[str, Any] = {
        "weight": (weight * scale.step - node.weight).astype(np.float32),
        "bias": (bias * scale.step - node.bias).astype(np.float32),
    }
    return replace(node, **parts), clipped


def _squares(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())
