"""A population as C: a function that goes through its neurons; `neuron_step` is that of one."""

from __future__ import annotations

import re

from mpsl_export.write.c.neuron_step import float_step, integer_step, loop_over
from mpsl_export.write.c.program import Program
from mpsl_export.write.c.signals import Signal
from mpsl_export.write.c.text import comment, fill
from mpsl_export.write.c.widths import Membrane
from mpsl_runtime.model.plan import Neuron

__all__ = ["add_neurons"]


def add_neurons(program: Program, index: int, neuron: Neuron, source: Signal) -> Signal:
    """Writes a population whose current is `source`; returns what it hands on."""
    membrane = program.membranes.get(index)
    if membrane is not None:
        step = integer_step(program, index, neuron, source, membrane)
    else:
        step = float_step(program, index, neuron, source)
    text = "\n".join(step.lines)
    inner = {"state": f"{program.prefix}_state *state", "i": "int32_t i", "c": "int32_t c"}
    used = [word for word in inner if re.search(rf"\b{word}\b", text)]
    current = "" if membrane is not None else "I[i]" if source.ctype == "float" else "(float)I[i]"
    name, size = program.function(index), source.size
    call = f"{name}_step({', '.join([*used, current] if current else used)})"
    given = {"state": "state"} if "state" in used else {}
    arguments = [inner["state"]] if given else []
    if current:
        arguments.append(f"const {source.ctype} *I")
        given["I"] = source.pointer
    filled = {
        "about": _about(neuron, source, membrane),
        "equations": "\n *     ".join(step.equations).replace("     \n", "\n"),
        "name": name,
        "returns": step.returns,
        "step_arguments": ", ".join([inner[w] for w in used] + ["float I"] * bool(current)),
        "lines": text,
    }
    if neuron.is_binary:
        out = program.list_of_spikes(index, source, size)
        call = f"if ({call}) spikes[n++] = ({out.ctype})i;"
        arguments.append(f"{out.ctype} *spikes")
        filled |= {"result": "int32_t", "begin": "int32_t n = 0;", "end": "return n;"}
        made = f"const int32_t {out.count} = "
    else:
        filled |= {"result": "void", "begin": "", "end": ""}
        made = ""
        if neuron.kind == "integrating":
            V = f"state->{program.local(index)}_V"
            out = Signal("values", "float", V, size, image=source.image)
            call = f"{call};"
        else:
            out = program.array_of_values(index, "float", size, source.image)
            arguments.append("float *spikes")
            call = f"spikes[i] = {call};"
    filled["loop"] = loop_over(call, size, source, with_c="c" in used)
    program.parts.append(fill("neurons.c", **filled, arguments=", ".join(arguments)))
    passed = [*given.values(), *([out.pointer] if neuron.kind != "integrating" else [])]
    program.body.append(f"{made}{name}({', '.join(passed)});")
    return out


def _about(neuron: Neuron, source: Signal, membrane: Membrane | None) -> str:
    text = f"{comment(neuron.name)}: {source.size} {neuron.kind} neurons"
    if neuron.many:
        text += " that may fire several times in a step"
    if membrane is not None:
        unit = "quanta" if not membrane.places else f"1/{1 << membrane.places} quanta"
        text += f", membranes in {unit}: never beyond {membrane.largest}"
        if membrane.steps:
            text += f" in {membrane.steps} steps"
    return text + "."
