"""Many plans as C in one program: a compiler call costs more than a small network."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends.c_compiler import Population, populations_of
from mpsl_export.write.c.files import read_metadata
from mpsl_export.write.c.lower import lowered
from mpsl_export.write.to_c import model_files
from mpsl_runtime.model.plan import Plan

Array = NDArray[np.float32]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
CHUNK = 20

PART = """
#define {PREFIX}_TRACE(population, neuron, U, fired) \\
    trace({prefix}_begins[population] + (neuron), (float)(U), fired)
static const long {prefix}_begins[] = {{{begins}}};
#include "{prefix}/model.c"
int run_{prefix}(void)
{{
    {prefix}_state *const state = malloc(sizeof *state);
    {prefix}_event *const events = malloc({PREFIX}_INPUTS * sizeof *events);
    {prefix}_score scores[{PREFIX}_CLASSES];
    const uint32_t steps = number();
    float shown;
    (void){prefix}_begins;
    if (!state || !events) return 2;
    {prefix}_reset(state);
    for (uint32_t t = 0; t < steps; t++) {{
        const uint32_t n = number();
        for (uint32_t k = 0; k < n; k++) {{
            events[k].at = ({at})number();
            events[k].value = ({value})real();
        }}
        if ({prefix}_step(state, events, n, scores) != 0) return 3;
        shows({neurons});
        for (uint32_t k = 0; k < {PREFIX}_CLASSES; k++) {{
            shown = (float)scores[k];
            fwrite(&shown, sizeof shown, 1, stdout);
        }}
    }}
    free(state);
    free(events);
    return 0;
}}
"""
SHARED = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
uint32_t number(void);
float real(void);
void trace(long at, float U, int fired);
void shows(long count);
"""
MAIN = """
#include "shared.h"
static float membranes[{most}];
static unsigned char fires[{most}];
uint32_t number(void)
{{
    uint32_t x = 0;
    if (fread(&x, sizeof x, 1, stdin) != 1) exit(4);
    return x;
}}
float real(void)
{{
    float x = 0;
    if (fread(&x, sizeof x, 1, stdin) != 1) exit(4);
    return x;
}}
void trace(long at, float U, int fired)
{{
    membranes[at] = U;
    fires[at] = (unsigned char)fired;
}}
void shows(long count)
{{
    fwrite(membranes, sizeof *membranes, (size_t)count, stdout);
    fwrite(fires, 1, (size_t)count, stdout);
}}
{declared}
int main(void)
{{
    int code = 0;
    {calls}
    return code;
}}
"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What C gave: scores [T, K], and of each spiking population U and spikes [T, n], in NIR's
    order; and the plan's program as `model.h` describes it."""

    scores: Array
    membranes: list[Array]
    spikes: list[NDArray[np.bool_]]
    layout: dict[str, Any]


class Many:
    """Plans as one program.

    Args:
        folder: for sources; made. tool: the compiler. flags: for it.
    """

    def __init__(self, plans: Sequence[Plan], folder: Path, tool: str, *flags: str) -> None:
        self.plans = list(plans)
        self._layouts: list[dict[str, Any]] = []
        self._program = folder / "program"
        parts = []
        for index, plan in enumerate(self.plans):
            prefix = f"g{index:04d}"
            (folder / prefix).mkdir(parents=True)
            for name, content in model_files(lowered(plan, prefix)).items():
                (folder / prefix / name).write_bytes(content)
            layout = read_metadata((folder / prefix / "model.h").read_text())
            self._layouts.append(layout)
            sizes = [p.size for p in populations_of(layout)]
            begins = np.cumsum([0, *sizes]).tolist()
            at, value = layout["event"]
            parts.append(
                PART.format(
                    prefix=prefix, PREFIX=prefix.upper(), begins=", ".join(map(str, begins)),
                    at=at, value=value, neurons=begins[-1],
                )
            )  # fmt: skip
        most = max(sum(p.size for p in populations_of(layout)) for layout in self._layouts)
        (folder / "shared.h").write_text(SHARED)
        prefixes = [f"g{index:04d}" for index in range(len(self.plans))]
        (folder / "main.c").write_text(
            MAIN.format(
                most=most + 1,
                declared="\n".join(f"int run_{prefix}(void);" for prefix in prefixes),
                calls="\n    ".join(f"if (!code) code = run_{prefix}();" for prefix in prefixes),
            )
        )
        sources = ["main.c"]
        for begin in range(0, len(parts), CHUNK):
            sources.append(f"chunk{begin}.c")
            text = '#include "shared.h"\n' + "".join(parts[begin : begin + CHUNK])
            (folder / sources[-1]).write_text(text)
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda name: _compile(tool, flags, folder, name), sources))
        objects = [str((folder / name).with_suffix(".o")) for name in done]
        subprocess.run([tool, *flags, "-o", str(self._program), *objects], check=True)

    def run(self, frames: Sequence[Array]) -> list[Outcome]:
        """Each plan on its frames [T, *input_shape], from rest."""
        given = b"".join(
            self._encoded(one, layout) for one, layout in zip(frames, self._layouts, strict=True)
        )
        done = subprocess.run([str(self._program)], input=given, capture_output=True, check=False)
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:].decode())
        outcomes, at = [], 0
        for plan, one, layout in zip(self.plans, frames, self._layouts, strict=True):
            populations = populations_of(layout)
            count = sum(p.size for p in populations)
            classes = int(np.prod(plan.output_shape))
            kind = np.dtype(
                [("U", "f4", (count,)), ("fired", "u1", (count,)), ("scores", "f4", (classes,))]
            )
            rows = np.frombuffer(done.stdout, kind, len(one), at)
            at += rows.nbytes
            outcomes.append(_outcome(rows, populations, layout))
        assert at == len(done.stdout)
        return outcomes

    @staticmethod
    def _encoded(frames: Array, layout: dict[str, Any]) -> bytes:
        kind = np.dtype([("at", "u4"), ("value", "f4")])
        content = [struct.pack("=I", len(frames))]
        for frame in frames.reshape(len(frames), -1) / np.float32(layout["input_unit"]):
            active = np.flatnonzero(frame)
            events = np.empty(len(active), kind)
            events["at"], events["value"] = active, frame[active]
            content.append(struct.pack("=I", len(active)) + events.tobytes())
        return b"".join(content)


def _compile(tool: str, flags: Sequence[str], folder: Path, name: str) -> str:
    done = subprocess.run(
        [tool, *STRICT, *flags, "-c", "-o", str((folder / name).with_suffix(".o")), name],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    return name


def _outcome(rows: Any, populations: list[Population], layout: dict[str, Any]) -> Outcome:
    membranes, spikes, at = [], [], 0
    for each in populations:
        part = slice(at, at + each.size)
        at += each.size
        membranes.append(each.in_order(rows["U"][:, part]) * np.float32(each.unit))
        spikes.append(each.in_order(rows["fired"][:, part]).astype(np.bool_))
    return Outcome(rows["scores"], membranes, spikes, layout)


def compilers() -> list[str]:
    """Those of this machine."""
    return [tool for tool in ("gcc", "clang") if shutil.which(tool)]
