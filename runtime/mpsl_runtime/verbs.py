"""The verbs of this distribution: run, replay, inspect, bench. numpy comes when one is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import show, show_json, show_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpsl_runtime.events.binning import Binning
    from mpsl_runtime.events.options import ReadOptions
    from mpsl_runtime.events.steps import Recording
    from mpsl_runtime.run.model import Model
    from mpsl_runtime.run.stream import Prediction, Step, Summary

__all__ = ["bench", "inspect", "register", "replay", "run"]

_Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .nir file, or the name of a model: nmnist8-small.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
_StepSeconds = Annotated[
    float | None,
    typer.Option(
        "--dt-s",
        metavar="S",
        help="Seconds that a step of a .nir without our metadata stands for; to run it on events, "
        "give --steps and --step-us too.",
    ),
]


def run(
    model: _Model,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Recordings (RAW, DAT, AEDAT, ES, CSV, .bin), a folder or zip of "
            "[Train|Test]/<label>/<file>, or udp://host:port.",
        ),
    ],
    policy: Annotated[
        str,
        typer.Option(
            help="tumbling: reset every T steps, a prediction each. continuous: the state runs on."
        ),
    ] = "tumbling",
    steps: Annotated[
        int | None, typer.Option(metavar="T", min=1, help="Steps of a window. [the model's]")
    ] = None,
    step_us: Annotated[
        int | None,
        typer.Option("--step-us", metavar="N", min=1, help="Microseconds a step. [the model's]"),
    ] = None,
    dt_s: _StepSeconds = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Picture of the first recording (.png .svg .pdf)."),
    ] = None,
    engine: Annotated[str, typer.Option(help="native or reference (numpy).")] = "native",
    threads: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of the native engine; the same spikes.")
    ] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="What is not whole in a recording is an error.")
    ] = False,
    sort_window: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Put events that come so late in their place."),
    ] = None,
    stream_name: Annotated[
        str | None,
        typer.Option("--stream", metavar="NAME", help="Which of several streams in a file."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="x,y,p,t", help="Order in a text without names; - for others."),
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(metavar="s|ms|us|ns", help="Of a text that does not say it.")
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout-s", metavar="S", help="Live: end after so long without a word."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Run a network on recordings or a live stream, event by event.

    Prints a line a step, a prediction a window and a summary; for labelled recordings, one line
    each and the accuracy. A live source ends with its sender, or with Ctrl-C.

    Example: mpsl run model.nir recording.bin --plot out.png
    """
    from mpsl_runtime.events.options import ReadOptions
    from mpsl_runtime.live.sources import check_source_words, is_live
    from mpsl_runtime.run.model import load
    from mpsl_runtime.run.plotting import Watcher, check_plot, save_plot

    check_source_words(source)
    if plot is not None:
        check_plot(plot)
    loaded = load(
        model,
        engine=engine,  # type: ignore[arg-type]
        dt_s=dt_s,
        steps=steps,
        step_us=step_us,
        threads=threads,
    )
    binning = loaded.binning
    watcher = Watcher(binning.sensor_size) if plot is not None else None
    options = ReadOptions(
        strict=strict,
        sort_window_ms=sort_window,
        stream=stream_name,
        columns=columns,
        time_unit=time_unit,  # type: ignore[arg-type]
    )
    found = _recordings(source, binning, loaded.class_names, timeout_s, options)
    stream = loaded.stream(watcher.watch(found) if watcher is not None else found, policy)
    live = any(is_live(word) for word in source)
    try:
        for item in stream:
            if watcher is not None:
                watcher.see(item)
            if as_json:
                show_json(item.to_mapping())
            else:
                _print_item(item, loaded)
    except KeyboardInterrupt:
        if not live:
            raise
        stream.close()
    _print_summary(stream.summary, as_json=as_json)
    if watcher is not None and plot is not None:
        save_plot(plot, watcher, loaded.class_names, binning.step_us)
        show(f"picture: {plot}", err=True)


def _recordings(
    words: Sequence[str],
    binning: Binning,
    class_names: Sequence[str],
    timeout_s: float | None,
    options: ReadOptions,
) -> Iterator[Recording]:
    """The recordings of all sources; every path is looked at before the first is run."""
    from itertools import chain

    from mpsl_runtime.live.live import UdpSource
    from mpsl_runtime.live.sources import is_live, recordings

    if any(is_live(word) for word in words):
        source = UdpSource(
            words[0],
            sensor_size=binning.sensor_size,
            timeout_s=timeout_s,
            on_ignored=lambda why: show(f"mpsl: datagrams ignored: {why}", err=True),
        )
        return _live(source)
    return chain.from_iterable(
        [recordings(word, binning, class_names, options=options, on_trouble=_say) for word in words]
    )


def _say(line: str) -> None:
    show(f"mpsl: {line}", err=True)


def _live(source: Any) -> Iterator[Recording]:
    with source:
        show(f"mpsl: listening at {source.address}", err=True)
        yield from source.recordings()
    ignored = sum(source.ignored.values())
    if source.lost or ignored:
        show(f"mpsl: datagrams lost {source.lost}, ignored {ignored}", err=True)


def _print_item(item: Step | Prediction, model: Model) -> None:
    """A line for people; of labelled recordings, usually many, only the predictions."""
    from mpsl_runtime.run.stream import Step

    name = model.class_names[item.label]
    if isinstance(item, Step):
        if item.target is not None:
            return
        show(
            f"{item.t_us / 1000:>12.3f} ms  step {item.step:<5} {item.events:>6} events  "
            f"{name:>8}  {item.confidence:>6.1%}  {item.compute_us:>8.0f} µs"
        )
        return
    verdict = ""
    if item.target is not None:
        right = item.target == item.label
        verdict = "  right" if right else f"  wrong, it is {model.class_names[item.target]}"
    show(f"{item.file}: {name}{verdict}")


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        show_json(summary.to_mapping())
        return
    latency = summary.latency_us
    show_lines(
        [
            "",
            f"{summary.samples} predictions, {summary.steps} steps, {summary.events:,} events "
            f"({summary.truncated:,} after the last step, {summary.dropped:,} lost)",
            f"latency of a step: p50 {latency['p50']:.0f} µs, p95 {latency['p95']:.0f}, "
            f"p99 {latency['p99']:.0f}, max {latency['max']:.0f}",
            f"{summary.events_per_s:,.0f} events/s, {summary.real_time_factor:.1f} times real "
            f"time, {summary.synops:,} synaptic operations",
        ]
    )
    if summary.accuracy is not None:
        show(f"accuracy {summary.accuracy:.2%}")


def replay(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE... ADDRESS", help="Recordings, then udp://….")
    ],
    speed: Annotated[float, typer.Option(help="1 is as fast as the camera was.")] = 1.0,
    as_json: _Json = False,
) -> None:
    """Send recordings to a live address, as the camera would.

    Example: mpsl replay recording.bin udp://localhost:3333 --speed 1
    """
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.live.replay import replay as send

    if len(files) < 2:
        raise UsageError(
            "too few arguments", got=len(files), expected="a recording, then udp://host:port"
        )
    sent = send(files[:-1], files[-1], speed=speed)
    if as_json:
        show_json(sent.__dict__)
        return
    show(f"sent {sent.events:,} events of {sent.recordings} recordings, {sent.datagrams} datagrams")


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN", help="A .nir or .onnx file, a model's name, or a run folder."
        ),
    ],
    dt_s: _StepSeconds = None,
    as_json: _Json = False,
) -> None:
    """Show what a model or a run folder holds.

    Example: mpsl inspect mnist-small
    """
    from mpsl_runtime.inspection import describe, lines
    from mpsl_runtime.zoo import find_model

    description = describe(find_model(path, folders=True), dt_s=dt_s)
    if as_json:
        show_json(description)
        return
    show_lines(lines(description))


def bench(
    model: _Model,
    against: Annotated[
        str, typer.Option(metavar="NAMES", help="Also run: onnx, torch, or onnx,torch.")
    ] = "",
    density: Annotated[
        str,
        typer.Option(
            metavar="D,D,...", help="Force every layer to fire so often, 0.05 is 5 %. [as it is]"
        ),
    ] = "",
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Recordings, as for `run`. [the model's test set, where it is found and no "
            "density is forced; else synthetic events]",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where the test set lies.")
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Recordings or test samples to take.")
    ] = 8,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Of every program.")] = 1,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Turns of every program; medians count.")
    ] = 15,
    dt_s: _StepSeconds = None,
    as_json: _Json = False,
) -> None:
    """Measure the engine, in turns with other programs, and check that outputs are equal.

    Exit code 1: outputs differ.

    Example: mpsl bench model.nir --against onnx --density 0.01,0.05
    """
    from mpsl_runtime.bench.bench import benchmark, lines, processor, roofline
    from mpsl_runtime.bench.inputs import from_test_set, recorded, synthetic
    from mpsl_runtime.bench.programs import find_programs
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.model.graph import load_plan
    from mpsl_runtime.run.engine import Engine
    from mpsl_runtime.zoo import find_model

    if source is not None and data is not None:
        raise UsageError("input is given twice", got="--source and --data", expected="one of them")
    wanted: list[float | None] = [*_densities(density)] or [None]
    programs = find_programs([name.strip() for name in against.split(",") if name.strip()])
    plan = load_plan(find_model(model), dt_s=dt_s)
    given = None
    if source is not None:
        given = recorded(plan, source, samples)
    elif data is not None or not density:
        given = from_test_set(plan, data, samples)
    given = given or synthetic(plan)
    rows = []
    for value in wanted:
        rows.append(
            benchmark(plan, given, programs=programs, density=value, threads=threads, rounds=rounds)
        )
    limits = roofline()
    about = {"device": processor(), "isa": Engine(plan, threads=threads).isa}
    if as_json:
        from mpsl_runtime import __version__

        document = {
            **about,
            "rows": [row.to_mapping(limits) for row in rows],
            "threads": threads,
            "roofline_gsops": limits,
            "version": __version__,
            "command": " ".join(["mpsl", *sys.argv[1:]]),
        }
        show_json(document)
    else:
        show(f"{about['device']}, {about['isa']}, threads: {threads}")
        show_lines(lines(rows, limits))
    if not all(row.equal for row in rows):
        show("mpsl: outputs differ between programs; see `mpsl verify`", err=True)
        raise typer.Exit(1)


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


def register(app: typer.Typer) -> None:
    """Adds the verbs to `mpsl`."""
    app.command("run", rich_help_panel=Purpose.RUN)(run)
    app.command("replay", rich_help_panel=Purpose.RUN)(replay)
    app.command("inspect", rich_help_panel=Purpose.PROVE)(inspect)
    app.command("bench", rich_help_panel=Purpose.PROVE)(bench)
