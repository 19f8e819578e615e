"""When scores are an answer, and which: a class, or `none`.

A network that is shown nothing still has a highest score, and its confidence in it may be 1. So a
window answers `none` where too few events came, or where the highest score, or its lead over the
second (the margin), is too small. `mpsl calibrate` chooses these limits on held-out recordings and
keeps them in the model's metadata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.kept import Kept
from mpsl_runtime.model import readout as read_out
from mpsl_runtime.model.readout import Readout

__all__ = ["NONE", "AnswerRule", "Hold", "margin"]

NONE = "none"


def margin(scores: NDArray[np.float32]) -> float:
    """The lead of the highest score over the second highest; the score itself of a single class."""
    if len(scores) < 2:
        return float(scores[0])
    second, first = np.partition(scores, -2)[-2:]
    return float(first - second)


@dataclass(frozen=True)
class AnswerRule:
    """When a window answers, and what.

    Attributes:
        least_events: a window with fewer events answers `none`.
        least_score: so does one whose highest score is not above this,
        least_margin: or whose margin is below this. Both in units of the scores: spikes of an
            output neuron for the read-out `count`, membrane potential for `membrane`.
        early_margin: a window that began at rest answers as soon as its margin reaches this and
            the other limits hold; None: after its last step.
        hold_us: in a stream, a class stays the answer for at least so long.

    Raises:
        UsageError: a value that cannot be.
    """

    least_events: int = 1
    least_score: float = -math.inf
    least_margin: float = 0.0
    early_margin: float | None = None
    hold_us: int = 0

    def __post_init__(self) -> None:
        early = 0.0 if self.early_margin is None else self.early_margin
        for name, value in (
            ("least_events", self.least_events),
            ("least_margin", self.least_margin),
            ("early_margin", early),
            ("hold_us", self.hold_us),
        ):
            if not 0 <= value < 1 << 62:
                raise UsageError(
                    "answer rule is out of range", got=f"{name} = {value}", expected="≥ 0"
                )
        if math.isnan(self.least_score):
            raise UsageError("answer rule is out of range", got="least_score = nan")

    def changed(self, **values: Any) -> AnswerRule:
        """The same with some values changed."""
        return replace(self, **values)

    def in_stream(self, readout: Readout) -> AnswerRule:
        """The same for a stream, where an output without a spike is no answer either.

        A trial is answered as in training: its highest score, whatever it is.
        """
        if readout == "count" and self.least_score < 0:
            return replace(self, least_score=0.0)
        return self

    def decide(self, scores: NDArray[np.float32], events: int) -> int | None:
        """The class of a window; None is `none`.

        Args:
            scores: float32 [K]. events: that its steps held.
        """
        label = int(read_out.label(scores))
        if events < self.least_events or not float(scores[label]) > self.least_score:
            return None
        if self.least_margin > 0 and margin(scores) < self.least_margin:
            return None
        return label

    def decides_early(self, scores: NDArray[np.float32], events: int) -> bool:
        """True when the window need not be run to its end."""
        if self.early_margin is None or margin(scores) < self.early_margin:
            return False
        return self.decide(scores, events) is not None


class Hold:
    """Keeps a class as the answer for a while, so that a display does not flicker.

    Args:
        hold_us: how long a class stays; 0 lets everything through.
    """

    def __init__(self, hold_us: int) -> None:
        self._hold_us = hold_us
        self._label: int | None = None
        self._until_us = 0

    def reset(self) -> None:
        """Forgets what is held."""
        self._label = None

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        return {"label": self._label, "until_us": self._until_us}

    def restore(self, kept: Kept, classes: int) -> None:
        """Goes on where `kept` was taken, of a model with so many classes."""
        self._label = kept.integer("label", 0, classes - 1) if kept.is_there("label") else None
        self._until_us = kept.integer("until_us", -(1 << 62))

    def filter(self, label: int | None, t_us: int) -> int | None:
        """What to show at a time; times never decrease. A class that comes again is held anew."""
        if self._label is not None and label != self._label and t_us < self._until_us:
            return self._label
        self._label = label
        if label is not None:
            self._until_us = t_us + self._hold_us
        return label
