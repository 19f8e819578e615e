"""How a trained layer becomes whole numbers: the one rule, for the exporter and for training.

A layer fires the same spikes when its weights, its bias and its threshold are all multiplied by one
number. So the threshold is put on the grid first, without any error: it is made t quanta, one
quantum stands for V_th/t of what was trained, and

    weight = round(W · t/V_th) within ±127,   bias = round(b · t/V_th),   threshold = t

are whole numbers. Stored are these times the power of two 2^e that is nearest to V_th/t, so that
the file holds about the trained values, each an exact float32. A larger t makes finer steps and
clips the largest weights.

The last layer of a network that is read out by its membrane potential is not rescaled, since its U
are the scores: one quantum stands for 2^e itself, and V_th is rounded. Nor is a layer behind which
there are not just neurons of mpsl; what is behind it then stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsl_runtime.model.quanta import EXACT_LIMIT, LARGEST_WEIGHT

__all__ = ["Scale", "is_exact_decay", "unclipped_scale", "unclipped_threshold", "whole_numbers"]


@dataclass(frozen=True)
class Scale:
    """How one layer becomes whole numbers.

    Attributes:
        exponent: e; a whole number q is stored as q · 2^e.
        threshold: t, the layer's threshold in quanta.
        step: the trained value that one quantum stands for.
    """

    exponent: int
    threshold: int
    step: float

    @classmethod
    def of(cls, trained: float, quanta: int, *, is_score: bool) -> Scale:
        """The scale that makes a threshold `quanta` ≥ 1 quanta, or, where U is a score, the power
        of two that comes nearest to that.

        Args:
            trained: V_th as trained. is_score: U of the layer is the score of a class.
        """
        step = trained / quanta
        exponent = round(math.log2(step))
        if is_score:
            step = math.ldexp(1.0, exponent)
            quanta = max(1, round(trained / step))
        return cls(exponent, quanta, step)

    @classmethod
    def power_of_two(cls, exponent: int, trained: float) -> Scale:
        """The scale whose quantum stands for 2^exponent itself; the threshold is the nearest."""
        step = math.ldexp(1.0, exponent)
        return cls(exponent, max(1, round(trained / step)), step)

    @property
    def quantum(self) -> float:
        """2^e, the stored value of one quantum."""
        return math.ldexp(1.0, self.exponent)

    @property
    def stored_threshold(self) -> float:
        """The threshold as it is stored, t · 2^e."""
        return math.ldexp(self.threshold, self.exponent)


def unclipped_threshold(peak: float, trained: float) -> float:
    """The largest threshold, in quanta, with which no weight is beyond ±127; it may be below 1.

    Args:
        peak: largest |weight| of the layer. trained: V_th as trained.
    """
    # Half a quantum more than 127 still rounds to 127.
    return min((LARGEST_WEIGHT + 0.49) * trained / max(peak, 1e-30), float(EXACT_LIMIT - 1))


def unclipped_scale(peak: float, trained: float, *, is_score: bool) -> Scale:
    """The finest scale that clips no weight, as far as a threshold of 1 quantum allows.

    Args:
        peak: largest |weight| of the layer. trained, is_score: see `Scale.of`.
    """
    scale = Scale.of(trained, max(1, int(unclipped_threshold(peak, trained))), is_score=is_score)
    if is_score and peak > (LARGEST_WEIGHT + 0.5) * scale.step:
        # The nearest power of two was the smaller one.
        step = 2 * scale.step
        return Scale(scale.exponent + 1, max(1, round(trained / step)), step)
    return scale


def whole_numbers(values: Any, step: Any, limit: int) -> Any:
    """Values in quanta, rounded half to even and clipped to ±limit.

    Args:
        values: float64, a numpy array or a torch tensor. step: `Scale.step`, for a tensor as a
            tensor of its device: by a plain number torch may multiply with the reciprocal.
    """
    return (values / step).round().clip(-limit, limit)


def is_exact_decay(decay: float) -> bool:
    """Whether float32 holds ρ_m exactly; otherwise programs may round ρ_m·V differently."""
    return float(np.float32(decay)) == decay
