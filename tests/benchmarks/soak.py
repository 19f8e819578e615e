"""Memory of the engine over many steps, and over engines that come and go: it must not grow.

    python tests/benchmarks/soak.py --network small --steps 1000000
    python tests/benchmarks/soak.py --network A --steps 1000000 --threads 2

Prints resident memory every tenth of the way, after a warm-up of 1 % that touches everything; exit
code 1 if it has grown by more than 128 KiB, or by more than 1 MiB over the engines.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nir
import numpy as np
from networks import NETWORKS, network

from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Dense, Neuron, Plan
from mpsl_runtime.run.engine import Engine

LARGEST_GROWTH_KB = 128
LARGEST_ENGINES_KB = 1024  # what the allocator keeps back varies


def resident_kb() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def small() -> Plan:
    """100 inputs, 80 neurons, 10 neurons."""
    random = np.random.default_rng(0)

    def layer(name: str, inputs: int, out: int) -> tuple[Dense, Neuron]:
        weight = random.normal(0, 0.5, (out, inputs)).astype(np.float32)
        ones = np.ones(out, np.float32)
        neuron = Neuron(
            name=f"{name}_lif", kind="spiking", decay=ones / 2, threshold=ones, reset="subtract",
            reset_value=0 * ones, gain=ones, leak=0 * ones, has_input_map=False,
            synaptic_decay=None, synaptic_gain=None, input_shape=(out,), output_shape=(out,),
        )  # fmt: skip
        return Dense(name, weight, 0 * ones, (inputs,), (out,)), neuron

    return Plan((*layer("a", 100, 80), *layer("b", 80, 10)), (100,), (10,), None, "small")


def named(name: str) -> Plan:
    """`small`, or a network of networks.py, written to disk and read back."""
    if name == "small":
        return small()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.nir")
        nir.write(path, network(name, 0.02, "int8"))
        return load_plan(path)


def main() -> int:
    """Exit code: 0, or 1 where memory has grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=["small", *NETWORKS], default="small")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", type=int, default=100, help="made and dropped afterwards")
    parser.add_argument("--leak", action="store_true", help="keep every output: must be noticed")
    arguments = parser.parse_args()
    plan = named(arguments.network)
    engine = Engine(plan, threads=arguments.threads)
    random = np.random.default_rng(1)
    size = int(np.prod(plan.input_shape))
    events = [
        (np.flatnonzero(random.random(size) < density).astype(np.int32), density)
        for density in random.choice([0.0, 0.005, 0.02, 0.1], 64)
    ]
    frames = [(address, np.ones(len(address), np.float32)) for address, _ in events]

    leaked = []

    def advance(steps: int) -> None:
        for i in range(steps):
            output = engine.step_sparse(*frames[i % len(frames)])
            if arguments.leak:
                leaked.append(output)

    advance(max(len(frames), arguments.steps // 100))
    before, start = resident_kb(), time.perf_counter()
    print(f"{arguments.network}: {before:,} KiB before", flush=True)
    for tenth in range(1, 11):
        advance(arguments.steps // 10)
        print(f"{tenth * (arguments.steps // 10):>9,} steps: {resident_kb():,} KiB", flush=True)
    growth = resident_kb() - before
    print(f"grown by {growth:,} KiB in {time.perf_counter() - start:,.0f} s")
    size = engine.memory_bytes // 1024
    Engine(plan, threads=arguments.threads)
    before = resident_kb()
    for _ in range(arguments.engines):
        Engine(plan, threads=arguments.threads)
    kept = resident_kb() - before
    print(f"{arguments.engines} engines of {size:,} KiB later: grown by {kept:,} KiB")
    return int(growth > LARGEST_GROWTH_KB or kept > LARGEST_ENGINES_KB + size)


if __name__ == "__main__":
    sys.exit(main())
