"""A copy of a model whose every layer fires with a chosen density.

The weights stay, thresholds and biases are set anew, on the model's own grid where it has one. Such
a copy classifies nothing, but costs what a model of that density costs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.bench.inputs import BenchInput
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.grid import is_int8, layer_grids
from mpsl_runtime.model.plan import Convolution, Delay, Dense, Neuron, Node, Plan
from mpsl_runtime.run.reference import Reference, apply

__all__ = ["force_density"]

Array = NDArray[np.float32]

# The last layer has few neurons; with fewer spikes than this, equal outputs would prove nothing.
_LEAST_OUTPUT_DENSITY = 0.25
# What a loop brings back depends on what is set here: so often everything is set again.
_PASSES = 8


def force_density(plan: Plan, given: BenchInput, density: float) -> Plan:
    """A copy in which `density` of each layer's neurons fire in a step, on average over `given`.

    Each layer gets one threshold, about twice the spread of its current, and one bias. The last
    layer fires with a quarter of its neurons if `density` is less. In a loop the density is met
    about, since what is set changes what comes back.

    Raises:
        UsageError: a density that cannot be, an output that is no spikes, or neurons that see no
            weights of their own.
        ModelError: the copy of an int8 model is no longer provably exact.
    """
    if not 0 < density < 1:
        raise UsageError("density cannot be forced", got=density, expected="between 0 and 1")
    if plan.output_neuron is None:
        raise UsageError(
            "density cannot be forced",
            got="an output that is no spikes",
            expected="neurons before the output",
            where=plan.source,
        )
    setting = _Setting(plan, given, density)
    loops = any(i >= index for index, row in enumerate(plan.wiring) for i, _ in row)
    for _ in range(_PASSES if loops else 1):
        setting.walk()
    source = f"{plan.source} at density {density:g}"
    forced = replace(plan, nodes=tuple(setting.nodes), source=source)
    if is_int8(forced):
        layer_grids(forced)
    return forced


class _Setting:
    """Goes through a plan, sets each population, and keeps what every node gives.

    Attributes:
        nodes: the plan's, as they are set so far.
    """

    def __init__(self, plan: Plan, given: BenchInput, density: float) -> None:
        self.nodes: list[Node] = list(plan.nodes)
        self._plan, self._density = plan, density
        # Of each node and sample [T, *shape].
        self._signals: dict[int, list[Array]] = {-1: list(given.samples)}

    def walk(self) -> None:
        """Once through all nodes, in order."""
        for index, node in enumerate(self._plan.nodes):
            seen = self._seen(index)
            if isinstance(node, Neuron):
                self._signals[index] = self._set(index, node, seen)
            elif isinstance(node, Delay):
                self._signals[index] = [_delayed(node, x) for x in seen]
            else:
                self._signals[index] = [apply(self.nodes[index], x) for x in seen]

    def _seen(self, index: int) -> list[Array]:
        """The sums of a node's sources; 0 of what is not known yet."""
        shape, sums = self._plan.nodes[index].input_shape, []
        for number, sample in enumerate(self._signals[-1]):
            total = np.zeros((len(sample), *shape), np.float32)
            for i, is_late in self._plan.wiring[index]:
                if i in self._signals:
                    values = self._signals[i][number].reshape(total.shape)
                    total = total + (_later(values) if is_late else values)
            sums.append(total)
        return sums

    def _set(self, index: int, node: Neuron, currents: list[Array]) -> list[Array]:
        """Threshold and bias of a population; its spikes."""
        if node.kind == "integrating":
            return [_spikes(node, current) for current in currents]
        own = self._own_weights(index)
        weighted = self.nodes[own]
        if not isinstance(weighted, Convolution | Dense):
            raise TypeError(f"{type(weighted).__name__} has no weights")
        is_last = node is self._plan.output_neuron
        wanted = max(self._density, _LEAST_OUTPUT_DENSITY) if is_last else self._density
        # What its own bias has added up to now is taken off: it is set from 0.
        bare = [current - _column(weighted) for current in currents]
        self.nodes[own], self.nodes[index], spikes = _calibrate(weighted, node, bare, wanted)
        return spikes

    def _own_weights(self, index: int) -> int:
        """The weights before a population that nobody else sees."""
        for i, is_late in self._plan.wiring[index]:
            heads = [row for row in self._plan.wiring if any(source == i for source, _ in row)]
            is_weighted = i >= 0 and isinstance(self._plan.nodes[i], Convolution | Dense)
            if is_weighted and not is_late and len(heads) == 1:
                return i
        node = self._plan.nodes[index]
        before = [self._plan.nodes[i] for i, _ in self._plan.wiring[index] if i >= 0]
        raise UsageError(
            "density cannot be forced",
            got=f"neurons behind {', '.join(type(n).__name__ for n in before) or 'the input'}",
            expected="neurons behind weights that they alone see",
            where=f"node {node.name!r} of {self._plan.source}",
        )


def _later(values: Array) -> Array:
    """A step later; 0 in the first."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


def _delayed(node: Delay, values: Array) -> Array:
    """[T, *shape], each element by its own number of steps."""
    at = np.arange(len(values)).reshape(-1, *[1] * node.steps.ndim) - node.steps
    taken = np.take_along_axis(values, np.maximum(at, 0), axis=0)
    return np.where(at >= 0, taken, np.float32(0))


def _calibrate(
    weighted: Convolution | Dense, neuron: Neuron, currents: list[Array], density: float
) -> tuple[Convolution | Dense, Neuron, list[Array]]:
    """Threshold and bias with which `density` of the neurons fire, and their spikes."""
    spread = max(float(np.std(current)) for current in currents)
    quantum = _quantum(weighted, spread)
    if neuron.synaptic_decay is None and not neuron.has_input_map:
        level = max(1, round(2 * spread / quantum)) * quantum
        neuron = neuron.with_threshold(level)
    largest = max(float(np.abs(current).max()) for current in currents)
    reach = largest + 2 * float(neuron.threshold.max())
    low, high = -math.ceil(reach / quantum), math.ceil(reach / quantum)  # in quanta
    while high - low > 1:
        middle = (low + high) // 2
        fired = [_spikes(neuron, current + np.float32(middle * quantum)) for current in currents]
        if np.mean([(spikes > 0).mean() for spikes in fired]) > density:
            high = middle
        else:
            low = middle
    bias = np.float32(low * quantum)
    spikes = [_spikes(neuron, current + bias) for current in currents]
    return replace(weighted, bias=np.full_like(weighted.bias, bias)), neuron, spikes


def _quantum(weighted: Convolution | Dense, spread: float) -> float:
    """Threshold and bias are multiples of this power of two: the layer's grid, or fine enough."""
    if weighted.weight_grid is not None:
        return math.ldexp(1.0, weighted.weight_grid)
    return math.ldexp(1.0, math.frexp(spread or 1.0)[1] - 9)


def _spikes(neuron: Neuron, current: Array) -> Array:
    """A population alone: currents [T, *shape] -> its output [T, *shape]."""
    alone = replace(neuron, sources=())
    plan = Plan((alone,), neuron.input_shape, neuron.output_shape, None, neuron.name)
    return Reference(plan).run(current).reshape(len(current), *neuron.output_shape)


def _column(weighted: Convolution | Dense) -> Array:
    """The bias, so that it can be taken from a current."""
    return weighted.bias[:, None, None] if isinstance(weighted, Convolution) else weighted.bias
