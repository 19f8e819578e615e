"""NIR's neurons -> one step of ours, and ours -> NIR's (DESIGN §6).

v starts at v_leak, as in norse and spikingjelly; an IF, an I and what mpsl wrote at 0. What other
frameworks mean is `foreign_neurons`.

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
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.dialects import StepRule
from mpsl_runtime.model.foreign_neurons import foreign_neuron
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.neuron_values import NeuronValues, above, neuron_with
from mpsl_runtime.model.plan import Neuron, Shape

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
        UsageError: a value outside these ranges, or one that float32 does not hold.
    """
    unfit = _unfit(threshold, decay, dt_s)
    if unfit is not None:
        raise UsageError("neuron cannot be written in NIR", got=unfit[0], expected=unfit[1])
    scale = 1.0 if decay == 1.0 else 1.0 - decay
    values = {
        "r": np.float32(1),
        "v_reset": np.float32(0),
        "v_threshold": np.nextafter(np.float32(scale * threshold), np.float32(0)),
    }
    if decay < 1.0:
        values |= {"tau": np.float32(dt_s / scale), "v_leak": np.float32(0)}
    return {name: np.full(shape, value, dtype=np.float32) for name, value in values.items()}


def _unfit(threshold: float, decay: float, dt_s: float) -> tuple[str, str] | None:
    """What was got and what is expected, where a neuron cannot be encoded; its values are float32
    in the file, and neither infinite nor 0."""
    got = f"decay {decay}, threshold {threshold}, dt_s {dt_s}"
    if not (0.0 <= decay <= 1.0 and 0.0 < threshold < math.inf and 0.0 < dt_s < math.inf):
        return got, "0 ≤ decay ≤ 1, threshold > 0, dt_s > 0"
    scale = 1.0 if decay == 1.0 else 1.0 - decay
    float32 = np.finfo(np.float32)
    least, most = float(float32.tiny), float(float32.max)
    if least <= scale * threshold <= most and least <= dt_s / scale <= most:
        return None
    return got, f"(1 − decay)·threshold and dt_s/(1 − decay) of {least:.2g} … {most:.2g}"


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
        dt_s: seconds that one step stands for, where the node's own metadata does not say: then
            NIR's own equations hold.
        where: node and file, for messages.

    Raises:
        ModelError: an array that is not finite or has another shape; tau ≤ 0 or below dt_s; a
            missing dt_s; metadata that is incomplete.
    """
    # What is beyond a float becomes infinite without a word, and is refused as such.
    with np.errstate(all="ignore"):
        return _neuron_of(name, node, shape, dt_s, where)


def _neuron_of(
    name: str, node: nir.NIRNode, shape: Shape, dt_s: float | None, where: str
) -> Neuron:
    values = NeuronValues(node, shape, where)
    metadata = _metadata(node, where)
    if metadata and isinstance(node, nir.LIF | nir.LI | nir.IF | nir.I):
        return _ours(name, node, values, metadata)
    rule = StepRule.of(node.metadata, where)
    if rule is None:
        step_s = metadata.dt_s if metadata else dt_s
        if step_s is None and not isinstance(node, nir.Threshold):
            raise ModelError(
                f"{type(node).__name__} needs the length of a step, and the model does not say it",
                expected="--dt-s SECONDS (dt_s)",
                where=where,
            )
        rule = StepRule.nir(step_s or 1.0)
    return foreign_neuron(name, node, values, rule)


def _metadata(node: nir.NIRNode, where: str) -> NeuronMetadata | None:
    """What mpsl wrote on the node; foreign metadata is left alone."""
    if not isinstance(node.metadata, dict) or "order" not in node.metadata:
        return None
    metadata = NeuronMetadata.from_mapping(node.metadata, where)
    unfit = _unfit(metadata.threshold, metadata.decay, metadata.dt_s)
    if unfit is not None:
        raise ModelError(
            "neuron metadata is out of range", got=unfit[0], expected=unfit[1], where=where
        )
    return metadata


def _ours(name: str, node: nir.NIRNode, values: NeuronValues, metadata: NeuronMetadata) -> Neuron:
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
        exact = neuron_with(
            name,
            values,
            kind="spiking" if fires else "integrating",
            decay=metadata.decay,
            threshold=metadata.threshold if fires else math.inf,
            reset="subtract" if metadata.reset == "subtract" and fires else "value",
        )
        return replace(exact, V_th=metadata.threshold, rho=metadata.decay)
    rate: Any = values.leak_rate("tau", metadata.dt_s) if leaks else 1.0
    return neuron_with(
        name,
        values,
        kind="spiking" if fires else "integrating",
        decay=1 - rate if leaks else 1.0,
        threshold=above(values["v_threshold"]) / rate if fires else math.inf,
        reset="subtract" if metadata.reset == "subtract" and fires else "value",
        reset_value=values["v_reset"] / rate if fires else 0.0,
        gain=values["r"],
        leak=values["v_leak"] if leaks else 0.0,
    )


def _is_full(found: object, value: Array, shape: Shape) -> bool:
    """Whether an array of `shape` has this value everywhere."""
    array = np.asarray(found)
    return array.shape == shape and bool((array == value).all())
