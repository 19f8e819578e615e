"""Speed of a training step on a GPU: ours on every path and in every precision, beside plain torch
and spikingjelly.

One step is forward, backward and Adam on one batch of the paper's MNIST network, T = 8, B = 100.
All run in turns in one process; medians, each step waited for. Memory is what the contestant adds
to the device until its second step is done. The fraction of the peak is of what a large product of
matrices reaches in the same process and precision; additions and multiplications of the layers are
counted, nothing else. Before it is timed, each runs its first window in float64, where no rounding
turns a spike: those that claim to be the same network must fire the same spikes (exit code 1).

    python tests/benchmarks/gpu_speed.py --data DIR
    python tests/benchmarks/gpu_speed.py --data DIR --only "mpsl, graphed" --profile
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contestants import CONTESTANTS, MECHANISMS, Step, Task, ours
from train_speed import NETWORK, open_task

from mpsl_train.network.kernels import TORCH, Kernels


@dataclass(frozen=True)
class Contestant:
    """A way to train.

    Attributes:
        build: a step. precision: fp32, tf32 or bf16. passes: how often each product of a layer is
            made in a step. same: contestants with the same word are the same network.
    """

    build: Callable[[Task], Step]
    precision: str = "fp32"
    passes: int = 3
    same: str = "stbp"


def _ours(
    mechanisms: list[str], step: str, kernels: Kernels | None = None, bf16: bool = False
) -> Callable[[Task], Step]:
    def build(task: Task) -> Step:
        network = ours(task.specs, task.neuron, mechanisms).to(task.frames.dtype)
        if mechanisms == MECHANISMS:
            network.load_state_dict(task.state)
        else:
            with torch.no_grad():
                for layer, (weight, bias) in zip(network.layer_list, task.merged(), strict=True):
                    layer.banks[0].copy_(weight)
                    layer.bias.copy_(bias)
        for layer in network.layer_list:
            layer.bf16 = bf16 and task.frames.dtype == torch.float32
        network.step, network.kernels = step, kernels
        return Step(
            task, network.parameters(), lambda: network(task.frames, task.steps).spikes.mean(0)
        )

    return build


def contestants() -> dict[str, Contestant]:
    """All, the first of which is what the others are measured against."""
    found = {
        "plain torch": Contestant(CONTESTANTS["eager"]),
        "plain torch, tf32": Contestant(CONTESTANTS["eager"], "tf32"),
        "plain torch, channels_last, tf32": Contestant(CONTESTANTS["eager, channels_last"], "tf32"),
    }
    many = CONTESTANTS["spikingjelly, all steps, channels_last"]  # in its own Triton kernels
    found["spikingjelly 2.0, tf32"] = Contestant(many, "tf32")
    for name, mechanisms, passes in (("stbp", ["stbp"], 3), ("mpsl", MECHANISMS, 4)):

        def add(
            label: str, *way: Any, precision: str = "fp32",
            of: tuple[str, list[str], int] = (name, mechanisms, passes),
        ) -> None:  # fmt: skip
            build = _ours(of[1], *way, bf16=precision == "bf16")
            found[f"{of[0]}, {label}"] = Contestant(build, precision, of[2], of[0])

        add("autograd, fp32", "autograd")
        add("autograd, bf16", "autograd", precision="bf16")
        add("fused in torch, tf32", "fused", TORCH, precision="tf32")
        add("fused, tf32", "fused", precision="tf32")
        for precision in ("fp32", "tf32", "bf16"):
            add(f"graphed, {precision}", "graphed", precision=precision)
    return found


def set_precision(precision: str) -> None:
    """Of products in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def peak_rate(precision: str) -> float:
    """Operations a second of a product of 8192 x 8192 matrices."""
    set_precision(precision)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=kind) for _ in range(2))
    times = []
    for _ in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * 8192**3 / median(times[2:])


def operations(task: Task, passes: int) -> float:
    """Additions and multiplications of the layers' products in a step; the first layer's input
    gets no gradient."""
    total = 0.0
    for index, spec in enumerate(task.specs):
        places = prod(spec.neurons[1:]) if spec.kind == "conv" else 1
        product = 2 * prod(spec.weight_shape) * places
        total += product * (passes if index else passes - 1)
    return total * len(task.labels) * task.steps


def on_device(task: Task) -> Task:
    """The same on the GPU."""
    state = {name: value.cuda() for name, value in task.state.items()}
    return replace(task, frames=task.frames.cuda(), labels=task.labels.cuda(), state=state)


def opened(task: Task, name: str, chosen: Contestant) -> tuple[Step, dict[str, Any]]:
    """A contestant after its second step, and the row that it begins."""
    set_precision(chosen.precision)
    exact = chosen.build(task.double())
    exact()
    spikes = [] if exact.first is None else exact.first.tolist()
    del exact
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, started = torch.cuda.memory_allocated(), time.perf_counter()
    step = chosen.build(task)
    loss = step()
    step()
    row = {
        "name": name, "precision": chosen.precision, "same": chosen.same, "first_loss": loss,
        "seconds_to_second_step": time.perf_counter() - started,
        "memory_mib": (torch.cuda.max_memory_allocated() - before) / 2**20,
        "first_spikes": spikes, "seconds": [],
    }  # fmt: skip
    return step, row


def measured(task: Task, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each contestant that can run; the others are said."""
    steps: dict[str, Step] = {}
    rows: dict[str, dict[str, Any]] = {}
    every = contestants()
    for name in names:
        try:
            steps[name], rows[name] = opened(task, name, every[name])
        except Exception as error:  # of another framework; what is missing is said
            print(f"{name}: {type(error).__name__}: {error}"[:300], file=sys.stderr, flush=True)
    for _ in range(rounds):
        for name, step in steps.items():
            set_precision(every[name].precision)
            torch.cuda.synchronize()
            started = time.perf_counter()
            step()
            torch.cuda.synchronize()
            rows[name]["seconds"].append(time.perf_counter() - started)
    peaks = {precision: peak_rate(precision) for precision in ("fp32", "tf32", "bf16")}
    base = rows[next(iter(rows))]["seconds"]
    for name, row in rows.items():
        taken = median(row["seconds"])
        row |= {
            "milliseconds": 1e3 * taken,
            "samples_per_second": len(task.labels) / taken,
            "ratio": median(own / other for own, other in zip(row["seconds"], base, strict=True)),
            "of_peak": operations(task, every[name].passes) / taken / peaks[row["precision"]],
            "peak": peaks[row["precision"]],
        }
    return list(rows.values())


def table(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Markdown."""
    text = [
        f"{about['device']}, torch {about['torch']}, commit {about['commit']}; B ="
        f" {about['batch']}, `{about['command']}`",
        "",
        f"| | ms | samples/s | time of {rows[0]['name']} | MiB | of the peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        text.append(
            f"| {row['name']} | {row['milliseconds']:.1f} | {row['samples_per_second']:,.0f} |"
            f" {row['ratio']:.2f} | {row['memory_mib']:,.0f} | {row['of_peak']:.1%} |"
        )
    return "\n".join(text) + "\n"


def differing(rows: list[dict[str, Any]]) -> list[str]:
    """Contestants that fired other spikes than the first that claims to be the same network."""
    first: dict[str, Any] = {}
    wrong = []
    for row in rows:
        if row["first_spikes"] != first.setdefault(row["same"], row["first_spikes"]):
            wrong.append(row["name"])
    return wrong


def profiled(task: Task, name: str) -> str:
    """Where the device's time goes in one step."""
    chosen = contestants()[name]
    step, _ = opened(task, name, chosen)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        torch.cuda.synchronize()
    events = profile.key_averages()
    return str(events.table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=70))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--trained", type=int, default=0, metavar="N", help="N steps of MPSL first")
    parser.add_argument("--only", nargs="*", choices=sorted(contestants()), metavar="NAME")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--out", type=Path, help="folder for rows.json and table.md")
    arguments = parser.parse_args()
    arguments.recipe, arguments.network, arguments.steps = "mnist", NETWORK, 8
    return arguments


def main() -> None:
    warnings.filterwarnings("ignore")  # of the other frameworks
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device is there: nothing is measured")
    torch.set_default_device("cuda")
    with torch.device("cpu"):
        task = on_device(open_task(arguments, arguments.batch))
    names = [name for name in contestants() if name in (arguments.only or contestants())]
    if arguments.profile:
        print("\n".join(f"{name}\n{profiled(task, name)}" for name in names))
        return
    rows = measured(task, names, arguments.rounds)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    about = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "commit": commit.stdout.strip(), "batch": arguments.batch,
        "command": "python tests/benchmarks/gpu_speed.py " + " ".join(sys.argv[1:]),
        "trained": arguments.trained, "differing": differing(rows),
    }  # fmt: skip
    text = table(rows, about)
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "rows.json").write_text(json.dumps({**about, "rows": rows}) + "\n")
        (arguments.out / "table.md").write_text(text)
    if about["differing"]:
        raise SystemExit(f"not the same network: {', '.join(about['differing'])}")


if __name__ == "__main__":
    main()
