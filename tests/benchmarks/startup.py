"""How long until the first step: importing the native module, loading network A, stepping once.

    python tests/benchmarks/startup.py
    python tests/benchmarks/startup.py --model runs/a/model.nir

Every round is a fresh process: `import` is that of the native module, numpy being there; `read`
makes a checked plan of the file, `pack` an engine of the plan, `step` is the first one. h5py and
nir, which reading needs, are imported before. Minima and medians, in ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import nir
from networks import network

from mpsl_runtime.bench.bench import processor

IMPORT = """
import time, numpy
begin = time.perf_counter()
from mpsl_runtime import _native
print([time.perf_counter() - begin])
"""
LOAD = """
import sys, time, h5py, nir, numpy as np
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.model.graph import load_plan
clock = time.perf_counter
begin = clock()
plan = load_plan(sys.argv[1])
read = clock()
engine = Engine(plan)
packed = clock()
address = np.arange(0, np.prod(plan.input_shape), 20, np.int32)  # 5 % of the inputs
value = np.ones(len(address), np.float32)
ready = clock()
engine.step_sparse(address, value)
print([read - begin, packed - read, clock() - ready])
"""


def seconds(code: str, *words: str) -> list[float]:
    """The list that a fresh process prints which runs `code`."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(value) for value in json.loads(done.stdout)]


def line(name: str, values: list[float]) -> str:
    """Minimum and median."""
    return f"{name:<34} {1e3 * min(values):>8.2f} {1e3 * median(values):>8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = [(path.name, path) for path in arguments.model]
        for weights in ("float32", "int8"):
            for compression in ("gzip", None):
                path = Path(folder, f"{weights}-{compression}.nir")
                nir.write(path, network("A", 0.05, weights), compression=compression)  # type: ignore[arg-type]
                models.append((f"A {weights}{'' if compression else ', not compressed'}", path))
        print(f"{processor()}; ms: {'minimum':>22} {'median':>8}")
        print(line("import", [seconds(IMPORT)[0] for _ in range(arguments.rounds)]))
        for name, path in models:
            rounds = [seconds(LOAD, str(path)) for _ in range(arguments.rounds)]
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            print(line(f"{name}, {size}", [sum(times) for times in rounds]))
            for part, times in zip(
                ("read", "pack", "step"), zip(*rounds, strict=True), strict=True
            ):
                print(line(f"    {part}", list(times)))


if __name__ == "__main__":
    main()
