"""A plan in, its program out: the walk over the nodes, what comes in and what goes out."""

from __future__ import annotations

import math

from mpsl_export.write.c.elementwise import (
    add_delay,
    add_scaling,
    gathered,
    keep_late,
    open_late,
)
from mpsl_export.write.c.layers import add_pool, add_weights
from mpsl_export.write.c.neurons import add_neurons
from mpsl_export.write.c.program import Program
from mpsl_export.write.c.signals import Signal
from mpsl_export.write.c.text import comment, number, type_of
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Sum,
)

__all__ = ["lowered"]

_LARGEST = 1 << 28
"""Elements of one array: what is counted in int32_t, with room for a sum of two."""


def lowered(plan: Plan, prefix: str) -> Program:
    """The program of a plan.

    Raises:
        ModelError: a node that cannot be said in C; it is named.
    """
    program = Program.of(plan, prefix)
    _check_sizes(plan)
    _open_input(program)
    open_late(program)
    for index, node in enumerate(plan.nodes):
        program.body.append(f"/* {comment(node.name)} */")
        sources = [
            program.use(program.late[i] if delayed else program.signals[i], index)
            for i, delayed in plan.wiring[index]
        ]
        seen = gathered(program, index, node, sources)
        program.signals[index] = _add(program, index, node, program.use(seen, index))
        if program.body[-1].startswith("/*"):
            program.body.pop()
    keep_late(program)
    _add_scores(program)
    return program


def _add(program: Program, index: int, node: Node, seen: Signal) -> Signal:
    if isinstance(node, Convolution | Dense):
        return add_weights(program, index, node, seen)
    if isinstance(node, Pooling):
        return add_pool(program, index, node, seen, _largest(program, index))
    if isinstance(node, Neuron):
        return add_neurons(program, index, node, seen)
    if isinstance(node, Scaling):
        return add_scaling(program, index, node, seen)
    if isinstance(node, Delay):
        return add_delay(program, index, node, seen)
    if isinstance(node, Flatten | Sum):
        return seen
    raise program.error("node has no form in C", node)


def _check_sizes(plan: Plan) -> None:
    for node in plan.nodes:
        size = math.prod(node.output_shape)
        if isinstance(node, Delay):
            size *= int(node.steps.max()) + 1
        if isinstance(node, Convolution | Dense):
            size = max(size, node.weight.size)
        if size > _LARGEST:
            raise ModelError(
                "node is too large for C",
                got=f"{size:,} numbers",
                expected=f"≤ {_LARGEST:,}",
                where=f"node {node.name!r} of {plan.source}",
            )


def _largest(program: Program, index: int) -> int:
    """The largest |sum| of a pool of an int8 plan."""
    metadata = program.plan.metadata
    if metadata is None or not program.is_int8:
        return 0
    largest = metadata.input_max
    for node in program.plan.nodes[: index + 1]:
        if isinstance(node, Neuron):
            largest = 1
        elif isinstance(node, Pooling):
            largest *= math.prod(node.kernel)
    return largest


def _open_input(program: Program) -> None:
    plan, metadata = program.plan, program.plan.metadata
    ctype = "float"
    if program.is_int8 and metadata is not None:
        low = 0 if metadata.input_kind == "events" else -metadata.input_max
        ctype = type_of(low, metadata.input_max)
    program.scratch.take("input", ctype, math.prod(plan.input_shape), -1)
    size = math.prod(plan.input_shape)
    program.signals[-1] = Signal(
        "values" if program.event_reader() is None else "events", ctype, "input", size
    )


def _add_scores(program: Program) -> None:
    """The scores: spikes since the reset, or the membranes, in NIR's order."""
    plan, last = program.plan, program.end - 1
    signal, size = program.signals[last], math.prod(plan.output_shape)
    program.use(signal, program.end)
    neuron = plan.output_neuron
    program.body.append("/* the scores */")
    at = "s"
    if signal.image is not None:
        channels, rows, columns = signal.image
        at = f"s % {channels} * {rows * columns} + s / {channels}"
    cast = "(int32_t)" if signal.ctype == "uint32_t" else ""
    if plan.readout == "count":
        ctype = "int32_t" if signal.kind == "spikes" else "float"
        counts = program.member(ctype, "counts", size, "the scores since the reset")
        if signal.kind == "spikes":
            program.body += [
                f"for (int32_t k = 0; k < {signal.count}; k++) {{",
                f"    const int32_t s = {cast}{signal.pointer}[k];",
                f"    {counts}[{at}]++;",
                "}",
            ]
        else:
            program.body += [
                f"for (int32_t s = 0; s < {size}; s++)",
                f"    {counts}[{at}] += {signal.pointer}[s];",
            ]
        program.body.append(f"memcpy(scores, {counts}, sizeof {counts});")
        return
    if neuron is not None and neuron.kind == "threshold":
        raise program.error("a Threshold has no membrane to be read out", neuron)
    pointer, scale = signal.pointer, ""
    index = _index_of(plan, neuron)
    if neuron is not None and neuron.kind == "spiking":
        pointer = f"state->{program.local(index)}_U"
        if signal.kind == "spikes":
            program.body.append(f"(void){signal.count};")
    if neuron is not None and program.is_int8:
        quantum = program.grids[plan.nodes[index - 1].name].current_quantum
        membrane = program.membranes.get(index)
        unit = quantum / (1 << membrane.places) if membrane is not None else quantum
        scale = "" if unit == 1 else f" * {number(unit)}"
    program.body += [
        f"for (int32_t s = 0; s < {size}; s++)",
        f"    scores[{at}] = (float){pointer}[s]{scale};",
    ]


def _index_of(plan: Plan, neuron: Neuron | None) -> int:
    return next((i for i, node in enumerate(plan.nodes) if node is neuron), -1)


def score_type(plan: Plan, program: Program) -> str:
    """Of one score."""
    is_count = plan.readout == "count" and program.signals[program.end - 1].kind == "spikes"
    return "int32_t" if is_count else "float"
