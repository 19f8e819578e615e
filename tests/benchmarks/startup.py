"""How long until the first step: importing, `mpsl --help`, loading network A, stepping once.

    python tests/benchmarks/startup.py
    python tests/benchmarks/startup.py --model runs/a/model.nir --before ../older/.venv/bin/python

Every round is a fresh process, and all rows take turns. `import mpsl_runtime` is that of the
package alone, `_native` that of the compiled module, numpy being there. `read` makes a checked plan
of the file, `pack` an engine of the plan, `step` is the first one; h5py and nir, which reading
needs, are imported before. A comes twice, with trained weights in float32 (`nmnist8-paper`) and
with random ones in int8, each as it is written now and with all arrays compressed by the nir
package, as it was before. Medians, then minima, in ms of processor time: on a core that is free,
that of the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import nir
from networks import network

from mpsl_runtime.bench.bench import processor
from mpsl_runtime.model.graph import load_graph
from mpsl_runtime.model.nir_writer import write_graph

TRAINED = Path(__file__).parents[2] / "models" / "nmnist8-paper" / "model.nir"
# Without `site`: the finder of an editable install takes longer than the package.
PACKAGE = """
import sys, time
sys.path.insert(0, sys.argv[1])
begin = time.process_time()
import mpsl_runtime
print([time.process_time() - begin])
"""
NATIVE = """
import time, numpy
begin = time.process_time()
from mpsl_runtime import _native
print([time.process_time() - begin])
"""
HOME = "import json, mpsl_runtime as m; print(json.dumps(m.__file__))"
LOAD = """
import sys, time, h5py, nir, numpy as np
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.model.graph import load_plan
clock = time.process_time
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


def printed(*command: str) -> Any:
    """What a fresh process prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def seconds(*command: str) -> list[float]:
    """The times that a fresh process prints."""
    return [float(value) for value in printed(*command)]


def helping(python: str) -> list[float]:
    """Processor time of `mpsl --help`, the interpreter's own start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(python).with_name("mpsl")), "--help"]
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime]


def measurements(
    pythons: dict[str, str], models: list[tuple[str, Path]]
) -> dict[str, Callable[[], list[float]]]:
    """What each row of the table measures, by its name."""
    found: dict[str, Callable[[], list[float]]] = {}
    for which, python in pythons.items():
        home = str(Path(printed(python, "-c", HOME)).parents[1])
        found[f"import mpsl_runtime{which}"] = partial(seconds, python, "-S", "-c", PACKAGE, home)
        found[f"import mpsl_runtime._native{which}"] = partial(seconds, python, "-c", NATIVE)
        found[f"mpsl --help{which}"] = partial(helping, python)
        for name, path in models:
            row = f"{name}, {path.stat().st_size / 1e6:.1f} MB{which}"
            found[row] = partial(seconds, python, "-c", LOAD, str(path))
    return found


def line(name: str, values: list[float]) -> str:
    """Median and minimum."""
    return f"{name:<52} {1e3 * median(values):>8.2f} {1e3 * min(values):>8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    parser.add_argument("--before", help="a Python whose mpsl_runtime is another one")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    pythons = {"": sys.executable}
    if arguments.before:
        pythons[" (before)"] = arguments.before
    with tempfile.TemporaryDirectory() as folder:
        models = [(path.name, path) for path in arguments.model]
        for name, graph in (
            ("A trained", load_graph(TRAINED)),
            ("A int8", network("A", 0.05, "int8")),
        ):
            models.append((name, Path(folder, f"{name}.nir")))
            write_graph(graph, models[-1][1])
            models.append((f"{name}, all compressed", Path(folder, f"{name}-gzip.nir")))
            nir.write(models[-1][1], graph)
        rows = measurements(pythons, models)
        times: dict[str, list[list[float]]] = {name: [] for name in rows}
        for _ in range(arguments.rounds):
            for name, measure in rows.items():
                times[name].append(measure())
    print(f"{processor() + '; ms':<52} {'median':>8} {'minimum':>8}")
    for name, rounds in times.items():
        print(line(name, [sum(parts) for parts in rounds]))
        if len(rounds[0]) > 1:
            parts = zip(("read", "pack", "step"), zip(*rounds, strict=True), strict=True)
            for part, values in parts:
                print(line(f"    {part}", list(values)))


if __name__ == "__main__":
    main()
