"""What NIR cannot say of a step, as each framework fills it in: one small record a framework.

NIR has no step, no soft reset and no start, so one file is another network in each program. A
`Dialect` is how one of them steps; a `StepRule` is that for one population, kept as metadata of its
node. Sources, each read and run: nir 1.0.8 and the NIR paper's reference; snntorch 1.0.0
`export_nir`, `_neurons`; norse 1.1.0 `export_nir`, `functional.lif_box`; spikingjelly 2.0.0
`nir_exchange`, `neuron`; sinabs 3.1.3 `nir`, `activation`, `layers.functional`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import nir

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.typed_metadata import read_fields

__all__ = [
    "DIALECTS",
    "Dialect",
    "Fires",
    "Leak",
    "ResetRule",
    "Spikes",
    "Start",
    "StepRule",
]

Fires = Literal[">", ">="]
ResetRule = Literal["value", "subtract", "subtract-undecayed", "lost"]
Start = Literal["leak", "zero", "reset"]
Spikes = Literal["one", "many"]
Leak = Literal["euler", "exact"]
Norm = Literal["yes", "no"]
Synapse = Literal["filter", "sum"]


@dataclass(frozen=True)
class StepRule:
    """How one population steps; metadata of its node.

    Attributes:
        dialect: the framework that the rest was taken from, for people.
        dt_s: seconds that one step stands for.
        fires: on v > v_threshold, or on v ≥ v_threshold.
        reset: see `mpsl_runtime.model.plan.Neuron`; what is subtracted is v_threshold.
        start: of v, `leak` is v_leak (0 where a node has none), `reset` is v_reset.
        spikes: `one` a step, or `many`: floor(v/v_threshold).
        leak: `euler`, 1 − dt/tau, or `exact`, exp(−dt/tau).
        norm_input: of `exact`: the input is multiplied by 1 − exp(−dt/tau), as by dt/tau of Euler;
            else it is taken as it is.
        synapse: of a CubaLIF, J is its input filtered, as NIR has it, or the `sum` of its inputs,
            each decaying from then on: J = decay·J + w_in·I.
    """

    dialect: str
    dt_s: float
    fires: Fires
    reset: ResetRule
    start: Start
    spikes: Spikes
    leak: Leak
    norm_input: Norm
    synapse: Synapse

    @classmethod
    def nir(cls, dt_s: float) -> StepRule:
        """NIR's own equations by forward Euler: what holds where nothing is said."""
        return cls("nir", dt_s, ">", "value", "leak", "one", "euler", "yes", "filter")

    @classmethod
    def of(cls, metadata: object, where: str) -> StepRule | None:
        """What a node's metadata says; None where it says nothing of this.

        Raises:
            ModelError: a key is missing, or its value is not known.
        """
        if not isinstance(metadata, Mapping) or "dialect" not in metadata:
            return None
        rule: StepRule = read_fields(cls, metadata, where)
        if not 0 < rule.dt_s < math.inf:
            raise ModelError("metadata 'dt_s' is out of range", got=rule.dt_s, where=where)
        return rule

    def to_mapping(self) -> dict[str, Any]:
        """The metadata of a node."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Dialect:
    """How a framework steps what its exporter writes.

    Attributes:
        name: on the command line.
        dt_s: seconds of a step in its files; None: to be asked for. dt_if_s: of its IF and I,
            where that is another: r is then what an input adds in one step.
        reset: its default. soft: its own reset by subtraction. hard: its own reset to a value, and
            hard_late that of its CubaLIF and of a LIF that sees its own spikes.
        fires, start, spikes, leak, norm_input, synapse: see `StepRule`. norm_input_li: of a
            population that does not fire.
    """

    name: str
    dt_s: float | None
    fires: Fires
    reset: Literal["soft", "hard"]
    start: Start
    spikes: Spikes = "one"
    leak: Leak = "euler"
    norm_input: Norm = "yes"
    norm_input_li: Norm = "yes"
    synapse: Synapse = "filter"
    dt_if_s: float | None = None
    soft: ResetRule = "subtract"
    hard_late: ResetRule = "value"

    def resets(self, word: ResetRule | None, node: nir.NIRNode, *, sees_itself: bool) -> ResetRule:
        """What a spike of this node does.

        Args:
            word: asked for; `subtract` and `value` are the framework's own ways to do so.
            sees_itself: its own spikes come back to it.
        """
        asked = word or ("subtract" if self.reset == "soft" else "value")
        if asked == "subtract":
            return self.soft
        if asked == "value" and (sees_itself or isinstance(node, nir.CubaLIF)):
            return self.hard_late
        return asked

    def norm_of(self, node: nir.NIRNode) -> Norm:
        """Whether the input of this node is normed by its leak."""
        return self.norm_input_li if isinstance(node, nir.LI) else self.norm_input

    def step_s(self, node: nir.NIRNode, dt_s: float) -> float:
        """Seconds of a step of this node, where one of others is `dt_s`."""
        counts_steps = self.dt_if_s is not None and isinstance(node, nir.IF | nir.I)
        return self.dt_if_s if counts_steps and self.dt_if_s is not None else dt_s


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        # The paper's own meaning of its equations, by forward Euler.
        Dialect("nir", None, ">", "hard", "leak"),
        # θ is taken off in the step after the spike, and has not decayed by then; `zero` of
        # Synaptic, RSynaptic and RLeaky loses the current of that step.
        Dialect("snntorch", 1e-4, ">", "soft", "zero", soft="subtract-undecayed", hard_late="lost"),
        # Its exporter writes dt·tau for tau: with dt = 1 ms the step is dt². Its IF adds its input,
        # and so does the synapse of its LIFCell, which becomes a CubaLIF.
        Dialect("norse", 1e-6, ">", "hard", "leak", synapse="sum", dt_if_s=1.0),
        Dialect("spikingjelly", 1e-4, ">=", "hard", "reset"),
        # tau counts steps. Its ExpLeak takes the input as it is, its LIF norms it.
        Dialect(
            "sinabs", 1.0, ">=", "soft", "zero", "many", "exact", dt_if_s=1.0, norm_input_li="no"
        ),
        # A file that mpsl wrote and that has lost its metadata.
        Dialect("mpsl", 1e-4, ">=", "soft", "zero"),
    )
}
