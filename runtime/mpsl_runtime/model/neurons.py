"""NIR's neurons in continuous time -> one step of ours, and back (DESIGN §6).

NIR gives differential equations; one step of `dt_s` seconds is forward Euler:

    LIF      v += dt_s/tau · ((v_leak − v) + r·I)          fires on v > v_threshold, v = v_reset
    LI       the same without firing;  IF, I             v += dt_s·r·I
    CubaLIF  J += dt_s/tau_syn · (w_in·I − J), then the LIF's step with I = the new J
    CubaLI   the same without firing
    Threshold  fires on I > threshold, keeps nothing

v starts at v_leak, as in norse and spikingjelly; an IF, an I and what mpsl wrote at 0.

A LIF that mpsl wrote holds our neuron in the units v = (1−ρ)·U with v_threshold one float below
(1−ρ)·V_th, so that NIR's `>` is our `≥`; metadata says what NIR cannot (reset by subtraction, the
exact V_th and ρ). ρ = 1 has no finite tau: it is an IF with r = 1, as norse, sinabs and snntorch
want it, in the units of U. To them a step is one second; ours, in the metadata, is not read as
NIR's dt there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.plan import Neuron, Shape
from mpsl_runtime.model.shapes import spread

__all__ = ["NEURON_TYPES", "encode_neuron", "neuron_node", "neuron_of"]

Array = NDArray[np.float32]
NEURON_TYPES = (nir.LIF, nir.IF, nir.LI, nir.I, nir.CubaLIF, nir.CubaLI, nir.Threshold)


def encode_neuron(threshold: float, decay: float, shape: Shape, dt_s: float) -> dict[str, Array]:
    """The arrays of the `nir.LIF` that is our neuron, Eq. 1–3; of the `nir.IF` where ρ_m is 1.

    Args:
        threshold: V_th > 0.
        decay: ρ_m, 0 ≤ ρ_m ≤ 1.
        shape: of the population.
        dt_s: seconds that one step stands for.

    Returns:
        float32 arrays `tau, r, v_leak, v_reset, v_threshold` of `shape`; `r, v_reset, v_threshold`
        for ρ_m = 1.

    Raises:
        UsageError: a value outside these ranges.
    """
    if not (0.0 <= decay <= 1.0 and 0.0 < threshold < math.inf and 0.0 < dt_s < math.inf):
        raise UsageError(
            "neuron cannot be written in NIR",
            got=f"decay {decay}, threshold {threshold}, dt_s {dt_s}",
            expected="0 ≤ decay ≤ 1, threshold > 0, dt_s > 0",
        )
    scale = 1.0 if decay == 1.0 else 1.0 - decay
    values = {
        "r": np.float32(1),
        "v_reset": np.float32(0),
        "v_threshold": np.nextafter(np.float32(scale * threshold), np.float32(0)),
    }
    if decay < 1.0:
        values |= {"tau": np.float32(dt_s / scale), "v_leak": np.float32(0)}
    return {name: np.full(shape, value, dtype=np.float32) for name, value in values.items()}


def neuron_node(
    about: NeuronMetadata, shape: Shape, grid: Mapping[str, Any] | None = None
) -> nir.LIF | nir.IF:
    """Our neuron as a node: a LIF, or an IF where ρ_m is 1.

    Args:
        about: what it is, and the node's metadata. shape: of the population.
        grid: further metadata, of an int8 layer.

    Raises:
        UsageError: see `encode_neuron`.
    """
    arrays = encode_neuron(about.threshold, about.decay, shape, about.dt_s)
    kind = nir.IF if about.decay == 1.0 else nir.LIF
    return kind(**arrays, metadata={**about.to_mapping(), **(grid or {})})


def neuron_of(
    name: str, node: nir.NIRNode, shape: Shape, *, dt_s: float | None, where: str
) -> Neuron:
    """One step of a NIR neuron.

    Args:
        name: of the node.
        node: one of `NEURON_TYPES`.
        shape: of its input; its arrays must have this shape, or one element.
        dt_s: seconds that one step stands for, where the node's own metadata does not say.
        where: node and file, for messages.

    Raises:
        ModelError: an array that is not finite or has another shape; tau ≤ 0 or below dt_s; a
            missing dt_s; metadata that is incomplete.
    """
    values = _Values(node, shape, where)
    if isinstance(node, nir.Threshold):
        return _neuron(name, values, kind="threshold", threshold=_above(values["threshold"]))
    metadata = _metadata(node, where)
    step_s = metadata.dt_s if metadata else dt_s
    if step_s is None:
        raise ModelError(
            f"{type(node).__name__} needs the length of a step, and the model does not say it",
            expected="--dt-s SECONDS (dt_s)",
            where=where,
        )
    if metadata and isinstance(node, nir.LIF | nir.LI | nir.IF | nir.I):
        return _ours(name, node, values, metadata)
    return _foreign(name, node, values, step_s)


class _Values:
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
        tau = self[key]
        if not (tau > 0).all():
            raise ModelError(
                f"{key} is not positive", got=tau.min(), expected="seconds > 0", where=self.where
            )
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


def _metadata(node: nir.NIRNode, where: str) -> NeuronMetadata | None:
    """What mpsl wrote on the node; foreign metadata is left alone."""
    if not isinstance(node.metadata, dict) or "order" not in node.metadata:
        return None
    metadata = NeuronMetadata.from_mapping(node.metadata, where)
    if not (
        0 <= metadata.decay <= 1
        and 0 < metadata.threshold < math.inf
        and 0 < metadata.dt_s < math.inf
    ):
        raise ModelError(
            "neuron metadata is out of range",
            got=f"decay {metadata.decay}, threshold {metadata.threshold}, dt_s {metadata.dt_s}",
            expected="0 ≤ decay ≤ 1, threshold > 0, dt_s > 0",
            where=where,
        )
    return metadata


def _ours(name: str, node: nir.NIRNode, values: _Values, metadata: NeuronMetadata) -> Neuron:
    """A LIF or LI that mpsl wrote, in the units of U = v/(1−ρ), or an IF or I, where U = v.

    The node's arrays are the truth. Where they are what metadata encodes to, metadata gives V_th
    and ρ without the rounding of the encoding; a file that was changed runs as it was changed.
    """
    fires, leaks = isinstance(node, nir.LIF | nir.IF), isinstance(node, nir.LIF | nir.LI)
    encoded = encode_neuron(metadata.threshold, metadata.decay, (), metadata.dt_s)
    keys = [key for key in encoded if fires or key not in ("v_reset", "v_threshold")]
    if leaks == ("tau" in encoded) and all(
        _is_full(getattr(node, key), encoded[key], values.shape) for key in keys
    ):
        exact = _neuron(
            name,
            values,
            kind="spiking" if fires else "integrating",
            decay=metadata.decay,
            threshold=metadata.threshold if fires else math.inf,
            reset="subtract" if metadata.reset == "subtract" and fires else "value",
        )
        return replace(exact, V_th=metadata.threshold, rho=metadata.decay)
    rate: Any = values.leak_rate("tau", metadata.dt_s) if leaks else 1.0
    return _neuron(
        name,
        values,
        kind="spiking" if fires else "integrating",
        decay=1 - rate if leaks else 1.0,
        threshold=_above(values["v_threshold"]) / rate if fires else math.inf,
        reset="subtract" if metadata.reset == "subtract" and fires else "value",
        reset_value=values["v_reset"] / rate if fires else 0.0,
        gain=values["r"],
        leak=values["v_leak"] if leaks else 0.0,
    )


def _foreign(name: str, node: nir.NIRNode, values: _Values, dt_s: float) -> Neuron:
    """A neuron with NIR's own meaning, in the units of the file."""
    fires = isinstance(node, nir.LIF | nir.IF | nir.CubaLIF)
    has_synapse = isinstance(node, nir.CubaLIF | nir.CubaLI)
    threshold: NDArray[np.float64] | float = _above(values["v_threshold"]) if fires else math.inf
    reset_value: NDArray[np.float64] | float = values["v_reset"] if fires else 0.0
    kind: Literal["spiking", "integrating"] = "spiking" if fires else "integrating"
    if isinstance(node, nir.IF | nir.I):
        return _neuron(
            name,
            values,
            kind=kind,
            decay=1.0,
            threshold=threshold,
            reset_value=reset_value,
            gain=dt_s * values["r"],
        )
    rate = values.leak_rate("tau_mem" if has_synapse else "tau", dt_s)
    synapse: dict[str, Any] = {}
    if has_synapse:
        synaptic_rate = values.leak_rate("tau_syn", dt_s)
        synapse = {
            "synaptic_decay": 1 - synaptic_rate,
            "synaptic_gain": synaptic_rate * values["w_in"],
        }
    return _neuron(
        name,
        values,
        kind=kind,
        decay=1 - rate,
        threshold=threshold,
        reset_value=reset_value,
        gain=rate * values["r"],
        leak=rate * values["v_leak"],
        initial=values["v_leak"],
        **synapse,
    )


def _is_full(found: object, value: Array, shape: Shape) -> bool:
    """Whether an array of `shape` has this value everywhere."""
    array = np.asarray(found)
    return array.shape == shape and bool((array == value).all())


def _above(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """NIR's v > threshold as our v ≥ the next float32."""
    with np.errstate(over="ignore"):
        return np.nextafter(threshold.astype(np.float32), np.float32(np.inf)).astype(np.float64)


def _neuron(
    name: str,
    values: _Values,
    *,
    kind: Literal["spiking", "integrating", "threshold"],
    decay: NDArray[np.float64] | float = 0.0,
    threshold: NDArray[np.float64] | float = 0.0,
    reset: Literal["subtract", "value"] = "value",
    reset_value: NDArray[np.float64] | float = 0.0,
    gain: NDArray[np.float64] | float = 1.0,
    leak: NDArray[np.float64] | float = 0.0,
    synaptic_decay: NDArray[np.float64] | None = None,
    synaptic_gain: NDArray[np.float64] | None = None,
    initial: NDArray[np.float64] | None = None,
) -> Neuron:
    shape = values.shape

    def full(key: str, value: NDArray[np.float64] | float) -> Array:
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
        initial=None if initial is None or not initial.any() else full("v_leak", initial),
    )
