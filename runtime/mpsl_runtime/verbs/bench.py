"""`mpsl bench`: a model in, the engine's speed beside other programs' out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.terminal import show, show_json, show_lines
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json, MemoryLimit, ModelName

if TYPE_CHECKING:
    from mpsl_runtime.bench.bench import Row
    from mpsl_runtime.bench.inputs import BenchInput
    from mpsl_runtime.model.plan import Plan

__all__ = ["bench"]

Against = Annotated[
    str, typer.Option(metavar="NAMES", help="Also run: onnx, torch, or onnx,torch.")
]
Density = Annotated[
    str,
    typer.Option(
        metavar="D,D,...", help="Force every layer to fire so often, 0.05 is 5 %. [as it is]"
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Recordings, as for `run`. [the model's test set, where it is found and no "
        "density is forced; else synthetic events]",
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Where the test set lies.")
]
Samples = Annotated[
    int, typer.Option(metavar="N", min=1, max=10**9, help="Recordings or test samples to take.")
]
Threads = Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Of every program.")]
Rounds = Annotated[
    int, typer.Option(metavar="N", min=1, max=10**6, help="Turns of every program; medians count.")
]


def bench(
    context: typer.Context,
    model: ModelName,
    against: Against = "",
    density: Density = "",
    source: Source = None,
    data: Data = None,
    samples: Samples = 8,
    threads: Threads = 1,
    rounds: Rounds = 15,
    source_dialect: foreign.From = "auto",
    reset: foreign.ResetWord = None,
    fires: foreign.FiresWord = None,
    spikes: foreign.SpikesWord = None,
    leak: foreign.LeakWord = None,
    start: foreign.StartWord = None,
    norm_input: foreign.NormInput = None,
    dt_s: foreign.StepSeconds = None,
    steps: sources.Steps = None,
    step_us: sources.StepUs = None,
    coding: foreign.CodingWord = None,
    classes: foreign.Classes = None,
    dataset: foreign.DataSet = None,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Measure the engine, in turns with other programs, and check that outputs are equal.

    Exit code 1: outputs differ.

    Example: mpsl bench model.nir --against onnx --density 0.01,0.05
    """
    from mpsl_runtime.bench.bench import benchmark
    from mpsl_runtime.bench.programs import find_programs
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.run.engine_memory import check_engine

    if source is not None and data is not None:
        raise UsageError("input is given twice", got="--source and --data", expected="one of them")
    wanted: list[float | None] = [*_densities(density)] or [None]
    programs = find_programs([name.strip() for name in against.split(",") if name.strip()])
    plan = foreign.filled_model(
        model,
        context.params,
        timed=source is not None or data is not None,
        labelled=data is not None,
        overrules=True,
    ).plan
    check_engine(plan, threads=threads)  # before its input is made, which may be as large
    given = _input(plan, source, data, samples, forced=bool(density), steps=steps, step_us=step_us)
    rows = [
        benchmark(plan, given, programs=programs, density=value, threads=threads, rounds=rounds)
        for value in wanted
    ]
    _print(plan, rows, threads, as_json=as_json)
    if not all(row.equal for row in rows):
        show("mpsl: outputs differ between programs; see `mpsl verify`", err=True)
        raise typer.Exit(1)


def _input(
    plan: Plan, source: str | None, data: Path | None, samples: int, *, forced: bool, **times: Any
) -> BenchInput:
    """What the programs are shown; synthetic where nothing else is at hand."""
    from mpsl_runtime.bench.inputs import from_test_set, recorded, synthetic

    given = None
    if source is not None:
        given = recorded(plan, source, samples, **times)
    elif data is not None or not forced:
        given = from_test_set(plan, data, samples)
    return given or synthetic(plan)


def _print(plan: Plan, rows: list[Row], threads: int, *, as_json: bool) -> None:
    from mpsl_runtime import __version__
    from mpsl_runtime.bench.bench import lines, processor, roofline
    from mpsl_runtime.run.engine import Engine

    limits = roofline()
    about = {"device": processor(), "isa": Engine(plan, threads=threads).isa}
    if not as_json:
        show(f"{about['device']}, {about['isa']}, threads: {threads}")
        show_lines(lines(rows, limits))
        return
    show_json(
        {
            **about,
            "rows": [row.to_mapping(limits) for row in rows],
            "threads": threads,
            "roofline_gsops": limits,
            "version": __version__,
            "command": " ".join(["mpsl", *sys.argv[1:]]),
        }
    )


def _densities(words: str) -> list[float]:
    from mpsl_runtime.errors import UsageError

    found = []
    for word in (part.strip() for part in words.split(",") if part.strip()):
        try:
            found.append(float(word))
        except ValueError:
            found.append(0.0)
        if not 0 < found[-1] < 1:
            raise UsageError(
                "density cannot be forced", got=word, expected="between 0 and 1", where="--density"
            )
    return found
