"""The arrays of a NIR neuron, checked -> those of one of the plan's, as few numbers as can be."""

from __future__ import annotations

from typing import Literal

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.dialects import ResetRule
from mpsl_runtime.model.plan import Neuron, Shape
from mpsl_runtime.model.shapes import spread

__all__ = ["NeuronValues", "Numbers", "above", "neuron_with"]

Array = NDArray[np.float32]
Numbers = NDArray[np.float64] | float


class NeuronValues:
    """The arrays of a node, finite: one number, one for each channel [C, 1, 1], or all."""

    def __init__(self, node: nir.NIRNode, shape: Shape, where: str) -> None:
        self.node, self.shape, self.where = node, shape, where

    def __getitem__(self, key: str) -> NDArray[np.float64]:
        value = np.asarray(getattr(self.node, key))
        if value.dtype.kind not in "biuf":
            raise ModelError(f"{key} is not a number", got=value.dtype, where=self.where)
        full = spread(value, self.shape)
        if full is None:
            raise ModelError(
                f"{key} does not fit the neurons",
                got=f"shape {value.shape}",
                expected=f"{self.shape}, the shape of the input",
                where=self.where,
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(value.astype(np.float32))
        if not finite.all():
            index = tuple(int(i) for i in np.argwhere(~np.atleast_1d(finite))[0])
            raise ModelError(
                f"{key} is not finite",
                got=f"{value.reshape(-1)[~finite.reshape(-1)][0]} at {index}",
                expected="an IF or an I, which have no leak" if key[:3] == "tau" else "numbers",
                where=self.where,
            )
        # One number for all, or for a channel, stays one: a file may name millions of neurons.
        if value.size in (1, full.size):
            return value.astype(np.float64).reshape(() if value.size == 1 else full.shape)
        return value.astype(np.float64)

    def leak_rate(self, key: str, dt_s: float) -> NDArray[np.float64]:
        """dt_s/tau, in (0, 1]."""
        tau = self._positive(key)
        rate = dt_s / tau
        # One float of slack: tau is stored rounded.
        if (rate > 1 + 1e-6).any():
            raise ModelError(
                f"{key} is shorter than a step",
                got=f"{tau.min():g} s",
                expected=f"≥ the step of {dt_s:g} s (--dt-s); norse writes dt·tau for tau: there "
                "dt² is the step",
                where=self.where,
            )
        return np.minimum(rate, 1.0)

    def decay(self, key: str, dt_s: float) -> NDArray[np.float64]:
        """exp(−dt_s/tau), rounded to float32 as it is computed with."""
        ratio = (-dt_s / self._positive(key)).astype(np.float32)
        return np.exp(ratio.astype(np.float64)).astype(np.float32).astype(np.float64)

    def _positive(self, key: str) -> NDArray[np.float64]:
        tau = self[key]
        if not (tau > 0).all():
            raise ModelError(
                f"{key} is not positive", got=tau.min(), expected="seconds > 0", where=self.where
            )
        return tau


def above(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """v > threshold as our v ≥ the next float32."""
    with np.errstate(over="ignore"):
        return np.nextafter(threshold.astype(np.float32), np.float32(np.inf)).astype(np.float64)


def neuron_with(
    name: str,
    values: NeuronValues,
    *,
    kind: Literal["spiking", "integrating", "threshold"],
    decay: Numbers = 0.0,
    threshold: Numbers = 0.0,
    reset: ResetRule = "value",
    reset_value: Numbers = 0.0,
    gain: Numbers = 1.0,
    leak: Numbers = 0.0,
    synaptic_decay: NDArray[np.float64] | None = None,
    synaptic_gain: NDArray[np.float64] | None = None,
    initial: NDArray[np.float64] | None = None,
    drop: NDArray[np.float64] | None = None,
    many: bool = False,
) -> Neuron:
    """A population of the plan; see `Neuron`.

    Raises:
        ModelError: a number that float32 does not hold.
    """
    shape = values.shape

    def full(key: str, value: Numbers) -> Array:
        """A view: one value for all neurons takes no more room than one."""
        with np.errstate(over="ignore"):
            given = np.asarray(value, dtype=np.float32)
        # What does not fire has no threshold, which infinity says.
        endless = key == "threshold" and kind == "integrating"
        if not endless and not np.isfinite(given).all():
            raise ModelError(
                f"{key} of a step is beyond float32",
                got=np.asarray(value).reshape(-1)[~np.isfinite(given.reshape(-1))][0],
                where=values.where,
            )
        return np.broadcast_to(given, shape)

    return Neuron(
        name=name,
        kind=kind,
        decay=full("decay", decay),
        threshold=full("threshold", threshold),
        reset=reset,
        reset_value=full("reset value", reset_value),
        gain=full("gain", gain),
        leak=full("leak", leak),
        # Rounded as it is computed with.
        has_input_map=bool((np.float32(gain) != 1).any() or (np.float32(leak) != 0).any()),
        synaptic_decay=None if synaptic_decay is None else full("synaptic decay", synaptic_decay),
        synaptic_gain=None if synaptic_gain is None else full("synaptic gain", synaptic_gain),
        input_shape=shape,
        output_shape=shape,
        initial=None if initial is None or not initial.any() else full("start of v", initial),
        drop=None if drop is None else full("threshold", drop),
        many=many,
    )
