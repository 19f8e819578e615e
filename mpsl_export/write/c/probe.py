"""The probe of a model as C: the input of `mpsl_runtime.run.probe`, and the digest it must give.

probe.c holds a copy of the model that shows what every neuron did, so that its digest is that of
all populations: the same as in the model's other files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.program import Program
from mpsl_export.write.c.text import array, comment, fill, number
from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.run.probe import Probe
from mpsl_runtime.run.probe_search import answered, find_probe

__all__ = ["events_text", "probe_of", "probe_text"]

# Where every input that is tried has a tie at once.
_NOTHING = Probe(probe_seed=1, probe_steps=1, probe_density=1, probe_amplitude=1, probe_window=1)


def probe_of(plan: Plan, metadata: Mapping[str, Any]) -> Probe:
    """The probe of a model: that which its metadata names, or else one that is found."""
    known = Probe.of(metadata, plan.source)
    return known or find_probe(plan) or answered(plan, _NOTHING)


def events_text(program: Program, frames: NDArray[np.float32]) -> dict[str, str]:
    """Frames [T, *input_shape] as the arrays `first` and `events` of a C file."""
    unit = 1.0
    if program.is_int8 and program.plan.metadata is not None:
        unit = program.plan.metadata.input_grid
    rows, first = [], [0]
    for frame in frames.reshape(len(frames), -1):
        active = np.flatnonzero(frame)
        for at, value in zip(active.tolist(), frame[active] / np.float32(unit), strict=True):
            rows.append(f"{{{at}, {number(int(value) if program.is_int8 else value)}}}")
        first.append(len(rows))
    lines = [", ".join(rows[i : i + 6]) for i in range(0, len(rows), 6)] or ["{0, 0}"]
    body = ",\n    ".join(lines)
    return {
        "first": array("uint32_t", "first", np.array(first)),
        "events": f"static const {program.prefix}_event events[{max(len(rows), 1)}] = "
        f"{{\n    {body}\n}};\n",
    }


def probe_text(program: Program, title: str, probe: Probe) -> str:
    """probe.c."""
    prefix, steps = program.prefix, probe.probe_steps
    cases, at = [], 0
    for index, node in enumerate(program.plan.nodes):
        if not isinstance(node, Neuron) or node.kind == "integrating":
            continue
        signal, row = program.signals[index], -(-math.prod(node.output_shape) // 8)
        place = "neuron"
        if signal.image is not None:
            channels, rows, columns = signal.image
            place = f"neuron % {channels} * {rows * columns} + neuron / {channels}"
        cases.append((at, row, place))
        at += row * steps
    begins, lengths = ([case[i] for case in cases] or [0] for i in (0, 1))
    return fill(
        "probe.c",
        **events_text(program, probe.frames(program.plan)),
        title=comment(title),
        digest=probe.probe_sha256,
        prefix=prefix,
        PREFIX=prefix.upper(),
        steps=steps,
        begins=array("uint32_t", "begins", np.array(begins)),
        lengths=array("uint32_t", "lengths", np.array(lengths)),
        bits=max(at, 1),
        places="\n".join(
            f"if (population == {i}) neuron = {place};"
            for i, (_, _, place) in enumerate(cases)
            if place != "neuron"
        ),
        untraced="" if cases else "(void)probe_trace;",
        **_outputs(program, probe),
    )


def _outputs(program: Program, probe: Probe) -> dict[str, str]:
    """Where the output is no spikes, the scores of the last step, within the probe's tolerance."""
    if not probe.probe_outputs or program.plan.readout != "membrane":
        return {"outputs": "", "compared": ""}
    values = probe.outputs.astype(np.float32)
    return {
        "outputs": array("float", "outputs", values),
        "compared": fill("outputs.c", tolerance=number(probe.tolerance)),
    }
