"""int8 models: why they give the same spikes in every program, and the proof for one model.

A layer of an int8 model lies on a grid: its weights, biases and threshold are whole multiples of a
quantum 2^e (its `weight_grid`), with weights of at most 127 quanta. Its inputs are whole multiples
of a quantum too: of 1 for spikes, pooled spikes and event counts, of `input_grid` for images. So
the current of a neuron is a whole number of (weight quantum · input quantum), and so is every part
of that sum. float32 holds whole numbers up to 2^24 exactly. Hence, as long as

    Σ |weight| · largest |input| + |bias|  <  2^24 quanta

no addition ever rounds: any order of summation, any blocking, fused multiply-add and integer
arithmetic all give the same float32. What follows the sum, U = ρ·V + I, S = [U ≥ V_th] and
V = U − S·V_th, may round, but is the same few IEEE operations on the same numbers for each neuron
by itself (no fused multiply-add there). So spikes and membrane potentials are bit-identical in
every program, although U is no integer.

Not covered: a convolution by Winograd's or a Fourier transform, which computes other products. And
adding the bias to the stored state instead of the current rounds differently, on a grid as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError, ModelError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Neuron, Plan, Pooling

__all__ = [
    "EXACT_LIMIT",
    "LARGEST_WEIGHT",
    "InputBound",
    "LayerGrid",
    "integer_bias",
    "integer_weights",
    "is_int8",
    "layer_grids",
    "worst_sum",
]

LARGEST_WEIGHT = 127
EXACT_LIMIT = 1 << 24
"""Whole numbers below it, and their sums below it, are exact in float32."""

_FINEST_INPUT = 2.0**-24


@dataclass(frozen=True, eq=False)
class LayerGrid:
    """One weighted layer in whole numbers.

    Attributes:
        name: of the Convolution or Dense node.
        weight: int8, in weight quanta; the shape of the node's weight.
        bias: int32 [Co], in current quanta, so that I = (Σ weight·input + bias) · current_quantum.
        weight_quantum: 2^e. input_quantum: of the layer's input.
        input_max: largest |input| of the layer, in input quanta.
        threshold: of the neurons behind it, in weight quanta; None where they do not fire.
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


def integer_weights(node: Convolution | Dense) -> tuple[NDArray[np.int8], float]:
    """The weights of a node as whole numbers, and their quantum: weight = integers · quantum.

    Raises:
        ModelError: the node has no grid, or a weight that is not on it or beyond ±127 quanta.
    """
    quantum = _quantum(node)
    quanta = _on_grid(node.weight, quantum, f"weight of {node.name!r}")
    if np.abs(quanta).max() > LARGEST_WEIGHT:
        index = tuple(int(i) for i in np.argwhere(np.abs(quanta) > LARGEST_WEIGHT)[0])
        raise ModelError(
            "weight is no int8",
            got=f"{int(quanta[index])} quanta at {index}",
            expected=f"−{LARGEST_WEIGHT} … {LARGEST_WEIGHT}",
            where=f"node {node.name!r}",
        )
    return quanta.astype(np.int8), quantum


def layer_grids(plan: Plan) -> tuple[LayerGrid, ...]:
    """The weighted layers of an int8 model in whole numbers, in order; its proof of exactness.

    Raises:
        ModelError: the model does not say that it is int8, a value is off its grid, or a sum may
            reach 2^24 quanta; the node is named. Such a model still runs as a float32 model does.
    """
    metadata = plan.metadata
    if metadata is None or metadata.weights != "int8":
        raise ModelError("model is not an int8 model", where=plan.source)
    if not plan.is_chain:
        raise ModelError(
            "an int8 model with branches or loops is not proven exact",
            expected="layers one behind the other",
            where=plan.source,
        )
    quantum, largest = metadata.input_grid, metadata.input_max
    if not (
        _is_power_of_two(quantum) and _FINEST_INPUT <= quantum <= 1 and 1 <= largest < EXACT_LIMIT
    ):
        raise ModelError(
            "input of an int8 model is not on a grid",
            got=f"input_grid {quantum}, input_max {largest}",
            expected=f"a power of two, 2^-24 … 1, and a bound, 1 … {EXACT_LIMIT - 1:,}",
            where=plan.source,
        )
    grids: list[LayerGrid] = []
    for position, node in enumerate(plan.nodes):
        where = f"node {node.name!r} of {plan.source}"
        if isinstance(node, Convolution | Dense):
            following = plan.nodes[position + 1] if position + 1 < len(plan.nodes) else None
            if not isinstance(following, Neuron) or following.has_input_map:
                raise ModelError(
                    "weights of an int8 model have no neurons of mpsl behind them", where=where
                )
            grids.append(_layer(node, following, quantum, largest, where))
        elif isinstance(node, Neuron):
            # Spikes; U of a population that does not fire is on no grid, but ends the model.
            quantum, largest = 1.0, 1
        elif isinstance(node, Pooling) and _is_power_of_two(node.scale) and node.scale <= 1:
            quantum, largest = quantum * node.scale, largest * math.prod(node.kernel)
        elif not isinstance(node, Flatten):
            raise ModelError(
                "node of an int8 model leaves the grid", got=type(node).__name__, where=where
            )
    return tuple(grids)


def integer_bias(node: Convolution | Dense) -> NDArray[np.int32]:
    """The bias of a node in quanta of its weights, below 2^24.

    Raises:
        ModelError: the node has no grid, or a value that is not on it.
    """
    quanta = _on_grid(node.bias, _quantum(node), f"bias of {node.name!r}")
    return quanta.astype(np.int32)


class InputBound:
    """Refuses input of an int8 model beyond what its proof covers; passes any other model's."""

    def __init__(self, metadata: ModelMetadata | None) -> None:
        self._bound = np.float32(np.inf)
        self._grid = np.float32(1)
        self._is_int8 = metadata is not None and metadata.weights == "int8"
        if metadata is not None and self._is_int8 and metadata.input_grid > 0:
            self._grid = np.float32(metadata.input_grid)
            self._bound = np.float32(metadata.input_max or np.inf)

    def check(self, values: NDArray[np.float32]) -> None:
        """Checks frames, or the values of sparse input, float32.

        Raises:
            DataError: a value is larger than `input_max`, or no multiple of `input_grid`.
        """
        if not self._is_int8 or not values.size:
            return
        quanta = values if self._grid == 1 else values / self._grid
        largest = max(quanta.max(), -quanta.min())
        if largest > self._bound:
            raise DataError(
                "input is larger than this int8 model was proven exact for",
                got=f"{largest:g} in one step, in units of {self._grid:g}",
                expected=f"≤ {self._bound:g}",
            )
        off = np.rint(quanta) != quanta
        if off.any():
            raise DataError(
                "input of an int8 model is off its grid",
                got=float(values[off].flat[0]),
                expected=f"multiples of {self._grid:g}",
            )


def worst_sum(
    weight: NDArray[np.integer], bias: NDArray[np.integer], input_quantum: float, input_max: int
) -> int:
    """The largest that |Σ weight·input + bias|, or any part of the sum, can be, in current quanta.

    Args:
        weight: [Co, …] in weight quanta. bias: [Co] in weight quanta.
        input_quantum, input_max: of the layer's input.
    """
    flat = np.abs(weight.reshape(len(weight), -1).astype(np.int32))
    # Python's integers from here on: what a file declares may be any number.
    rows: list[int] = flat.sum(axis=1, dtype=np.int64).tolist()
    scale = round(1 / input_quantum)
    offsets: list[int] = [abs(b) * scale for b in bias.astype(np.int64).tolist()]
    return max(row * input_max + offset for row, offset in zip(rows, offsets, strict=True))


def _layer(
    node: Convolution | Dense, neuron: Neuron, input_quantum: float, input_max: int, where: str
) -> LayerGrid:
    weight, quantum = integer_weights(node)
    bias = integer_bias(node).astype(np.int64)
    threshold: int | None = None
    if neuron.kind != "integrating":
        levels = _on_grid(neuron.threshold, quantum, f"threshold of {neuron.name!r}")
        threshold, highest = int(levels.min()), int(levels.max())
        if threshold != highest or threshold < 1:
            raise ModelError(
                "threshold of an int8 layer is not one positive number",
                got=f"{threshold} … {highest} quanta" if threshold != highest else threshold,
                where=f"node {neuron.name!r}",
            )
    worst = worst_sum(weight, bias, input_quantum, input_max)
    if worst >= EXACT_LIMIT:
        raise ModelError(
            "sums of an int8 layer may not be exact",
            got=f"up to {worst:,} quanta",
            expected=f"< 2^24 = {EXACT_LIMIT:,}",
            where=where,
        )
    return LayerGrid(
        name=node.name,
        weight=weight,
        bias=(bias * round(1 / input_quantum)).astype(np.int32),
        weight_quantum=quantum,
        input_quantum=input_quantum,
        input_max=input_max,
        threshold=threshold,
        worst_sum=worst,
    )


def _quantum(node: Convolution | Dense) -> float:
    if node.weight_grid is None:
        raise ModelError("node has no weight_grid", where=f"node {node.name!r}")
    return math.ldexp(1.0, node.weight_grid)


def _on_grid(values: NDArray[np.float32], quantum: float, what: str) -> NDArray[np.floating]:
    """Values as whole multiples of a power of two; ModelError for one that is none."""
    # Dividing by a power of two is exact: in float64, and in float32, which takes half the time,
    # where nothing can underflow. What overflows is beyond the limit anyway.
    kind = np.dtype(np.float32 if 2.0**-100 <= quantum <= 1 else np.float64)
    with np.errstate(over="ignore"):
        quanta: NDArray[np.floating] = values.astype(kind, copy=False) / kind.type(quantum)
    off = np.rint(quanta) != quanta
    if off.any() or np.abs(quanta).max(initial=0) >= EXACT_LIMIT:
        off |= np.abs(quanta) >= EXACT_LIMIT
        index = tuple(int(i) for i in np.argwhere(off)[0])
        raise ModelError(
            f"{what} is off its grid",
            got=f"{values[index]} at {index}",
            expected=f"a multiple of {quantum:g} below 2^24 of them",
        )
    return quanta


def _is_power_of_two(value: float) -> bool:
    return value > 0 and math.frexp(value)[0] == 0.5
