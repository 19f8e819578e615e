"""int8 models: why they give the same spikes in every program, and the proof for one model.

A layer of an int8 model lies on a grid: its weights and biases are whole multiples of a quantum 2^e
(its `weight_grid`), with weights of at most 127 quanta. Its inputs are whole multiples of a quantum
too: of 1 for spikes, pooled spikes and event counts, of `input_grid` for images. So the current of
a neuron is a whole number of (weight quantum · input quantum), and so is every part of that sum.
float32 holds whole numbers up to 2^24 exactly. Hence, as long as

    Σ |weight| · largest |input| + |bias|  <  2^24 quanta

no addition ever rounds: any order of summation, any blocking, fused multiply-add and integer
arithmetic all give the same float32. Where several nodes meet in a sum, it counts in the finest of
their quanta, and the same must hold. What follows the sum, U = ρ·V + I, S = [U ≥ V_th] and
V = U − S·V_th, or another neuron's step, may round, but is the same few IEEE operations on the same
numbers for each neuron by itself (no fused multiply-add there). So spikes and membrane potentials
are bit-identical in every program, although U is no integer.

Not covered: a convolution by Winograd's or a Fourier transform, which computes other products. And
adding the bias to the stored state instead of the current rounds differently, on a grid as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Sum,
)
from mpsl_runtime.model.quanta import EXACT_LIMIT, integer_bias, integer_weights, worst_sum
from mpsl_runtime.model.spike_bound import most_spikes

__all__ = [
    "GridSignal",
    "GridWalk",
    "LayerGrid",
    "is_int8",
    "layer_grids",
]

_FINEST_INPUT = 2.0**-24
# So that no product of a current is a subnormal number, which a program may take for 0.
_FINEST_CURRENT = 2.0**-100


@dataclass(frozen=True, eq=False)
class LayerGrid:
    """One weighted layer in whole numbers.

    Attributes:
        name: of the Convolution or Dense node.
        weight: int8, in weight quanta; the shape of the node's weight.
        bias: int32 [Co], in current quanta, so that I = (Σ weight·input + bias) · current_quantum.
        weight_quantum: 2^e. input_quantum: of the layer's input.
        input_max: largest |input| of the layer, in input quanta.
        threshold: of the neurons behind it, in weight quanta; None where that is not one whole
            number, where they do not fire or scale their input, or do not see this layer alone.
        worst_sum: no partial sum of a current is larger, in current quanta; below 2^24.
    """

    name: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    weight_quantum: float
    input_quantum: float
    input_max: int
    threshold: int | None
    worst_sum: int

    @property
    def current_quantum(self) -> float:
        """The current is a whole multiple of this."""
        return self.weight_quantum * self.input_quantum


def is_int8(plan: Plan) -> bool:
    """Whether a model says that it lies on a grid; `layer_grids` tells whether it does."""
    return plan.metadata is not None and plan.metadata.weights == "int8"


def layer_grids(plan: Plan) -> tuple[LayerGrid, ...]:
    """The weighted layers of an int8 model in whole numbers, in order; its proof of exactness.

    Raises:
        ModelError: the model does not say that it is int8, a value is off its grid, or a sum may
            reach 2^24 quanta; the node is named. Such a model still runs as a float32 model does.
    """
    if not is_int8(plan):
        raise ModelError("model is not an int8 model", where=plan.source)
    walk = GridWalk(plan)
    found = (walk.passed(index, node) for index, node in enumerate(plan.nodes))
    return tuple(grid for grid in found if grid is not None)


@dataclass(frozen=True)
class GridSignal:
    """Values that are whole multiples of `quantum`, a power of two ≤ 1, of which |value| is never
    more than `largest`."""

    quantum: float
    largest: int


class GridWalk:
    """Goes through the nodes of a plan in order, and knows on which grid their values lie.

    Args:
        plan: with metadata that says the grid of the input and its bound.

    Raises:
        ModelError: it does not.
    """

    def __init__(self, plan: Plan) -> None:
        metadata = plan.metadata
        quantum = 0.0 if metadata is None else metadata.input_grid
        largest = 0 if metadata is None else metadata.input_max
        if not (
            _is_power_of_two(quantum)
            and _FINEST_INPUT <= quantum <= 1
            and 1 <= largest < EXACT_LIMIT
        ):
            raise ModelError(
                "input of an int8 model is not on a grid",
                got=f"input_grid {quantum}, input_max {largest}",
                expected=f"a power of two, 2^-24 … 1, and a bound, 1 … {EXACT_LIMIT - 1:,}",
                where=plan.source,
            )
        self._plan = plan
        # Of each node's output; None: what may be read, not summed, see `_fired`.
        self._signals: dict[int, GridSignal | None] = {-1: GridSignal(quantum, largest)}

    def seen(self, index: int) -> GridSignal | None:
        """What node `index` sees, when all before it have been passed; None: values on no grid.

        Raises:
            ModelError: a sum that may round, or a loop without neurons, whose values have no bound.
        """
        where = self._where(index)
        parts = [self._source(i, delayed, where) for i, delayed in self._plan.wiring[index]]
        signals = [part for part in parts if part is not None]
        if len(parts) == 1 or not signals:
            return parts[0]
        if len(signals) < len(parts):
            raise ModelError(
                "sum of an int8 model has a part that is on no grid or has no bound", where=where
            )
        quantum = min(signal.quantum for signal in signals)
        return _within(
            GridSignal(quantum, sum(s.largest * round(s.quantum / quantum) for s in signals)),
            "sum of an int8 model may not be exact",
            where,
        )

    def passed(self, index: int, node: Node) -> LayerGrid | None:
        """Takes `node` for node `index`, behind those that have been passed; of weights the layer
        in whole numbers.

        Raises:
            ModelError: see `layer_grids`.
        """
        where, seen = self._where(index), self.seen(index)
        if isinstance(node, Neuron):
            self._signals[index] = _fired(node, seen)
            return None
        if seen is None:
            if not isinstance(node, Flatten | Sum):
                raise ModelError(
                    "node of an int8 model sees values that are on no grid or have no bound",
                    got="U of neurons that do not fire, or any number of spikes in a step",
                    expected="spikes, sums of them, or input",
                    where=where,
                )
            self._signals[index] = None
            return None
        if isinstance(node, Convolution | Dense):
            grid = _layer(node, self._neuron_behind(index), seen, where)
            self._signals[index] = GridSignal(grid.current_quantum, grid.worst_sum)
            return grid
        self._signals[index] = _moved(node, seen, where)
        return None

    def _source(self, index: int, delayed: bool, where: str) -> GridSignal | None:
        node = self._plan.nodes[index] if index >= 0 else None
        if delayed and index not in self._signals:
            if not isinstance(node, Neuron):
                raise ModelError("loop of an int8 model passes no neurons", where=where)
            return _fired(node, None)
        return self._signals[index]

    def _neuron_behind(self, index: int) -> Neuron | None:
        """The population that sees this node and nothing else, if that is all who see it."""
        heads = [
            (self._plan.nodes[head], row)
            for head, row in enumerate(self._plan.wiring)
            if any(i == index for i, _ in row)
        ]
        node, row = heads[0] if len(heads) == 1 else (None, ())
        return node if isinstance(node, Neuron) and row == ((index, False),) else None

    def _where(self, index: int) -> str:
        return f"node {self._plan.nodes[index].name!r} of {self._plan.source}"


def _layer(
    node: Convolution | Dense, neuron: Neuron | None, seen: GridSignal, where: str
) -> LayerGrid:
    """Args: neuron: the population behind it, where nothing else is between."""
    weight, quantum = integer_weights(node)
    bias = integer_bias(node).astype(np.int64)
    worst = worst_sum(weight, bias, seen.quantum, seen.largest)
    if worst >= EXACT_LIMIT:
        raise ModelError(
            "sums of an int8 layer may not be exact",
            got=f"up to {worst:,} quanta",
            expected=f"< 2^24 = {EXACT_LIMIT:,}",
            where=where,
        )
    if quantum * seen.quantum < _FINEST_CURRENT:
        raise ModelError(
            "currents of an int8 layer are too fine for float32",
            got=f"multiples of {quantum * seen.quantum:g}",
            expected=f"≥ {_FINEST_CURRENT:g}",
            where=where,
        )
    return LayerGrid(
        name=node.name,
        weight=weight,
        # Where there is a bias at all, the factor is below the limit, as the worst sum is.
        bias=(bias * min(round(1 / seen.quantum), EXACT_LIMIT)).astype(np.int32),
        weight_quantum=quantum,
        input_quantum=seen.quantum,
        input_max=seen.largest,
        threshold=None if neuron is None else _threshold(neuron, quantum),
        worst_sum=worst,
    )


def _fired(neuron: Neuron, seen: GridSignal | None) -> GridSignal | None:
    """The output of a population that sees `seen`; None: U, which is on no grid, or spikes without
    a bound."""
    current = math.inf if seen is None else seen.largest * seen.quantum
    most = most_spikes(neuron, current)
    return None if most is None or most >= EXACT_LIMIT else GridSignal(1.0, most)


def _threshold(neuron: Neuron, quantum: float) -> int | None:
    """In quanta, of a population whose U counts in those of its current."""
    if neuron.kind == "integrating" or neuron.has_input_map or neuron.synaptic_decay is not None:
        return None
    level = float(neuron.threshold.flat[0]) / quantum
    is_one = 1 <= level < EXACT_LIMIT and level == int(level)
    return int(level) if is_one and (neuron.threshold == neuron.threshold.flat[0]).all() else None


def _moved(node: Node, seen: GridSignal, where: str) -> GridSignal:
    """What a node without weights and neurons makes of values on a grid."""
    if isinstance(node, Flatten | Sum | Delay):
        return seen
    if isinstance(node, Pooling):
        many = GridSignal(seen.quantum, seen.largest * math.prod(node.kernel))
        _within(many, "sum over a window may not be exact", where)
        if _is_power_of_two(node.scale) and node.scale <= 1:
            return GridSignal(seen.quantum * node.scale, many.largest)
        got = f"{type(node).__name__} times {node.scale:g}"
    elif isinstance(node, Scaling):
        return _scaled(node, seen, where)
    else:
        got = type(node).__name__
    raise ModelError(
        "node of an int8 model leaves the grid",
        got=got,
        expected="windows of 2^k values",
        where=where,
    )


def _scaled(node: Scaling, seen: GridSignal, where: str) -> GridSignal:
    """Each factor is a whole number times a power of two; the largest of these that fits all."""
    factors = np.unique(np.abs(node.scale)).astype(np.float64)
    factors = factors[factors > 0]
    # A float32 is a whole number below 2^24 times 2^(its exponent − 24).
    fine = math.ldexp(1.0, int(np.frexp(factors)[1].min(initial=0)) - 24)
    whole = [int(factor / fine) for factor in factors]
    spare = min(((w & -w).bit_length() - 1 for w in whole), default=0)
    unit = math.ldexp(fine, spare) if whole else 1.0
    found = GridSignal(seen.quantum * unit, seen.largest * (max(whole, default=0) >> spare))
    if found.quantum > 1:
        found = GridSignal(1.0, found.largest * int(found.quantum))
    return _within(found, "scaled values of an int8 model may not be exact", where)


def _within(signal: GridSignal, what: str, where: str) -> GridSignal:
    if signal.largest >= EXACT_LIMIT:
        raise ModelError(
            what,
            got=f"up to {signal.largest:,} quanta",
            expected=f"< 2^24 = {EXACT_LIMIT:,}",
            where=where,
        )
    return signal


def _is_power_of_two(value: float) -> bool:
    return value > 0 and math.frexp(value)[0] == 0.5
