"""The text of model.h and model.c: what a program's parts are put into."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from mpsl_export.write.c.lower import score_type
from mpsl_export.write.c.program import Member, Program
from mpsl_export.write.c.signals import POOLS, index_type
from mpsl_export.write.c.text import comment, fill, number, quoted
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Neuron

__all__ = ["header_text", "layout_of", "model_text", "read_metadata", "state_bytes"]

_BYTES_OF = {
    "float": 4, "int32_t": 4, "uint32_t": 4, "int16_t": 2, "uint16_t": 2, "int8_t": 1, "uint8_t": 1,
}  # fmt: skip
_METADATA = re.compile(r"^ \* (\".*\": .*)$", re.MULTILINE)


def state_bytes(program: Program) -> int:
    """Of the state: what a model takes of RAM, its stack aside."""
    pools = program.scratch.lay_out()
    members = {member: ctype for ctype, member in POOLS}
    widths = [(_BYTES_OF[m.ctype], m.count or 1) for m in program.members]
    inner = [(_BYTES_OF[members[name]], count) for name, count in pools.items()]
    scratch = _struct(inner)
    largest = max((width for width, _ in inner), default=1)
    total = sum(width * count for width, count in widths) + 4 * bool(program.horizon)
    # The widest come first: nothing is padded but before the scratch area, and at the end.
    total = -(-total // largest) * largest + scratch
    alignment = max([largest, *(width for width, _ in widths), 4 * bool(program.horizon)])
    return -(-total // alignment) * alignment


def _struct(fields: list[tuple[int, int]]) -> int:
    total = sum(width * count for width, count in fields)
    alignment = max((width for width, _ in fields), default=1)
    return -(-total // alignment) * alignment


def header_text(program: Program, title: str, more: dict[str, Any]) -> str:
    """model.h.

    Args:
        title: a line on what it is. more: metadata besides that of the plan.
    """
    plan, metadata = program.plan, program.plan.metadata
    pools = program.scratch.lay_out()
    ctypes = {member: ctype for ctype, member in POOLS}
    inputs = math.prod(plan.input_shape)
    score = score_type(plan, program)
    steps, step_us = "", ""
    if metadata is not None:
        steps = f"#define {program.prefix.upper()}_STEPS {metadata.steps}u /* of one sample */"
        if metadata.input_kind == "events":
            step_us = f"#define {program.prefix.upper()}_STEP_US {metadata.step_us}u"
    bound = _bound(program)
    bad = "an event is outside the input" + (f", or an input is beyond {bound}" if bound else "")
    bad = bad if program.is_int8 else "an event is outside the input, or no finite number"
    horizon = f"{program.horizon} steps are over: membranes are proven for as many after a reset"
    return fill(
        "model.h",
        title=comment(title),
        about="\n * ".join(textwrap.wrap(_about(program), 96)),
        state_bytes=f"{state_bytes(program):,}",
        metadata="\n".join(_metadata_lines(metadata, more)),
        prefix=program.prefix,
        PREFIX=program.prefix.upper(),
        inputs=inputs,
        input_shape=" x ".join(map(str, plan.input_shape)),
        classes=math.prod(plan.output_shape),
        steps=steps,
        step_us=step_us,
        event_about=_event_about(program),
        event_at=index_type(inputs),
        event_value=program.signals[-1].ctype,
        score=score,
        score_about=_score_about(program),
        members="\n".join(_members(program)),
        pools="\n".join(f"{ctypes[name]} {name}[{count}];" for name, count in pools.items()),
        bad_event=bad,
        reset_first=horizon if program.horizon else "not used: steps may go on without end",
        camera=_camera(program, metadata),
    )


def model_text(program: Program, title: str) -> str:
    """model.c."""
    plan, prefix = program.plan, program.prefix
    program.scratch.lay_out()
    uses_float = any("float" in part for part in program.parts)
    horizon = counted = ""
    if program.horizon:
        horizon = f"if (state->steps >= {program.horizon}u) return {prefix.upper()}_RESET_FIRST;"
        counted = "state->steps++;"
    return fill(
        "model.c",
        title=comment(title),
        float_guard=fill("float_guard.c") if uses_float else "",
        prefix=prefix,
        PREFIX=prefix.upper(),
        state_bytes=state_bytes(program),
        class_names=", ".join(quoted(name) for name in plan.class_names),
        parts="".join(program.parts),
        input_type=program.signals[-1].ctype,
        accumulate="\n".join(_accumulate(program)),
        resets="\n".join(program.resets),
        pointers="\n".join(program.scratch.pointers()),
        horizon=horizon,
        counted=counted,
        body="\n".join(program.body),
    )


def read_metadata(header: str) -> dict[str, Any]:
    """What the metadata lines of a model.h say; of other text nothing."""
    found: dict[str, Any] = {}
    for line in _METADATA.findall(header[: 1 << 18]):
        try:
            found |= json.loads("{" + line.rstrip(",") + "}")
        except (ValueError, RecursionError):
            continue
    return found


def _metadata_lines(metadata: ModelMetadata | None, more: dict[str, Any]) -> Iterator[str]:
    values = {**(metadata.to_mapping() if metadata is not None else {}), **more}
    for key, value in values.items():
        text = f"{json.dumps(key)}: {json.dumps(value)}"
        # JSON may say any character by its number: no text of a stranger ends the comment.
        for special in ("/", "?"):
            text = text.replace(special, f"\\u{ord(special):04x}")
        yield f" * {text}"


def _about(program: Program) -> str:
    plan = program.plan
    populations = sum(isinstance(node, Neuron) for node in plan.nodes)
    weights = "int8 weights, whole sums" if program.is_int8 else "float32"
    text = f"{populations} populations, {weights}. Work follows spikes: an input that is 0 costs "
    text += "nothing but the look at it."
    if program.horizon:
        text += f" Reset at least every {program.horizon} steps."
    return text


def _bound(program: Program) -> int:
    metadata = program.plan.metadata
    return metadata.input_max if program.is_int8 and metadata is not None else 0


def _event_about(program: Program) -> str:
    shape = program.plan.input_shape
    if len(shape) == 3:
        _, rows, columns = shape
        where = f"`at` is (channel * {rows} + row) * {columns} + column"
    else:
        where = "`at` is its index"
    metadata = program.plan.metadata
    if metadata is None or not program.is_int8:
        return f"{where}."
    if metadata.input_kind == "events":
        once = ", at most 1: an input counts once a step" if metadata.coding == "binary" else ""
        return f"{where}, `value` a number of events{once}."
    return f"{where}, `value` in units of {metadata.input_grid:g}."


def _score_about(program: Program) -> str:
    if program.plan.readout == "membrane":
        return "A score is the membrane potential of an output neuron."
    return "A score counts the spikes of an output neuron since the reset."


def _members(program: Program) -> Iterator[str]:
    members: list[Member] = sorted(program.members, key=lambda m: -_BYTES_OF[m.ctype])
    if program.horizon:
        yield "uint32_t steps; /* since the reset */"
    for member in members:
        size = f"[{member.count}]" if member.count else ""
        yield f"{member.ctype} {member.name}{size}; /* {member.note} */"


def _accumulate(program: Program) -> Iterator[str]:
    ctype, PREFIX = program.signals[-1].ctype, program.prefix.upper()
    metadata = program.plan.metadata
    bad = f"return {PREFIX}_BAD_EVENT;"
    binary = metadata is not None and metadata.coding == "binary"
    binary = binary and metadata is not None and metadata.input_kind == "events"
    if ctype == "float":
        yield "const float value = events[k].value;"
        yield f"if (!(value - value == 0.0f)) {bad}"
        if metadata is not None and is_int8(program.plan):
            # The sums are proven exact for inputs on their grid, up to their bound, and no others.
            largest, grid = metadata.input_max, metadata.input_grid
            limit, fine = number(largest * grid), number(1 / grid)
            yield f"if (!(value <= {limit} && value >= -{limit})) {bad}"
            yield f"if ((float)(int32_t)(value * {fine}) != value * {fine}) {bad}"
            yield "in[s] = value;" if binary else "in[s] += value;"
            yield f"if (in[s] > {limit} || in[s] < -{limit}) {bad}"
            return
        yield "in[s] = value; /* once a step */" if binary else "in[s] += value;"
        return
    bound = _bound(program)
    signed = ctype.startswith("int")
    yield "const int32_t value = events[k].value;"
    yield f"if (value > {bound}{f' || value < -{bound}' if signed else ''}) {bad}"
    if binary:
        yield f"in[s] = ({ctype})value; /* once a step */"
        return
    yield "const int32_t sum = in[s] + value;"
    yield f"if (sum > {bound}{f' || sum < -{bound}' if signed else ''}) {bad}"
    yield f"in[s] = ({ctype})sum;" if ctype != "int32_t" else "in[s] = sum;"


def _camera(program: Program, metadata: ModelMetadata | None) -> str:
    if metadata is None or metadata.input_kind != "events":
        return ""
    binning = metadata.binning
    left, top, _, _ = binning.window
    lines = []
    if left or top:
        lines.append(f"x -= {left}u, y -= {top}u; /* beyond 0 it is large, and falls out below */")
    if binning.downsample > 1:
        lines.append(f"x /= {binning.downsample}u, y /= {binning.downsample}u;")
    _, rows, columns = binning.shape
    return fill(
        "camera.c",
        prefix=program.prefix,
        width=binning.sensor_width,
        height=binning.sensor_height,
        step_us=binning.step_us,
        rows=rows,
        columns=columns,
        at=index_type(math.prod(program.plan.input_shape)),
        crop="\n".join(lines),
    )


def layout_of(program: Program) -> dict[str, Any]:
    """What a program that looks inside needs to know: shapes, units, and how populations lie."""
    plan, metadata = program.plan, program.plan.metadata
    unit = metadata.input_grid if program.is_int8 and metadata is not None else 1.0
    populations = []
    for index, node in enumerate(plan.nodes):
        if not isinstance(node, Neuron) or node.kind == "integrating":
            continue
        quantum = 1.0
        if program.is_int8:
            membrane = program.membranes.get(index)
            quantum = program.grids[plan.nodes[index - 1].name].current_quantum
            quantum /= 1 << membrane.places if membrane is not None else 1
        signal = program.signals[index]
        populations.append([node.name, signal.size, signal.image, quantum])
    return {
        "prefix": program.prefix,
        "input_shape": plan.input_shape,
        "output_shape": plan.output_shape,
        "input_unit": unit,
        "event": [index_type(math.prod(plan.input_shape)), program.signals[-1].ctype],
        "populations": populations,
        "output": program.signals[program.end - 1].kind,
    }
