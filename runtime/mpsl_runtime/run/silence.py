"""Recordings over which the output never fires: their label means nothing, and why may be known."""

from __future__ import annotations

import numpy as np

from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.run.decisions import Prediction, Step

__all__ = ["SilenceWatch"]

# Weights are trained for inputs that count about once.
_LEAST_GAIN = 0.5


class SilenceWatch:
    """Sees what a stream gives, and says which recordings the output was silent over.

    Attributes:
        recordings: that it saw whole, with events in them. silent: of these.
    """

    def __init__(self, plan: Plan) -> None:
        last = plan.output_neuron
        self._plan = plan
        self._is_watched = last is not None and last.kind != "integrating"
        self._file: str | None = None
        self._steps = self._events = 0
        self._has_fired = False
        self._fired = np.zeros(0, np.int64)
        self.recordings = self.silent = 0

    def see(self, item: Step | Prediction) -> str | None:
        """Takes in what the stream gave; a line where it ended the first silent recording."""
        if not isinstance(item, Step) or not self._is_watched:
            return None
        said = self.end() if item.file != self._file else None
        self._file = item.file
        self._steps += 1
        self._events += item.events
        self._has_fired |= bool(item.spikes.any())
        fired = np.array(item.fired, np.int64)
        self._fired = fired + (self._fired if self._fired.size else 0)
        return said

    def end(self) -> str | None:
        """After the last item: as `see`."""
        was_silent = bool(self._events) and not self._has_fired
        self.recordings += bool(self._events)
        self.silent += was_silent
        said = self._line() if was_silent and self.silent == 1 else None
        self._steps = self._events = 0
        self._has_fired = False
        self._fired = np.zeros(0, np.int64)
        return said

    @property
    def total(self) -> str | None:
        """How many there were, where the one that was told is not all."""
        if self.silent < 2:
            return None
        return f"{self.silent:,} of {self.recordings:,} recordings gave no output spike"

    def _line(self) -> str:
        quiet = (n for n, fired in zip(self._plan.spiking, self._fired, strict=True) if not fired)
        return (
            f"{self._file}: no output spike in {self._steps:,} steps, {self._events:,} events; "
            f"{self._cause(next(quiet))}"
        )

    def _cause(self, neuron: Neuron) -> str:
        """Why the first layer that is silent may be so."""
        metadata = self._plan.metadata
        if metadata is None or not metadata.imported_from:
            return f"none of {neuron.name!r} fires"
        gain = _gain(neuron)
        if gain < _LEAST_GAIN:
            return (
                f"likely cause: dt_s = {metadata.dt_s:g}, with which an input of 1 adds {gain:.2g} "
                f"to {neuron.name!r}, whose threshold is {float(neuron.threshold.min()):.3g} "
                "(--dt-s)"
            )
        return (
            f"none of {neuron.name!r} fires: is it {metadata.imported_from} (--from), with "
            f"{metadata.coding} as the coding of events (--coding)?"
        )


def _gain(neuron: Neuron) -> float:
    """What an input of 1 adds to U, at most."""
    gain = np.float32(1) if neuron.synaptic_gain is None else np.abs(neuron.synaptic_gain).max()
    return float(gain * (np.abs(neuron.gain).max() if neuron.has_input_map else 1))
