"""How wide the membranes of an int8 population must be: the proof, by intervals.

On a grid a current I is a whole number of quanta. U = ρ·V + I is one too where ρ is 0 or 1; with
ρ = m/2^k every step adds k binary places, (T − 1)·k of them in the T steps after a reset. So within
T steps U is a whole number of 2^−F quanta, F = (T − 1)·k, and so is everything that a step makes on
its way. The intervals of V and U follow step by step from the largest and smallest current:

    U ∈ [ρ·V_low + I_low, ρ·V_high + I_high];   V = U − S·θ, or the reset value where S

Where they stay within 2^24 of these units, float32 holds each of these numbers exactly: then the
integer program and every float32 program compute the same ones. Beyond that float32 would round
and the integers would not: such a population keeps float32 membranes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.text import type_of
from mpsl_runtime.model.grid import LayerGrid
from mpsl_runtime.model.plan import Neuron
from mpsl_runtime.model.quanta import EXACT_LIMIT

__all__ = ["Membrane", "integer_membrane"]

_MOST_PLACES = 24


@dataclass(frozen=True)
class Membrane:
    """An integer membrane that is wide enough.

    Attributes:
        ctype: its type. places: F; a unit is 2^−F quanta.
        threshold, reset_value: in these units.
        factor, shift: ρ = factor / 2^shift.
        largest: |membrane|, or any part of its sum, never is larger.
        steps: T, for which that holds after a reset; 0: always.
    """

    ctype: str
    places: int
    threshold: int
    reset_value: int
    factor: int
    shift: int
    largest: int
    steps: int


def integer_membrane(
    grid: LayerGrid, neuron: Neuron, steps: int, *, negative_input: bool
) -> Membrane | None:
    """The narrowest integer membrane of a population behind a layer; None where none is proven.

    Args:
        grid: of the weights before it. neuron: the population; one that does not fire has none.
        steps: T. negative_input: the layer's input may be below 0.
    """
    decay, reset = neuron.decay.flat[0], neuron.reset_value.flat[0]
    if neuron.kind != "spiking" or neuron.synaptic_decay is not None or neuron.has_input_map:
        return None
    if neuron.resets_late or neuron.many or neuron.drop is not None or grid.threshold is None:
        return None
    if neuron.initial is not None or (neuron.decay != decay).any():
        return None
    rho = Fraction(float(decay))
    shift = rho.denominator.bit_length() - 1
    places = shift * (steps - 1)
    back = Fraction(float(reset)) / Fraction(grid.current_quantum)
    if places > _MOST_PLACES or back.denominator > 1 << places:
        return None
    if neuron.reset == "value" and (neuron.reset_value != reset).any():
        return None
    # The threshold is in weight quanta, the current in those times the input's.
    threshold = round(grid.threshold / grid.input_quantum)
    found = Membrane(
        "", places, threshold << places, int(back * (1 << places)), rho.numerator, shift, 0,
        0 if rho == 0 else steps,
    )  # fmt: skip
    largest = _largest(grid, neuron, found, steps, negative_input)
    if largest > EXACT_LIMIT or largest * rho.numerator >= 1 << 31:
        return None
    ctype = type_of(-largest, largest, signed=True)
    return Membrane(**{**vars(found), "ctype": ctype, "largest": largest})


def _largest(
    grid: LayerGrid, neuron: Neuron, about: Membrane, steps: int, negative_input: bool
) -> int:
    """The largest |value| that any membrane takes in T steps, in its units."""
    low_I, high_I, bias = (values << about.places for values in _currents(grid, negative_input))
    theta, back = about.threshold, about.reset_value
    low = high = bias
    largest = max(abs(theta), abs(back), _most(bias))
    for _ in range(max(steps, 1)):
        U_low, U_high = low + low_I, high + high_I
        fires, rests = U_high >= theta, U_low < theta
        after = (U_high - theta) if neuron.reset == "subtract" else np.full_like(bias, back)
        least = np.maximum(U_low - theta, 0) if neuron.reset == "subtract" else after
        quiet = np.minimum(U_high, theta - 1)
        V_high = np.where(fires, np.where(rests, np.maximum(after, quiet), after), U_high)
        V_low = np.where(fires, np.where(rests, np.minimum(least, U_low), least), U_low)
        # What waits for the next step, ρ·V + b, behind the last one too; rounded outwards.
        low = (V_low * about.factor >> about.shift) + bias
        high = -(-V_high * about.factor >> about.shift) + bias
        largest = max(largest, *map(_most, (U_low, U_high, low, high)))
        if largest > EXACT_LIMIT:
            break
    return largest


def _most(values: NDArray[np.int64]) -> int:
    return int(np.abs(values).max())


def _currents(grid: LayerGrid, negative_input: bool) -> tuple[NDArray[np.int64], ...]:
    """For each filter the smallest and largest sum over its inputs, and its bias, in quanta."""
    rows = grid.weight.reshape(len(grid.weight), -1).astype(np.int64)
    above = np.where(rows > 0, rows, 0).sum(axis=1) * grid.input_max
    below = np.where(rows < 0, rows, 0).sum(axis=1) * grid.input_max
    if negative_input:
        above, below = above - below, below - above
    return below, above, grid.bias.astype(np.int64)
