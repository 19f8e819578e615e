"""Speed of the engine against ONNX Runtime: networks A and B32, float32 and int8, by density.

`make bench` runs it: tables for the README, all rows as JSON, and a picture of time per step
against synaptic operations with the R² of a straight line. Each model is written to disk as .nir
and read back. The programs run in turns in one process, with outputs checked equal
(`mpsl_runtime.bench.bench`); exit code 1 if any are not. Medians first, bests in brackets.

Weights of the networks lie on a grid, also in float32: their sums are exact, so that all programs
must agree bit for bit. Trained float32 weights do not: with `--forced` a model of yours stands
beside them, every layer firing as often.

    python tests/benchmarks/engine_speed.py --networks A --densities 0.01 0.05 --rounds 15
    python tests/benchmarks/engine_speed.py --model runs/a/model.nir --source DIR
    python tests/benchmarks/engine_speed.py --networks --model runs/a/model.nir --forced
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nir
import numpy as np
from networks import NETWORKS, network

from mpsl_runtime import _native
from mpsl_runtime.bench.bench import Row, benchmark, processor, roofline
from mpsl_runtime.bench.inputs import recorded, synthetic
from mpsl_runtime.bench.layer_times import LayerTime
from mpsl_runtime.bench.programs import find_programs
from mpsl_runtime.errors import MpslError
from mpsl_runtime.model.graph import load_plan

# Measured without the others: more points for the straight line.
BETWEEN = [0.003, 0.03, 0.07]
DENSITIES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.99]  # a layer of which all fire has no threshold
LINEAR_UP_TO = 50e6  # synaptic operations a step
# Ratios to ONNX Runtime that are aimed at, by network, weights and density.
TARGETS = {
    ("A", "int8"): {0.01: 14, 0.02: 11, 0.05: 7.5, 0.1: 5, 0.2: 4.8, 0.5: 4},
    ("A", "float32"): {0.01: 9, 0.02: 7, 0.05: 4.5, 0.1: 2.7, 0.2: 1.75, 0.5: 1.2},
    ("B32", "int8"): {0.02: 25, 0.05: 16, 0.1: 10, 0.2: 6.8, 0.5: 5.5},
}
Named = tuple[str, Row]


def measured(arguments: argparse.Namespace) -> Iterator[Named]:
    """One row for each network, kind of weights and density; then the models given as files."""
    programs = find_programs(arguments.against)
    settings: dict[str, Any] = {"threads": arguments.threads, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            for weights in arguments.weights:
                for density in sorted([*arguments.densities, *arguments.between]):
                    path = Path(folder, f"{name}-{weights}-{density:g}.nir")
                    nir.write(path, network(name, density, weights))
                    plan = load_plan(path)
                    against = programs if density in arguments.densities else {}
                    yield name, benchmark(plan, synthetic(plan), programs=against, **settings)
    for path in arguments.model:
        plan = load_plan(path)
        given = synthetic(plan)
        if arguments.source is not None:
            given = recorded(plan, str(arguments.source), arguments.samples)
        for forced in sorted(arguments.densities) if arguments.forced else [None]:
            row = benchmark(plan, given, programs=programs, density=forced, **settings)
            yield Path(path).parent.name or Path(path).stem, row


def far(row: Row) -> list[LayerTime]:
    """The fully connected layers whose weights lie beyond the second-level cache."""
    return [layer for layer in row.layers if layer.level == "l3"]


def straight_line(rows: Sequence[Row], *, without_far: bool = False) -> tuple[float, float, float]:
    """(slope in µs per million operations, time of an idle step in µs, R²) by least squares."""
    left_out = [far(row) if without_far else [] for row in rows]
    x = (
        np.array(
            [r.synops - sum(la.synops for la in out) for r, out in zip(rows, left_out, strict=True)]
        )
        / 1e6
    )
    y = np.array(
        [r.engine_us - sum(la.us for la in out) for r, out in zip(rows, left_out, strict=True)]
    )
    slope, base = np.polyfit(x, y, 1)
    unexplained = ((y - (slope * x + base)) ** 2).sum()
    return float(slope), float(base), float(1 - unexplained / ((y - y.mean()) ** 2).sum())


def in_linear_range(rows: Sequence[Named]) -> dict[str, list[Row]]:
    """The rows of each network and kind of weights, up to `LINEAR_UP_TO`."""
    groups: dict[str, list[Row]] = {}
    for name, row in rows:
        if row.synops <= LINEAR_UP_TO:
            groups.setdefault(f"{name} {row.weights}", []).append(row)
    return {key: group for key, group in groups.items() if len(group) > 2}


def lines_of(rows: Sequence[Named]) -> dict[str, tuple[float, float, float]]:
    """`straight_line` of each network and kind of weights."""
    return {key: straight_line(group) for key, group in in_linear_range(rows).items()}


def target_of(name: str, row: Row) -> float | None:
    """The ratio aimed at, where there is one."""
    goals = TARGETS.get((name, row.weights), {})
    return next((goals[d] for d in goals if abs(row.density - d) < 0.1 * d), None)


def tables(rows: Sequence[Named], about: dict[str, Any]) -> str:
    """Markdown: a table for each network and kind of weights, then the lines."""
    text = [f"{about['device']}, {about['isa']}, threads: {about['threads']}; commit"]
    text[0] += f" {about['commit']}; `{about['command']}`"
    group = ""
    for name, row in rows:
        if not row.program_us:
            continue
        if group != f"{name}, {row.weights}":
            group = f"{name}, {row.weights}"
            text += ["", f"Network {group}: `{row.network}`", ""]
            text.append(
                "| layer density | engine | ONNX Runtime | ratio | goal | torch | GSOP/s "
                "| of L1 | of L2 | MSOP a step | memory | equal | real time |"
            )
            text.append("|" + "---|" * 13)
        onnx, torch = row.program_us.get("onnx"), row.program_us.get("torch")
        goal = target_of(name, row)
        cells = [
            f"{row.density:.1%}",
            f"{row.engine_us:,.0f} ({row.best_us['engine']:,.0f}) µs",
            "–" if onnx is None else f"{onnx:,.0f} ({row.best_us['onnx']:,.0f}) µs",
            f"{row.ratio['onnx']:.2f}x" if "onnx" in row.ratio else "–",
            "–" if goal is None else f"≥ {goal:g}x",
            "–" if torch is None else f"{torch:,.0f} µs",
            f"{row.gsops:.1f}",
            *(f"{part:.0%}" for part in row.of_roofline(about["roofline_gsops"]).values()),
            f"{row.synops / 1e6:.2f}",
            f"{row.memory_bytes / 2**20:.1f} MiB",
            ("bit for bit" if row.exact else "yes") if row.equal else "NO",
            "–" if row.real_time is None else f"{row.real_time:,.0f}x",
        ]
        text.append("| " + " | ".join(cells) + " |")
    text.append("")
    for key, group in in_linear_range(rows).items():
        slope, base, fit = straight_line(group)
        text.append(
            f"{key}, up to {LINEAR_UP_TO / 1e6:.0f} M operations a step: {base:.0f} µs +"
            f" {slope:.1f} µs per million operations, R² = {fit:.4f}"
        )
        if any(far(row) for row in group):
            names = ", ".join(sorted({layer.name for row in group for layer in far(row)}))
            text[-1] += f"; without {names}: {straight_line(group, without_far=True)[2]:.4f}"
    text += ["", "Share of the roofline, by layer (cache in which its rows lie):", ""]
    for name, row in rows:
        shares = [(layer, layer.of_roofline(about["roofline_gsops"])) for layer in row.layers]
        parts = [f"{la.name} {s:.0%} of {la.level}" for la, s in shares if s is not None]
        if row.program_us:
            text.append(f"- {name} {row.weights} {row.density:.0%}: {', '.join(parts)}")
    limits = ", ".join(f"{key} {value:.0f}" for key, value in about["roofline_gsops"].items())
    text += ["", f"Roofline of the core, GSOP/s: {limits}"]
    return "\n".join(text) + "\n"


def plot(rows: Sequence[Named], path: Path) -> None:
    """Time per step against events and spikes, and against synaptic operations with the lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (by_events, by_synops) = pyplot.subplots(
        1, 2, figsize=(11, 4.5), sharey=True, layout="constrained"
    )
    found = lines_of(rows)
    for number, key in enumerate(dict.fromkeys(f"{name} {row.weights}" for name, row in rows)):
        group = [row for name, row in rows if f"{name} {row.weights}" == key]
        group.sort(key=lambda row: row.synops)
        colour, label = f"C{number}", f"{key}: engine"
        times = [row.engine_us for row in group]
        by_events.plot([row.events + row.spikes for row in group], times, "o-", color=colour)
        by_synops.plot([row.synops / 1e6 for row in group], times, "o", color=colour)
        if key in found:
            slope, base, fit = found[key]
            ends = np.array([0, LINEAR_UP_TO / 1e6])
            by_synops.plot(ends, base + slope * ends, color=colour, linewidth=1)
            label += f", R² = {fit:.3f}"
        by_synops.plot([], [], "o-", color=colour, label=label)
        program = [row for row in group if "onnx" in row.program_us]
        dashed = {"color": colour, "linewidth": 0.8, "label": f"{key}: ONNX Runtime"}
        times = [row.program_us["onnx"] for row in program]
        by_events.plot([row.events + row.spikes for row in program], times, "x--", **dashed)
        by_synops.plot([row.synops / 1e6 for row in program], times, "x--", **dashed)
    by_events.set_xlabel("events and spikes a step")
    by_events.set_ylabel("time a step, µs")
    by_events.set_ylim(bottom=0)
    by_synops.set_xlabel("synaptic operations a step, millions")
    entries = by_synops.get_legend_handles_labels()  # both have the same
    figure.legend(*entries, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=sorted(NETWORKS))
    parser.add_argument("--weights", nargs="*", default=["float32", "int8"])
    parser.add_argument("--densities", type=float, nargs="*", default=DENSITIES)
    parser.add_argument("--between", type=float, nargs="*", default=BETWEEN)
    parser.add_argument("--against", nargs="*", default=["onnx"], help="onnx torch")
    parser.add_argument("--model", nargs="*", default=[], help="more models, .nir")
    parser.add_argument("--source", help="recordings for them")
    parser.add_argument("--forced", action="store_true", help="each of them at each density")
    parser.add_argument("--samples", type=int, default=8, help="recordings to take")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for rows.json, tables.md and linear.png")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    about: dict[str, Any] = {
        "device": processor(),
        "isa": _native.isa(),
        "threads": arguments.threads,
        "commit": commit,
        "command": "python " + " ".join(sys.argv),
        "roofline_gsops": roofline(),
    }
    rows: list[Named] = []
    for name, row in measured(arguments):
        rows.append((name, row))
        ratios = ", ".join(f"{key} {ratio:.2f}x" for key, ratio in row.ratio.items())
        print(
            f"{name} {row.weights} {row.density:.1%}: {row.engine_us:.0f} µs, {ratios}"
            f"{'' if row.equal else ', OUTPUTS DIFFER'}",
            file=sys.stderr,
            flush=True,
        )
    document = json.dumps(
        {**about, "rows": [{"name": n, **r.to_mapping(about["roofline_gsops"])} for n, r in rows]}
    )
    print(document if arguments.json else tables(rows, about))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "rows.json").write_text(document + "\n", encoding="utf-8")
        (arguments.out / "tables.md").write_text(tables(rows, about), encoding="utf-8")
        plot(rows, arguments.out / "linear.png")
    if not all(row.equal for _, row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except MpslError as error:
        print(f"engine_speed.py: {error}", file=sys.stderr)
        sys.exit(2)
