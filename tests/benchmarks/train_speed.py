"""Speed of a training step: ours with every back end against plain torch and other frameworks.

One step is forward, backward and Adam on one batch of the paper's MNIST network, T = 8. All run in
turns in one process, so that a busy machine slows all of them; medians, and the ratio to eager STBP
of the same round. Memory is the peak of a process of its own above what stood before its first
step. Nobody wins with another network: each runs its first window in float64 too, where no rounding
turns a spike, and the spikes of every output must be the same; exit code 1 if they are not. Times
of one thread are the process's own: what else the machine does has little part in them. Those of
several threads are the clock's.

    python tests/benchmarks/train_speed.py --data DIR
    python tests/benchmarks/train_speed.py --data DIR --batches 16 --rounds 3 --only eager norse
    python tests/benchmarks/train_speed.py --data DIR --recipe nmnist8-paper --trained 60

`make peers` installs the other frameworks; those that are not there are left out, and said.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from contestants import CONTESTANTS, MECHANISMS, SLOW_TO_START, Task, ours, same_network
from torch.nn import functional as F

from mpsl_runtime.bench.bench import processor
from mpsl_runtime.data import datasets
from mpsl_train.data.acquire import locate
from mpsl_train.data.batches import Samples, to_window
from mpsl_train.data.frames import input_shape, load_frames, metadata_of
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.notation import parse
from mpsl_train.recipe import find_recipe, load

NETWORK = "128C3-AP2-256C3-AP2-256C3-AP2-512FC"


def open_task(arguments: argparse.Namespace, batch: int) -> Task:
    """The first `batch` samples of the training set, and weights, trained where that is asked."""
    recipe = load(find_recipe(arguments.recipe), [f"data.steps={arguments.steps}"])
    metadata = metadata_of(recipe)
    split = datasets.open_split(
        recipe.data.dataset, locate(recipe.data.dataset, arguments.data), "train"
    )
    frames = load_frames(split, metadata, datasets.content_hash(split))
    samples = Samples(frames, split.labels, metadata)
    order = np.random.default_rng(0).permutation(len(split.labels))
    windows, labels = samples[None, order[:batch]]
    shown_first = to_window(windows)
    network = f"{arguments.network}-{len(metadata.class_names)}"
    specs = parse(network, input_shape(metadata))
    settings = recipe.neuron
    neuron = NeuronSettings(settings.decay, settings.threshold, settings.surrogate_width)
    trained = ours(specs, neuron, MECHANISMS)
    optimiser = torch.optim.Adam(trained.parameters(), 1e-3, fused=True)
    for step in range(arguments.trained):
        batch_now = order[(1000 + 32 * step) % (len(order) - 32) :][:32]
        shown, classes = samples[None, batch_now]
        rate = trained(to_window(shown), recipe.data.steps).spikes.mean(0)
        loss = F.mse_loss(rate, F.one_hot(classes, rate.shape[1]).float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if arguments.trained:
        print(f"trained: loss {float(loss):.4f}", file=sys.stderr, flush=True)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    return Task(specs, shown_first, labels, recipe.data.steps, neuron, state)


def densities(task: Task) -> list[float]:
    """Part of the inputs of each layer that is not zero, over the window."""
    network = ours(task.specs, task.neuron, MECHANISMS)
    network.load_state_dict(task.state)
    with torch.no_grad():
        spikes = network(task.frames, task.steps, record=True).layers
    found = []
    for layer, x in zip(network.layer_list, [task.frames, *spikes[:-1]], strict=True):
        folded = x if x.dim() == 4 or x.dim() == 2 else x.flatten(0, 1)
        size = layer.spec.pool_before
        seen = F.avg_pool2d(folded, size) if size > 1 else folded
        found.append(float((seen != 0).float().mean()))
    return found


def measured(task: Task, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Times in seconds of each contestant, taken in turns; those that cannot run are left out."""
    steps, rows = {}, {}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for name in names:
        try:
            exact = CONTESTANTS[name](task.double())
            exact()
            started = clock()
            step = CONTESTANTS[name](task)
            loss = step()
        except ImportError as error:
            print(f"{name}: not installed ({error})", file=sys.stderr, flush=True)
            continue
        steps[name] = step
        first = clock() - started
        rows[name] = {"name": name, "first_loss": loss, "first_seconds": first, "seconds": []}
        rows[name]["first_spikes"] = exact.first.tolist()
    for _ in range(rounds):
        for name, step in steps.items():
            started = clock()
            step()
            rows[name]["seconds"].append(clock() - started)
    base = rows[next(iter(rows))]["seconds"]
    batch = len(task.labels)
    for row in rows.values():
        taken = median(row["seconds"])
        ratio = median(own / other for own, other in zip(row["seconds"], base, strict=True))
        row |= {"batch": batch, "milliseconds": 1e3 * taken, "samples_per_second": batch / taken}
        row |= {"ratio": ratio, "base": next(iter(rows))}
    return list(rows.values())


def _memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return (
        int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024
    )


def peak(task: Task, name: str) -> float:
    """MiB above what stood before the first of two steps; to be called once a process."""
    step = CONTESTANTS[name](task)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    before = _memory("VmRSS")
    for _ in range(2):
        step()
    return _memory("VmHWM") - before


def peaks(arguments: argparse.Namespace, batch: int, rows: list[dict[str, Any]]) -> None:
    """Adds `peak_mib` to each row."""
    for row in rows:
        command = [sys.executable, __file__, "--peak-of", row["name"], "--batches", str(batch)]
        command += ["--recipe", arguments.recipe, "--network", arguments.network]
        command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
        if arguments.data is not None:
            command += ["--data", str(arguments.data)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row["peak_mib"] = float(done.stdout.split()[-1])


def table(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Markdown: one table a batch size."""
    text = [
        f"{about['device']}, threads: {about['threads']}, torch {about['torch']}; commit"
        f" {about['commit']}; `{about['command']}`",
        "",
        f"`{about['network']}`, T = {about['steps']}, {about['recipe']},"
        f" trained for {about['trained']} steps; inputs of the layers that are not zero: "
        + ", ".join(f"{density:.0%}" for density in about["densities"]),
    ]
    for batch in dict.fromkeys(row["batch"] for row in rows):
        group = [row for row in rows if row["batch"] == batch]
        memory = any("peak_mib" in row for row in group)
        text += ["", f"| B = {batch} | ms | samples/s | time of {group[0]['base']} |"]
        text[-1] += " peak MiB |" if memory else ""
        text.append("|" + "---|" * (5 if memory else 4))
        for row in group:
            line = f"| {row['name']} | {row['milliseconds']:,.0f} | {row['samples_per_second']:.1f}"
            line += f" | {row['ratio']:.2f} |"
            text.append(line + (f" {row['peak_mib']:.0f} |" if memory else ""))
    return "\n".join(text) + "\n"


def disagreement(rows: list[dict[str, Any]]) -> str | None:
    """Why those that claim to be the same network are not; None: they are.

    A loss says little: that of a silent network is that of every silent network.
    """
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["batch"], same_network(row["name"])), []).append(row)
    for (batch, network), (first, *others) in groups.items():
        counts = np.array(first["first_spikes"])
        if others and not counts.any():
            return f"{network}, B = {batch}: silent, so that nothing is compared; try --trained 20"
        for row in others:
            turned = int(np.abs(np.array(row["first_spikes"]) - counts).sum())
            if turned:
                names = f"{row['name']} and {first['name']}"
                return f"{names}, B = {batch}: {turned} of {counts.sum()} output spikes differ"
    return None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--recipe", default="mnist", help="data and neurons (default: mnist)")
    parser.add_argument("--network", default=NETWORK, help="without its last layer")
    parser.add_argument("--steps", type=int, default=8, help="T, of images")
    parser.add_argument("--batches", type=int, nargs="*", default=[16, 64, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trained", type=int, default=0, metavar="N", help="N steps of MPSL first")
    parser.add_argument("--only", nargs="*", choices=sorted(CONTESTANTS), help="some contestants")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes")
    parser.add_argument("--memory", type=int, nargs="*", default=[16], help="batches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for rows.json and table.md")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore")  # of the other frameworks
    logging.getLogger("torch").setLevel(logging.ERROR)
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    names = arguments.only or [
        name for name in CONTESTANTS if arguments.compile or name not in SLOW_TO_START
    ]
    if arguments.peak_of:
        print(peak(open_task(arguments, arguments.batches[0]), arguments.peak_of))
        return
    rows = []
    for batch in arguments.batches:
        task = open_task(arguments, batch)
        found = measured(task, [name for name in CONTESTANTS if name in names], arguments.rounds)
        if batch in arguments.memory:
            peaks(arguments, batch, found)
        rows += found
        print(f"B = {batch} done", file=sys.stderr, flush=True)
    commit = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(commit, capture_output=True, text=True, check=False)
    about: dict[str, Any] = {
        "device": processor(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "commit": done.stdout.strip(),
        "command": "python " + shlex.join(sys.argv),
        "network": arguments.network,
        "recipe": arguments.recipe,
        "steps": task.steps,
        "trained": arguments.trained,
        "densities": densities(task),
        "disagreement": disagreement(rows),
    }
    text = table(rows, about)
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        document = json.dumps({**about, "rows": rows})
        (arguments.out / "rows.json").write_text(document + "\n", encoding="utf-8")
        (arguments.out / "table.md").write_text(text, encoding="utf-8")
    if about["disagreement"] is not None:
        raise SystemExit(f"not the same network: {about['disagreement']}")


if __name__ == "__main__":
    main()
