"""Our files in other frameworks: how many spikes and labels differ, as loaded and as stock import.

Every model runs on samples of its test set, for T steps, over which a recording is played again and
again. The spikes of every layer are held against those of the same graph in torch, where sums are
made in the same order; the engine, which makes them in another, stands beside. `load` is
`mpsl_export.peers`; `stock` is the framework's own importer on the same file, told the length of a
step where it asks.

    python tests/benchmarks/peer_frameworks.py --data DIR
    python tests/benchmarks/peer_frameworks.py --data DIR --only nmnist8-small --stock --samples 100

Exit code 1: a loaded network differs from ours in a spike. `make peers` installs the frameworks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

from mpsl_export.verify.backends.peers import PeerProgram
from mpsl_export.verify.backends.torch_plan import TorchPlan, exact_float32
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine

MODELS = Path(__file__).resolve().parents[2] / "models"
FRAMEWORKS = ("norse", "snntorch", "spikingjelly", "sinabs")
DT_S = 1e-4  # of every file of ours


@dataclass
class Counts:
    """What differs from ours: shares of output spikes and of labels, spikes of all layers."""

    output: float
    labels: float
    layers: int | None = None


def stock(framework: str, path: Path) -> Any:
    """What a framework makes of the file alone."""
    graph = nir.read(path)
    if framework == "norse":
        from norse.torch import from_nir

        return from_nir(graph, ignore_warnings=True, dt=DT_S)
    if framework == "snntorch":
        from snntorch.import_nir import import_from_nir

        with contextlib.redirect_stdout(io.StringIO()):
            return import_from_nir(graph)
    if framework == "spikingjelly":
        from spikingjelly.activation_based.nir_exchange import import_from_nir

        return import_from_nir(graph, dt=DT_S)
    from sinabs.nir import from_nir

    return from_nir(graph, batch_size=1)


def stock_spikes(framework: str, path: Path, frames: np.ndarray) -> np.ndarray:
    """Output of the stock network, [T, B, K], as each framework's documentation runs it: norse and
    snntorch one sample at a time, since their Flatten takes the batch for a dimension."""
    if framework == "sinabs":
        import sinabs

        network = stock(framework, path)
        samples = []
        for sample in frames.swapaxes(0, 1):
            sinabs.reset_states(network)
            samples.append(network(torch.from_numpy(sample.copy()))[0].numpy())
        return np.stack(samples, axis=1)
    batches = [frames] if framework == "spikingjelly" else np.split(frames, frames.shape[1], 1)
    results = []
    for batch in batches:
        network, state, steps = stock(framework, path), None, []
        for frame in batch:
            x = torch.from_numpy(frame.copy())
            out, state = network(x if framework == "spikingjelly" else x[0], state)
            steps.append((out[0] if isinstance(out, tuple) else out).reshape(len(x), -1).numpy())
        results.append(np.stack(steps))
    return np.concatenate(results, axis=1)


def samples_of(plan: Plan, data: Path, count: int, steps: int) -> np.ndarray:
    """[T, B, *input_shape], evenly over the test set; shorter samples begin again."""
    metadata = plan.metadata
    assert metadata is not None
    split = datasets.open_split(metadata.dataset, datasets.find(metadata.dataset, data), "test")
    chosen = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    inputs = [split.input(int(index), metadata) for index in chosen]
    again = -(-steps // len(inputs[0]))
    return np.stack([np.concatenate([x] * again)[:steps] for x in inputs], axis=1)


@dataclass
class Ours:
    """A model with its input, float32 [T, B, …], and the spikes of each layer, in torch."""

    path: Path
    frames: np.ndarray
    layers: dict[str, np.ndarray]

    @classmethod
    def of(cls, path: Path, frames: np.ndarray) -> Ours:
        plan = load_plan(path)
        steps = [
            {n.name: kept[f"{n.name}.s"].numpy() > 0 for n in plan.spiking}
            for _, kept in TorchPlan(plan, torch.device("cpu"))._steps(frames)
        ]
        return cls(path, frames, {name: np.stack([s[name] for s in steps]) for name in steps[0]})

    def counts(self, spikes: np.ndarray, layers: int | None = None) -> Counts:
        """Of an output [T, B, K]."""
        right = list(self.layers.values())[-1]
        labels = spikes.sum(0).argmax(1) != right.sum(0).argmax(1)
        return Counts(float((spikes != right).mean()), float(labels.mean()), layers)


def attempt(run: Callable[..., Counts], *arguments: Any) -> Counts | str:
    """The counts, or why there are none."""
    try:
        with warnings.catch_warnings(), exact_float32():
            warnings.simplefilter("ignore")
            return run(*arguments)
    except Exception as error:  # a framework's own, whatever it is
        return f"{type(error).__name__}: {error}".splitlines()[0]


def loaded(framework: str, model: Ours) -> Counts:
    apart, output = 0, []
    for t, step in enumerate(PeerProgram(model.path, framework)._steps(model.frames)):
        found = {name: spikes.numpy() for name, spikes in step.items()}
        apart += sum(int((found[name] != right[t]).sum()) for name, right in model.layers.items())
        output.append(found[list(model.layers)[-1]])
    return model.counts(np.stack(output), apart)


def imported(framework: str, model: Ours) -> Counts:
    return model.counts(stock_spikes(framework, model.path, model.frames))


def in_the_engine(model: Ours) -> Counts:
    engine = Engine(load_plan(model.path))
    samples = [engine.run(np.ascontiguousarray(x)) for x in model.frames.swapaxes(0, 1)]
    return model.counts(np.stack(samples, axis=1))


def measure(path: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each T and framework."""
    plan = load_plan(path)
    for steps in arguments.steps:
        frames = samples_of(plan, arguments.data, arguments.samples, steps)
        model = Ours.of(path, frames)
        engine = in_the_engine(model)
        for framework in arguments.frameworks:
            begun = time.perf_counter()
            row = {
                "model": path.parent.name, "T": steps, "samples": frames.shape[1],
                "framework": framework, "engine": engine, "load": attempt(loaded, framework, model),
            }  # fmt: skip
            if arguments.stock:
                row["stock"] = attempt(imported, framework, model)
            yield {**row, "seconds": round(time.perf_counter() - begun, 1)}


def cell(found: Counts | str | None) -> str:
    """Output spikes and labels that differ."""
    if isinstance(found, Counts):
        return f"{found.output:.2%}, {found.labels:.0%}" if found.output else "0"
    return (found or "–")[:60]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--only", nargs="+", help="names of models; default: all of the zoo")
    parser.add_argument("--frameworks", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--steps", nargs="+", type=int, default=[8, 100], help="T")
    parser.add_argument("--samples", type=int, default=4, help="of each model")
    parser.add_argument("--stock", action="store_true", help="the frameworks' own importers too")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    names = arguments.only or sorted(path.parent.name for path in MODELS.glob("*/model.nir"))
    rows = []
    print("| model | T | samples | engine | framework | load_*: all layers | load_* | stock |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        for row in measure(MODELS / name / "model.nir", arguments):
            rows.append(row)
            loaded = row["load"]
            layers = loaded.layers if isinstance(loaded, Counts) else "–"
            cells = [
                name, row["T"], row["samples"], cell(row["engine"]), row["framework"], layers,
                cell(loaded), cell(row.get("stock")),
            ]  # fmt: skip
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, default=vars, indent=1))
    good = [isinstance(row["load"], Counts) and not row["load"].layers for row in rows]
    print(f"\n{sum(good)} of {len(good)}: no spike of any layer differs", flush=True)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
