"""The firmware of mpsl_export/README.md, as it stands there, on a camera's buffer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mpsl_export.export import export
from mpsl_runtime.events.binning import frames
from mpsl_runtime.events.events import Events
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.zoo import known_models

from .many import STRICT, compilers

README = Path(__file__).resolve().parents[4] / "mpsl_export" / "README.md"
BUFFER = """
#include <stdint.h>
#include <stdio.h>
typedef struct {{ uint32_t t_us; uint16_t x, y; uint8_t p; }} camera_event;
static const camera_event buffer[] = {{{events}}};
int camera_read(camera_event *event);
void answer(uint32_t label, const char *name);
int camera_read(camera_event *event)
{{
    static uint32_t next;
    if (next == sizeof buffer / sizeof *buffer) return 0;
    *event = buffer[next++];
    return 1;
}}
void answer(uint32_t label, const char *name)
{{
    printf("%d %s\\n", (int)label, name);
}}
"""


@pytest.mark.skipif("gcc" not in compilers(), reason="no gcc: nothing compiles the C")
def test_the_firmware_of_the_readme_answers_as_the_reference_does(tmp_path: Path) -> None:
    (code,) = re.findall(r"```c\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 45
    export("nmnist8-micro", "c", prefix="digits", out=tmp_path / "digits")
    plan = load_plan(known_models()["nmnist8-micro"])
    binning = plan.binning()
    assert binning is not None
    window = binning.steps * binning.step_us
    random, samples = np.random.default_rng(3), 5
    rows, expected = [], []
    for sample in range(samples):
        count = int(random.integers(400, 2500))
        t = np.sort(random.integers(0, window, count))
        # A bright bar, somewhere else in each sample.
        x = np.clip(random.normal(8 + 4 * sample, 4, count), 0, 33).astype(np.uint16)
        y = random.integers(4, 30, count).astype(np.uint16)
        p = random.integers(0, 2, count).astype(np.uint8)
        reference = Reference(plan)
        spikes = reference.run(frames(Events(t=t, x=x, y=y, p=p), binning))
        expected.append(int(spikes.sum(axis=0).argmax()))
        rows += [
            f"{{{sample * window + a}, {b}, {c}, {d}}}"
            for a, b, c, d in zip(t, x, y, p, strict=True)
        ]
    rows.append(f"{{{samples * window}, 0, 0, 0}}")  # by which the last sample is over
    (tmp_path / "buffer.c").write_text(BUFFER.format(events=", ".join(rows)))
    (tmp_path / "main.c").write_text(code)
    sources = [str(tmp_path / name) for name in ("main.c", "buffer.c", "digits/model.c")]
    program = str(tmp_path / "firmware")
    subprocess.run(["gcc", *STRICT, "-O1", "-o", program, *sources], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        [str(label), plan.class_names[label]] for label in expected
    ]
    assert len(set(expected)) > 1
