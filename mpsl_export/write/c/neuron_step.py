"""The step of one neuron as C: `mpsl_runtime.model.plan.Neuron`, line by line.

What a neuron does stands here alone; `neurons` calls it for each of a population.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.program import Program
from mpsl_export.write.c.signals import Signal
from mpsl_export.write.c.text import fill, number
from mpsl_export.write.c.widths import Membrane
from mpsl_runtime.model.plan import Neuron

__all__ = ["Step", "float_step", "integer_step", "loop_over"]


@dataclass
class Step:
    """What one neuron does: the lines of C, the equations above them, and the type it returns:
    whether it fired, how often (float), or nothing."""

    lines: list[str]
    equations: list[str]
    returns: str


def loop_over(call: str, size: int, source: Signal, *, with_c: bool) -> str:
    """A loop over all neurons; `c` is the channel."""
    if not with_c:
        return f"for (int32_t i = 0; i < {size}; i++)\n    {call}"
    channels = source.image[0] if source.image is not None else size
    places = size // channels
    return (
        f"for (int32_t at = 0, i = 0; at < {places}; at++)\n"
        f"    for (int32_t c = 0; c < {channels}; c++, i++)\n        {call}"
    )


def _trace(program: Program, neuron: Neuron) -> str:
    names = [each.name for each in program.plan.spiking]
    population = names.index(neuron.name)
    return f"{program.prefix.upper()}_TRACE({population}, i, U, fired);"


def _kept_for_scores(program: Program, index: int, neuron: Neuron) -> str:
    """Where the scores are U of neurons that fire, it is kept besides."""
    plan = program.plan
    if plan.readout != "membrane" or neuron is not plan.output_neuron or neuron.kind != "spiking":
        return ""
    size = int(np.prod(neuron.output_shape))
    membrane = program.membranes.get(index)
    ctype = "float" if membrane is None else membrane.ctype
    U = program.member(ctype, f"{program.local(index)}_U", size, "U of the last step: the scores")
    return f"{U}[i] = {'U' if membrane is None else f'({ctype})U'};"


def integer_step(
    program: Program, index: int, neuron: Neuron, source: Signal, about: Membrane
) -> Step:
    """In whole numbers. The membrane holds ρ·V + b when the weights are added to it: then it is U,
    and afterwards it is made ready for the next step."""
    name = program.local(index)
    V = f"state->{name}_V[i]"
    bias = source.ordered(_bias(program, index).astype(np.int64) << about.places)
    ready = "V" if about.factor else ""
    if about.shift:
        ready = (
            f"V * {about.factor} / {1 << about.shift}"
            if about.factor != 1
            else (f"V / {1 << about.shift}")
        )
    text = ready
    if bias.any() or not ready:
        constant = program.parameter(f"{program.function(index)}_bias", bias, source.image)
        text = f"{ready} + {constant}" if ready else constant
        _start_at(program, index, bias, constant, source)
    decay = number(neuron.decay.flat[0]).removesuffix("f")
    after = f"U - {about.threshold}" if neuron.reset == "subtract" else str(about.reset_value)
    lines = [
        f"const int32_t U = {V};",
        f"const int fired = U >= {about.threshold};",
        _trace(program, neuron),
        _kept_for_scores(program, index, neuron),
        f"const int32_t V = fired ? {after} : U;" if "V" in text else "",
        f"{V} = ({about.ctype})({text});",
        "return fired;",
    ]
    reset = _RESETS[neuron.reset].replace("drop", str(about.threshold))
    equations = [
        f"U = {decay} V + I;  S = [U >= {about.threshold}];  {reset}",
        "",
        f"Between steps it holds {decay} V + b, to which the next spikes add their weights.",
    ]
    return Step([line for line in lines if line], equations, "int")


def _bias(program: Program, index: int) -> NDArray[np.int32]:
    """Of the weights before a population of an int8 plan, for each neuron, in quanta."""
    weighted = program.plan.nodes[index - 1]
    bias = program.grids[weighted.name].bias
    places = int(np.prod(weighted.output_shape[1:]))
    return np.repeat(bias, places)


def _start_at(
    program: Program,
    index: int,
    values: NDArray[Any],
    text: str,
    source: Signal,
) -> None:
    """At a reset every membrane takes a value."""
    if values.any():
        to = f"state->{program.local(index)}_V[i] = {text};"
        program.resets.append(loop_over(to, source.size, source, with_c="[c]" in text))


def float_step(program: Program, index: int, neuron: Neuron, source: Signal) -> Step:
    """In float32, operation by operation as the plan says; of an int8 plan in quanta."""
    neuron = _in_quanta(program, index, neuron)
    values = _Parameters(program, index, neuron, source)
    if neuron.kind == "threshold":
        lines = ["const float U = I;", f"const int fired = U >= {values['threshold']};"]
        result, shown = _spikes(program, neuron, values, "U", "fired", lines)
        lines += [_trace(program, neuron), f"return {result};"]
        equation = f"S = [I >= {values.shown('threshold')}]{shown}"
        return Step(lines, [equation], "float" if neuron.many else "int")
    lines, equations = _current(program, index, neuron, values)
    name = program.local(index)
    V = program.member("float", f"{name}_V", source.size, _NOTES[neuron.resets_late]) + "[i]"
    if neuron.initial is not None:
        _start_at(program, index, source.ordered(neuron.initial), values["initial"], source)
    decay = "" if values["decay"] == "1.0f" else f"{values['decay']} * "
    qualified = "float" if neuron.resets_late else "const float"
    lines.append(f"{qualified} U = {decay}{V} + I;")
    equation = f"U = {values.shown('decay')} V + I"
    if neuron.kind == "integrating":
        return Step([*lines, f"{V} = U;"], [*equations, f"{equation};  V = U"], "void")
    threshold = values["threshold"]
    if neuron.resets_late:
        lines.append(f"const int late = {V} >= {threshold};")
        spikes = "late"
        if neuron.reset == "subtract-undecayed":
            spikes, _ = _spikes(program, neuron, values, V, "late", lines, "F")
        lines.append(f"U = {_after(neuron, values, 'late', spikes)};")
        what = "U = U - F drop" if neuron.reset == "subtract-undecayed" else "U = reset where F"
        equation += f";  F = what it fired in the step before;  {what}"
    lines.append(f"const int fired = U >= {threshold};")
    result, shown = _spikes(program, neuron, values, "U", "fired", lines)
    after = "U" if neuron.resets_late else _after(neuron, values, "fired", result)
    kept = _kept_for_scores(program, index, neuron)
    lines += [_trace(program, neuron), *([kept] if kept else []), f"{V} = {after};"]
    equation += f";  S = [U >= {values.shown('threshold')}]{shown}"
    equation += f";  {_RESETS.get(neuron.reset, 'V = U')}"
    return Step(
        [*lines, f"return {result};"], [*equations, equation], "float" if neuron.many else "int"
    )


_NOTES = {False: "membranes after the reset", True: "membranes before the reset"}
_RESETS = {"subtract": "V = U - S drop", "value": "V = reset where S, else U"}


class _Parameters:
    """A population's arrays as expressions of C, each written once."""

    def __init__(self, program: Program, index: int, neuron: Neuron, source: Signal) -> None:
        self._program, self._name = program, program.function(index)
        self._neuron, self._source = neuron, source
        self._known: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        if key not in self._known:
            values = self._source.ordered(np.asarray(getattr(self._neuron, key)))
            self._known[key] = self._program.parameter(
                f"{self._name}_{key}", values, self._source.image
            )
        return self._known[key]

    @property
    def drop(self) -> str:
        """What one spike takes from U."""
        return self["threshold" if self._neuron.drop is None else "drop"]

    def shown(self, key: str) -> str:
        """For an equation: the number, or the name of what differs between neurons."""
        return key if "[" in self[key] else self[key].removesuffix("f")


def _current(
    program: Program, index: int, neuron: Neuron, values: _Parameters
) -> tuple[list[str], list[str]]:
    """What becomes of a current before it reaches U: lines, and their equations."""
    lines, equations = [], []
    if neuron.synaptic_decay is not None:
        size = int(np.prod(neuron.output_shape))
        J = program.member("float", f"{program.local(index)}_J", size, "synaptic currents") + "[i]"
        lines += [
            f"{J} = {values['synaptic_decay']} * {J} + {values['synaptic_gain']} * I;",
            f"I = {J};",
        ]
        equations.append("J = synaptic_decay J + synaptic_gain I;  I = J")
    if neuron.has_input_map:
        lines.append(f"I = {values['gain']} * I + {values['leak']};")
        equations.append("I = gain I + leak")
    return lines, equations


def _spikes(
    program: Program,
    neuron: Neuron,
    values: _Parameters,
    U: str,
    fired: str,
    lines: list[str],
    name: str = "S",
) -> tuple[str, str]:
    """How often a neuron fires: an expression, whose line is added, and what an equation says."""
    if not neuron.many:
        return fired, ""
    floor = f"{program.prefix}_floor"
    if not any(floor in part for part in program.parts):
        program.parts.append(fill("floor.c", name=floor))
    lines.append(f"const float {name} = {fired} ? {floor}({U} / {values.drop}) : 0.0f;")
    return name, " floor(U / drop)"


def _after(neuron: Neuron, values: _Parameters, fired: str, spikes: str) -> str:
    """What spikes leave of U."""
    if neuron.reset not in ("subtract", "subtract-undecayed"):
        return f"{fired} ? {values['reset_value']} : U"
    if neuron.many:
        return f"U - {spikes} * {values.drop}"
    return f"{fired} ? U - {values.drop} : U"


def _in_quanta(program: Program, index: int, neuron: Neuron) -> Neuron:
    """The same population in units of its current's quantum: a power of two, so that the same
    numbers come out of the same operations."""
    if not program.is_int8:
        return neuron
    quantum = np.float32(program.grids[program.plan.nodes[index - 1].name].current_quantum)
    return replace(
        neuron,
        threshold=neuron.threshold / quantum,
        reset_value=neuron.reset_value / quantum,
        leak=neuron.leak / quantum,
        drop=None if neuron.drop is None else neuron.drop / quantum,
        initial=None if neuron.initial is None else neuron.initial / quantum,
    )
