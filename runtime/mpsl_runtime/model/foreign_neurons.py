"""A NIR neuron of another framework -> one step of ours, in the units of the file.

NIR gives differential equations; a `StepRule` says how a framework takes a step. By Euler:

    LIF      v += dt_s/tau · ((v_leak − v) + r·I)          fires on v > v_threshold, v = v_reset
    LI       the same without firing;  IF, I             v += dt_s·r·I
    CubaLIF  J += dt_s/tau_syn · (w_in·I − J), then the LIF's step with I = the new J
    CubaLI   the same without firing
    Threshold  fires on I > threshold, keeps nothing
"""

from __future__ import annotations

import math
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.dialects import StepRule
from mpsl_runtime.model.neuron_values import NeuronValues, Numbers, above, neuron_with
from mpsl_runtime.model.plan import Neuron

__all__ = ["foreign_neuron"]

Array = NDArray[np.float64]

# Files hold tau and r as float32: a product that is 1 but for their rounding is 1.
_ROUNDED = 5e-7


def foreign_neuron(name: str, node: nir.NIRNode, values: NeuronValues, rule: StepRule) -> Neuron:
    """One step of a node that mpsl did not write.

    Args:
        name: of the node. values: its arrays. rule: how it steps.

    Raises:
        ModelError: tau ≤ 0, or below a step of Euler's; several spikes a step of a threshold ≤ 0;
            numbers that float32 does not hold.
    """
    if isinstance(node, nir.Threshold):
        threshold = _fires_at(values["threshold"], rule)
        return neuron_with(name, values, kind="threshold", threshold=threshold)
    fires = isinstance(node, nir.LIF | nir.IF | nir.CubaLIF)
    kind: Literal["spiking", "integrating"] = "spiking" if fires else "integrating"
    return neuron_with(
        name,
        values,
        kind=kind,
        initial=_start(node, values, rule),
        **_membrane(node, values, rule),
        **_firing(values, rule) if fires else {"threshold": math.inf},
    )


def _fires_at(threshold: Array, rule: StepRule) -> Array:
    return above(threshold) if rule.fires == ">" else threshold


def _firing(values: NeuronValues, rule: StepRule) -> dict[str, Any]:
    """When it fires, and what a spike does."""
    threshold, many = values["v_threshold"], rule.spikes == "many"
    if many and not (threshold > 0).all():
        raise ModelError(
            "neurons that fire several times a step need a threshold",
            got=threshold.min(),
            expected="v_threshold > 0",
            where=values.where,
        )
    subtracts = many or rule.reset in ("subtract", "subtract-undecayed")
    return {
        "threshold": _fires_at(threshold, rule),
        "reset": rule.reset,
        "reset_value": values["v_reset"],
        # Of a v that fires above its threshold, what is subtracted is the threshold itself.
        "drop": threshold if subtracts and rule.fires == ">" else None,
        "many": many,
    }


def _membrane(node: nir.NIRNode, values: NeuronValues, rule: StepRule) -> dict[str, Any]:
    """How v and J go on from step to step."""
    if isinstance(node, nir.IF | nir.I):
        return {"decay": 1.0, "gain": _whole(rule.dt_s * values["r"])}
    synapse: dict[str, Numbers] = {}
    has_synapse = isinstance(node, nir.CubaLIF | nir.CubaLI)
    if has_synapse:
        decay, rate = _leak(values, "tau_syn", rule)
        counts = 1.0 if rule.synapse == "sum" else rate
        synapse = {"synaptic_decay": decay, "synaptic_gain": _whole(counts * values["w_in"])}
    decay, rate = _leak(values, "tau_mem" if has_synapse else "tau", rule)
    as_it_is = rule.leak == "exact" and rule.norm_input == "no"
    return {
        "decay": decay,
        "gain": _whole(values["r"] * (1.0 if as_it_is else rate)),
        "leak": (1 - decay) * values["v_leak"],
        **synapse,
    }


def _leak(values: NeuronValues, key: str, rule: StepRule) -> tuple[Array, Array]:
    """What is left of v after a step, and what of its input is added."""
    if rule.leak == "exact":
        decay = values.decay(key, rule.dt_s)
        return decay, 1 - decay
    rate = values.leak_rate(key, rule.dt_s)
    return 1 - rate, rate


def _start(node: nir.NIRNode, values: NeuronValues, rule: StepRule) -> Array | None:
    if rule.start == "reset" and hasattr(node, "v_reset"):
        return values["v_reset"]
    return values["v_leak"] if rule.start != "zero" and hasattr(node, "v_leak") else None


def _whole(factor: Array) -> Array:
    """The factor; 1 where it is that but for rounding."""
    return np.where(np.abs(factor - 1) <= _ROUNDED, 1.0, factor)
