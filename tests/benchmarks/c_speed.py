"""A sample through the exported C on this machine, beside our engine, ONNX Runtime and snntorch.

One thread, the same network and the same samples, programs in turns in one process; the answers are
compared first, and exit code 1 says that a label differs. What is timed is a sample from its input
in memory to its label, all T steps, in processor time, so that others on the machine count little.
Each program gets its input as it takes it: C the events of each step, the engine and ONNX Runtime
(the sequence graph, in one call) frames, snntorch (the network of `mpsl_export.peers`, step by
step) a tensor. C is built with `cc -O3 -march=native` and called once for a sample. Flash, RAM and
instructions a step, on the first of the same samples, are those of a Cortex-M4 in qemu, where its
compiler is installed.

    python tests/benchmarks/c_speed.py --data DIR nmnist8-micro nmnist
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from snntorch import utils

from mpsl_export.peers import load_snntorch
from mpsl_export.verify.backends.c_compiler import compiler
from mpsl_export.write.c.files import read_metadata
from mpsl_export.write.c.footprint import footprint_of, instructions
from mpsl_export.write.c.lower import lowered
from mpsl_export.write.to_c import c_files
from mpsl_export.write.to_onnx import sequence_model
from mpsl_runtime.bench.bench import processor
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.readout import label, scores
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.zoo import known_models

Array = NDArray[np.float32]
# Takes frames [T, C, H, W], and gives what runs the sample and gives its label.
Program = Callable[[Array], Callable[[], int]]
WRAPPER = """
#include "model.h"
static mpsl_state state;
uint32_t sample(const mpsl_event *events, const uint32_t *first, uint32_t steps);
uint32_t sample(const mpsl_event *events, const uint32_t *first, uint32_t steps)
{
    mpsl_score scores[MPSL_CLASSES];
    mpsl_reset(&state);
    for (uint32_t t = 0; t < steps; t++)
        if (mpsl_step(&state, events + first[t], first[t + 1] - first[t], scores)) return 9999;
    return mpsl_label(scores);
}
"""


def c_program(plan: Plan, folder: Path) -> Program:
    """The exported C as a shared library."""
    for name, content in c_files(plan).items():
        (folder / name).write_bytes(content)
    (folder / "sample.c").write_text(WRAPPER)
    library = folder / "model.so"
    flags = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
    sources = [str(folder / name) for name in ("model.c", "sample.c")]
    subprocess.run([compiler(), *flags, "-o", str(library), *sources], check=True)
    layout = read_metadata((folder / "model.h").read_text())
    kinds = {"float": "f4", "uint8_t": "u1", "uint16_t": "u2", "int16_t": "i2", "uint32_t": "u4"}
    at, value = (kinds[word] for word in layout["event"])
    event = np.dtype([("at", at), ("value", value)], align=True)
    run = ctypes.CDLL(str(library)).sample

    def prepared(frames: Array) -> Callable[[], int]:
        flat = frames.reshape(len(frames), -1)
        step, active = np.nonzero(flat)
        events = np.zeros(len(active), event)
        events["at"], events["value"] = active, flat[step, active] / layout["input_unit"]
        first = np.searchsorted(step, np.arange(len(frames) + 1)).astype(np.uint32)
        return lambda: int(run(_pointer(events), _pointer(first), len(frames)))

    return prepared


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def programs(plan: Plan, path: Path, folder: Path) -> dict[str, Program]:
    """Each gives the label of a sample."""
    engine = Engine(plan)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        sequence_model(plan).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    network = load_snntorch(path).eval()

    def run_snntorch(given: torch.Tensor) -> int:
        state, spikes = None, []
        with torch.no_grad():
            utils.reset(network)
            for frame in given:
                out, state = network(frame, state)
                spikes.append(out)
        return _label(torch.stack(spikes).numpy()[:, 0])

    def prepared_snntorch(frames: Array) -> Callable[[], int]:
        given = torch.from_numpy(frames)[:, None]
        return lambda: run_snntorch(given)

    def prepared_onnx(frames: Array) -> Callable[[], int]:
        given = {"x": np.ascontiguousarray(frames[:, None])}
        return lambda: _label(session.run(None, given)[0][:, 0])

    return {
        "C": c_program(plan, folder),
        "engine": lambda frames: lambda: _label(engine.run(frames)),
        "ONNX Runtime": prepared_onnx,
        "snntorch": prepared_snntorch,
    }


def _label(spikes: Array) -> int:
    """Of spikes [T, K]."""
    return int(label(scores("count", spikes)))


def measured(name: str, data: Path | None, samples: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of processor time of a sample in each program."""
    path = known_models().get(name, Path(name))
    plan = load_plan(path)
    assert plan.metadata is not None
    dataset = plan.metadata.dataset
    split = datasets.open_split(dataset, datasets.find(dataset, data), "test")
    chosen = np.linspace(0, len(split) - 1, samples).astype(int)
    frames = [np.ascontiguousarray(split.input(int(i), plan.metadata)) for i in chosen]
    with tempfile.TemporaryDirectory() as folder:
        each = programs(plan, path, Path(folder))
        runs = {key: [prepare(one) for one in frames] for key, prepare in each.items()}
        labels = {key: [run() for run in own] for key, own in runs.items()}
        times: dict[str, list[float]] = {key: [] for key in each}
        for _ in range(rounds):
            for key, own in runs.items():
                began = time.process_time()
                for run in own:
                    run()
                times[key].append((time.process_time() - began) / samples * 1e3)
        taken = footprint_of(plan, c_files(plan), "mpsl", {})
        counted = instructions(lowered(plan, "mpsl"), Path(folder), np.concatenate(frames[:8]))
    median = {key: statistics.median(values) for key, values in times.items()}
    return {
        "flash": taken.flash,
        "ram": taken.ram,
        "instructions": None if counted is None else float(counted.mean()),
        "model": name,
        "weights": plan.metadata.weights,
        "steps": plan.metadata.steps,
        "samples": samples,
        "rounds": rounds,
        "processor": processor(),
        "ms": median,
        "ratio_to_snntorch": {key: median["snntorch"] / value for key, value in median.items()},
        "same_labels": all(found == labels["C"] for found in labels.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(name, given.data, given.samples, given.rounds) for name in given.models]
    print(json.dumps(rows, indent=1))
    for row in rows:
        sizes = [row[key] for key in ("flash", "ram", "instructions")]
        cells = ["-" if value is None else f"{value:,.0f}" for value in sizes]
        cells += [f"{value:.3f}" for value in row["ms"].values()]
        print(f"| {row['model']} | {' | '.join(cells)} | {row['ratio_to_snntorch']['C']:.0f}x |")
    return 0 if all(row["same_labels"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
