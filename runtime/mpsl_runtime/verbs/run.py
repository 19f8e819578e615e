"""`mpsl run`: a model and what it is shown in, decisions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.terminal import show, show_json, show_lines
from mpsl_runtime.verbs import policy as policies
from mpsl_runtime.verbs.options import Json, ModelName, StepSeconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpsl_runtime.data.images import Image
    from mpsl_runtime.events.binning import Binning
    from mpsl_runtime.events.options import ReadOptions
    from mpsl_runtime.events.steps import Recording
    from mpsl_runtime.run.decisions import Prediction, Step, Summary
    from mpsl_runtime.run.model import Model
    from mpsl_runtime.run.policies import Policy

__all__ = ["run"]

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Recordings (RAW, DAT, AEDAT, ES, CSV, .bin), a folder or zip of "
        "[Train|Test]/<label>/<file>, or udp://host:port. For a model of images: pictures, .npy, "
        "IDX files (with their labels beside), or a folder of them.",
    ),
]
Steps = Annotated[
    int | None, typer.Option(metavar="T", min=1, help="Steps of a window. [the model's]")
]
StepUs = Annotated[
    int | None,
    typer.Option("--step-us", metavar="N", min=1, help="Microseconds a step. [the model's]"),
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Picture of the first recording (.png .svg .pdf)."),
]
EngineOption = Annotated[str, typer.Option(help="native or reference (numpy).")]
Threads = Annotated[
    int, typer.Option(metavar="N", min=1, help="Of the native engine; the same spikes.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="What is not whole in a recording is an error.")
]
SortWindow = Annotated[
    float | None, typer.Option(metavar="MS", help="Put events that come so late in their place.")
]
StreamName = Annotated[
    str | None,
    typer.Option("--stream", metavar="NAME", help="Which of several streams in a file."),
]
Columns = Annotated[
    str | None, typer.Option(metavar="x,y,p,t", help="Order in a text without names; - for others.")
]
TimeUnit = Annotated[
    str | None, typer.Option(metavar="s|ms|us|ns", help="Of a text that does not say it.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout-s", metavar="S", help="Live: end after so long without a word."),
]


# Of a recording's events and time; images have neither.
_OF_EVENTS = (
    "every", "onset", "hold_ms", "least_events", "step_us", "strict", "sort_window", "stream_name",
    "columns", "time_unit", "timeout_s",
)  # fmt: skip


def run(
    context: typer.Context,
    model: ModelName,
    source: Sources,
    policy: policies.PolicyWord = "auto",
    every: policies.Every = 1,
    onset: policies.OnsetWord = None,
    early_margin: policies.EarlyMargin = None,
    hold_ms: policies.HoldMs = 0.0,
    least_events: policies.LeastEvents = None,
    least_score: policies.LeastScore = None,
    least_margin: policies.LeastMargin = None,
    steps: Steps = None,
    step_us: StepUs = None,
    dt_s: StepSeconds = None,
    plot: Plot = None,
    engine: EngineOption = "native",
    threads: Threads = 1,
    strict: Strict = False,
    sort_window: SortWindow = None,
    stream_name: StreamName = None,
    columns: Columns = None,
    time_unit: TimeUnit = None,
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Run a network on recordings, a live stream, or images.

    Prints a line a step, a prediction a window and a summary; for images and labelled recordings,
    one line each and the accuracy. A live source ends with its sender, or with Ctrl-C.

    Example: mpsl run nmnist8-small recording.bin --plot out.png
    """
    from mpsl_runtime.events.options import ReadOptions
    from mpsl_runtime.live.sources import check_source_words
    from mpsl_runtime.run.model import load
    from mpsl_runtime.run.plotting import check_plot

    check_source_words(source)
    if plot is not None:
        check_plot(plot)
    options = ReadOptions(strict, sort_window, stream_name, columns, time_unit)  # type: ignore[arg-type]
    loaded = load(
        model, engine=engine, dt_s=dt_s, steps=steps, step_us=step_us, threads=threads,  # type: ignore[arg-type]
    )  # fmt: skip
    found: Iterator[Recording] | Iterator[Image]
    if loaded.takes_images:
        _refuse(context, _OF_EVENTS)
        found = _images(source, loaded)
    else:
        found = _recordings(source, loaded.binning, loaded.class_names, timeout_s, options)
    chosen = policies.policy_of(
        policy, loaded.metadata, every=every, onset=onset, early_margin=early_margin,
        hold_ms=hold_ms, least_events=least_events, least_score=least_score,
        least_margin=least_margin,
    )  # fmt: skip
    _show_all(loaded, found, chosen, plot, is_live=_any_live(source), as_json=as_json)


def _refuse(context: typer.Context, names: Sequence[str]) -> None:
    """Raises UsageError for an option that was given and means nothing for images."""
    from mpsl_runtime.errors import UsageError

    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and given is not None and given.name == "COMMANDLINE":
            raise UsageError(
                "option means nothing for a model of images",
                got=parameter.opts[0],
                where=context.params["model"],
            )


def _any_live(words: Sequence[str]) -> bool:
    from mpsl_runtime.live.sources import is_live

    return any(is_live(word) for word in words)


def _images(words: Sequence[str], model: Model) -> Iterator[Image]:
    """The images of all sources; every path is looked at before the first is run."""
    from itertools import chain

    from mpsl_runtime.data.images import images_of
    from mpsl_runtime.errors import UsageError

    if _any_live(words):
        raise UsageError(
            "model of images takes no live source", got=words[0], where=model.plan.source
        )
    return chain.from_iterable([images_of(word, model.plan) for word in words])


def _show_all(
    model: Model,
    found: Iterator[Recording] | Iterator[Image],
    policy: Policy,
    plot: Path | None,
    *,
    is_live: bool,
    as_json: bool,
) -> None:
    """Runs all that is shown and prints what comes; Ctrl-C ends a live source with its summary."""
    from mpsl_runtime.run.plotting import Watcher, save_plot

    step_us = None if model.takes_images else model.binning.step_us
    watcher: Watcher | None = None
    if plot is not None:
        watcher = Watcher() if model.takes_images else Watcher(model.binning.sensor_size)
        found = watcher.watch(found)
    stream = model.stream(found, policy)
    try:
        for item in stream:
            if watcher is not None:
                watcher.see(item)
            if as_json:
                show_json(item.to_mapping())
            else:
                _print_item(item, model)
    except KeyboardInterrupt:
        if not is_live:
            raise
        stream.close()
    _print_summary(stream.summary, as_json=as_json)
    if watcher is not None and plot is not None:
        save_plot(plot, watcher, model.class_names, step_us)
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
    """A line for people; of images and labelled recordings, usually many, only the predictions."""
    from mpsl_runtime.run.decisions import Step

    name = item.class_name
    if isinstance(item, Step):
        if item.target is not None or model.takes_images:
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
    at = "" if item.trial else f" at {item.t_us / 1e6:.3f} s"
    is_one_of_many = item.trial and (item.target is not None or not model.takes_images)
    sure = "" if is_one_of_many or item.label is None else f"  {item.confidence:.1%}"
    show(f"{item.file}{at}: {name}{sure}{verdict}")


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        show_json(summary.to_mapping())
        return
    latency = summary.latency_us
    what, speed = f"{summary.samples} predictions, {summary.steps} steps", ""
    if summary.real_time_factor is not None:
        what += (
            f", {summary.events:,} events ({summary.truncated:,} after the last step, "
            f"{summary.idle:,} outside windows, {summary.dropped:,} lost)"
        )
        speed = (
            f"{summary.events_per_s:,.0f} events/s, {summary.real_time_factor:.1f} times real "
            "time, "
        )
    show_lines(
        [
            "",
            what,
            f"latency of a step: p50 {latency['p50']:.0f} µs, p95 {latency['p95']:.0f}, "
            f"p99 {latency['p99']:.0f}, max {latency['max']:.0f}",
            f"{speed}{summary.synops:,} synaptic operations",
        ]
    )
    if summary.accuracy is not None:
        show(f"accuracy {summary.accuracy:.2%}")
