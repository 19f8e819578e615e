"""The probe of a model: a made input, and the SHA-256 of what the reference gives on it; as C."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.program import Program
from mpsl_export.write.c.text import array, comment, fill, number
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

__all__ = ["Probe", "events_text", "probe_of", "probe_text"]

_STEPS = 8
_DENSITY = 0.1


@dataclass(frozen=True, eq=False)
class Probe:
    """An input and what must come out of it.

    Attributes:
        frames: float32 [T, *input_shape]. digest: of the output, hexadecimal.
        spikes: the output is spikes, and a byte of it each; else of each step the class that leads.
    """

    frames: NDArray[np.float32]
    digest: str
    spikes: bool


def probe_of(plan: Plan) -> Probe:
    """The probe of a plan: a tenth of the input is active in each step."""
    random = np.random.default_rng(0)
    metadata = plan.metadata
    steps = _STEPS if metadata is None else min(_STEPS, metadata.steps)
    frames = (random.random((steps, *plan.input_shape)) < _DENSITY).astype(np.float32)
    if metadata is not None and is_int8(plan):
        frames *= np.float32(min(1.0, metadata.input_max * metadata.input_grid))
    last = plan.output_neuron
    spikes = plan.readout == "count" and last is not None and last.is_binary
    reference = Reference(plan)
    given = []
    for frame in frames:
        output = reference.step(frame)
        given.append(output if spikes else np.argmax(reference.membrane))
    return Probe(frames, hashlib.sha256(np.array(given, np.uint8).tobytes()).hexdigest(), spikes)


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
    prefix = program.prefix
    digested = "for (uint32_t k = 0; k < {0}_CLASSES; k++) add((uint8_t)(scores[k] - before[k]));"
    if not probe.spikes:
        digested = f"add((uint8_t){prefix}_label(scores));"
    return fill(
        "probe.c",
        **events_text(program, probe.frames),
        title=comment(title),
        digest_of="output spikes, a byte each" if probe.spikes else "the label of every step",
        digest=probe.digest,
        prefix=prefix,
        PREFIX=prefix.upper(),
        steps=len(probe.frames),
        digested=digested.format(prefix.upper()),
    )
