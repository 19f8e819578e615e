"""Sums over sources, scales, delays and what later steps see, as C: one number for each neuron."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpsl_export.write.c.program import Program
from mpsl_export.write.c.signals import Signal, index_type
from mpsl_export.write.c.text import comment, fill
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Pooling,
    Scaling,
    Shape,
    Sum,
)

__all__ = ["add_delay", "add_scaling", "gathered", "keep_late", "open_late"]


def gathered(program: Program, index: int, node: Node, sources: Sequence[Signal]) -> Signal:
    """What a node sees, in a form that it reads: its only source, or else the sum of all, in their
    order, as an array."""
    takes_spikes = isinstance(node, Convolution | Dense | Pooling | Flatten | Sum)
    images = node.input_shape if isinstance(node, Convolution | Pooling) else None
    first = sources[0]
    fits = images is None or first.image in (None, images)
    if len(sources) == 1 and fits and (takes_spikes or first.kind == "values"):
        return first
    image = first.image if fits else None
    out = program.array_of_values(index, "float", first.size, image, "_sum")
    arguments, lines, passed = [], [], []
    for number, source in enumerate(sources):
        at = _place("s", source, image)
        if source.kind == "spikes":
            arguments += [f"const {source.ctype} *in{number}", f"int32_t n{number}"]
            passed += [source.pointer, source.count]
            cast = "(int32_t)" if source.ctype == "uint32_t" else ""
            lines += [
                f"for (int32_t k = 0; k < n{number}; k++) {{",
                f"    const int32_t s = {cast}in{number}[k];",
                f"    out[{at}] += 1.0f;",
                "}",
            ]
        else:
            arguments.append(f"const float *in{number}")
            passed.append(source.pointer)
            lines += [
                f"for (int32_t s = 0; s < {source.size}; s++)",
                f"    out[{at}] += in{number}[s];",
            ]
    name = program.function(index, "_sum")
    about = f"What {comment(node.name)} sees: the sum of its sources."
    program.parts.append(
        fill(
            "gather.c",
            about=about,
            name=name,
            arguments=", ".join(arguments),
            size=first.size,
            lines="\n".join(lines),
        )
    )
    program.body.append(f"{name}({', '.join([*passed, out.pointer])});")
    return out


def _place(s: str, source: Signal, image: Shape | None) -> str:
    """Where element `s` of a source belongs in an array that lies as `image` says."""
    if source.image == image:
        return s
    if source.image is not None:
        channels, rows, columns = source.image
        s = f"({s} % {channels} * {rows * columns} + {s} / {channels})"
    if image is not None:
        channels, rows, columns = image
        s = f"{s} % {rows * columns} * {channels} + {s} / {rows * columns}"
    return s


def add_scaling(program: Program, index: int, node: Scaling, source: Signal) -> Signal:
    """Writes y = scale · x."""
    out = program.array_of_values(index, "float", source.size, source.image)
    name = program.function(index)
    scale = program.parameter(f"{name}_scale", source.ordered(node.scale), source.image)
    loop = _loop(f"out[i] = {scale} * in[i];", source, scale)
    about = comment(node.name)
    program.parts.append(fill("scaling.c", about=about, name=name, loop=loop))
    program.body.append(f"{name}({source.pointer}, {out.pointer});")
    return out


def add_delay(program: Program, index: int, node: Delay, source: Signal) -> Signal:
    """Writes a ring of the last steps; a delay of 0 is nothing."""
    longest, size = int(node.steps.max()), source.size
    if not longest:
        return source
    name, local = program.function(index), program.local(index)
    program.member("float", f"{local}_ring", longest * size, f"the last {longest} inputs")
    program.member("int32_t", f"{local}_now", 0, "the oldest of them")
    steps = np.broadcast_to(node.steps, node.input_shape)
    # How far from the oldest: a delay by the whole ring is that one.
    ago = program.parameter(f"{name}_steps", source.ordered(steps), source.image)
    before = f"state->{local}_ring[(now + {longest} - {ago}) % {longest} * {size} + i]"
    value = f"{ago} == 0 ? in[i] : {before}"
    if (steps > 0).all():
        value = before
    out = program.array_of_values(index, "float", size, source.image)
    lines = f"out[i] = {value};\nstate->{local}_ring[now * {size} + i] = in[i];"
    loop = _loop(f"{{\n    {lines.replace(chr(10), chr(10) + '    ')}\n}}", source, ago)
    program.parts.append(
        fill(
            "delay.c",
            about=f"{comment(node.name)}: a delay by up to {longest} steps.",
            name=name,
            local=local,
            prefix=program.prefix,
            longest=longest,
            loop=loop,
        )
    )
    program.body.append(f"{name}(state, {source.pointer}, {out.pointer});")
    return out


def _loop(line: str, source: Signal, parameter: str) -> str:
    """A loop over all neurons, `c` the channel where a parameter needs it."""
    if "[c]" not in parameter or source.image is None:
        block = line.replace("\n", "\n    ") if not line.startswith("{") else line
        return f"for (int32_t i = 0; i < {source.size}; i++) {block}"
    channels = source.image[0]
    places = source.size // channels
    block = line.replace("\n", "\n    ")
    return (
        f"for (int32_t at = 0, i = 0; at < {places}; at++)\n"
        f"    for (int32_t c = 0; c < {channels}; c++, i++) {block}"
    )


def open_late(program: Program) -> None:
    """Room in the state for what later steps see of a step: spikes of neurons as a list, anything
    else as an array, in NIR's order."""
    plan = program.plan
    for index in plan.late:
        node = plan.nodes[index] if index >= 0 else None
        size = math.prod(plan.input_shape if node is None else node.output_shape)
        name = f"late_{program.local(index)}"
        if isinstance(node, Neuron) and node.is_binary:
            ctype, note = index_type(size), "who fired in the step before"
            pointer = program.member(ctype, name, size, note)
            count = program.member("int32_t", f"{name}_n", 0, "how many")
            program.late[index] = Signal("spikes", ctype, pointer, size, count=count)
        else:
            pointer = program.member("float", name, size, "of the step before")
            program.late[index] = Signal("values", "float", pointer, size)


def keep_late(program: Program) -> None:
    """At the end of a step: what the next one sees of it."""
    for index, kept in program.late.items():
        signal = program.use(program.signals[index], program.end)
        at = _place("s", signal, None)
        if kept.kind == "spikes":
            cast = "(int32_t)" if signal.ctype == "uint32_t" else ""
            program.body += [
                f"for (int32_t k = 0; k < {signal.count}; k++) {{",
                f"    const int32_t s = {cast}{signal.pointer}[k];",
                f"    {kept.pointer}[k] = ({kept.ctype})({at});",
                "}",
                f"{kept.count} = {signal.count};",
            ]
        elif signal.kind == "spikes":
            cast = "(int32_t)" if signal.ctype == "uint32_t" else ""
            program.body += [
                f"memset({kept.pointer}, 0, sizeof {kept.pointer});",
                f"for (int32_t k = 0; k < {signal.count}; k++) {{",
                f"    const int32_t s = {cast}{signal.pointer}[k];",
                f"    {kept.pointer}[{at}] = 1.0f;",
                "}",
            ]
        else:
            program.body += [
                f"for (int32_t s = 0; s < {signal.size}; s++)",
                f"    {kept.pointer}[{at}] = {signal.pointer}[s];",
            ]
