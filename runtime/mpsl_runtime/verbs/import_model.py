"""`mpsl import`: a file of another framework in, the same network that says all by itself out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.terminal import show, show_json, show_lines
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json, MemoryLimit

if TYPE_CHECKING:
    from mpsl_runtime.model.filling import Filled
    from mpsl_runtime.run.expectation import Replay

__all__ = ["import_model"]

File = Annotated[Path, typer.Argument(metavar="FILE.nir", help="As its framework exported it.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE.nir", help="The model to write.")]
Expect = Annotated[
    Path | None,
    typer.Option(
        "--expect",
        metavar="F.npz",
        help="What the framework itself computed, to be replayed: input [T,…] or [T,B,…], "
        "expected [T,K] or [T,B,K].",
    ),
]
Downsample = Annotated[
    int | None,
    typer.Option(metavar="K", min=1, max=65_536, help="An input is the sum over K x K pixels."),
]
Crop = Annotated[
    str | None, typer.Option(metavar="L,T,W,H", help="The camera's pixels that are used. [all]")
]
Sensor = Annotated[
    str | None, typer.Option(metavar="WxH", help="Of the camera. [as the input needs it]")
]


def import_model(
    context: typer.Context,
    file: File,
    out: Out,
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
    downsample: Downsample = None,
    crop: Crop = None,
    sensor: Sensor = None,
    classes: foreign.Classes = None,
    dataset: foreign.DataSet = None,
    expect: Expect = None,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Fill in what a NIR file of another framework cannot say, once.

    NIR has no step, no soft reset and no start: each framework has its own. The same network is
    written with all of it in its metadata; run, bench, inspect, verify and export then need no
    option. What is missing is named, all at once.

    Exit code 1: --expect differs, and nothing is written.

    Example: mpsl import net.nir --from snntorch --steps 10 --step-us 1000 --out model.nir
    """
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.run.marked_file import write_marked
    from mpsl_runtime.run.rewrite import rewritten

    if out.resolve() == file.resolve():
        raise UsageError("model would be written over itself", expected="--out FILE", where=file)
    filling = foreign.filling_of(context.params, downsample=downsample, crop=crop, sensor=sensor)
    filled = _filled(file, filling)
    foreign.show_inferred(filled)
    replayed = None if expect is None else _replayed(filled, expect)
    if replayed is None or not replayed.differing:
        write_marked(*rewritten(filled.graph, filled.plan), out)
    if as_json:
        show_json(_mapping(filled, out, replayed))
    else:
        show_lines(_lines(filled, out, replayed))
    if replayed is not None and replayed.differing:
        raise typer.Exit(1)


def _filled(file: Path, filling: Any) -> Filled:
    from hashlib import file_digest

    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.model.filling import fill
    from mpsl_runtime.model.graph import load_graph

    graph = load_graph(file)
    with file.open("rb") as content:
        digest = file_digest(content, "sha256").hexdigest()
    if isinstance(graph.metadata, dict) and "mpsl" in graph.metadata:
        raise UsageError("model says all by itself already", got="mpsl metadata", where=file)
    return fill(graph, str(file), filling, timed=True, source_sha256=digest)


def _replayed(filled: Filled, expect: Path) -> Replay:
    from mpsl_runtime.run.expectation import read_expectation, replay

    return replay(filled.plan, read_expectation(expect, filled.plan))


def _populations(filled: Filled) -> list[dict[str, Any]]:
    """How each population steps."""
    from mpsl_runtime.model.dialects import StepRule
    from mpsl_runtime.model.nested import flatten_graph
    from mpsl_runtime.model.plan import Neuron

    nodes = flatten_graph(filled.graph, filled.plan.source).nodes
    rows = []
    for node in filled.plan.nodes:
        if isinstance(node, Neuron):
            rule = StepRule.of(nodes[node.name].metadata, node.name)
            words = {} if rule is None else rule.to_mapping()
            rows.append({"name": node.name, "type": type(nodes[node.name]).__name__, **words})
    return rows


def _mapping(filled: Filled, out: Path, replayed: Replay | None) -> dict[str, Any]:
    metadata = filled.plan.metadata
    failed = replayed is not None and bool(replayed.differing)
    return {
        "written": None if failed else str(out),
        "from": metadata and metadata.imported_from,
        "given": metadata and metadata.imported_given,
        "inferred": list(filled.lines),
        "source_sha256": metadata and metadata.source_sha256,
        "notes": list(filled.plan.notes),
        "populations": _populations(filled),
        "expect": replayed and replayed.to_mapping(),
    }


def _lines(filled: Filled, out: Path, replayed: Replay | None) -> list[str]:
    rows = _populations(filled)
    lines = [
        f"  {row['name']:<16} {row['type']:<8} reset {row['reset']}, fires {row['fires']}, starts "
        f"at {row['start']}, spikes {row['spikes']}, leak {row['leak']}, dt_s {row['dt_s']:g}"
        for row in rows
        if "reset" in row
    ]
    if replayed is not None:
        lines.append(replayed.line())
    if replayed is None or not replayed.differing:
        lines.append(f"wrote {out} ({out.stat().st_size:,} bytes)")
    else:
        show(f"mpsl: not what {filled.plan.source} is expected to do; nothing written", err=True)
    return lines
