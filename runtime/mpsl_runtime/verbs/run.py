"""`mpsl run`: a model and what it is shown in, decisions out."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsl_runtime.terminal import show, show_json, tell
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import policy as policies
from mpsl_runtime.verbs import service as services
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json, MemoryLimit, ModelName
from mpsl_runtime.verbs.summary import print_losses, print_summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mpsl_runtime.data.images import Image
    from mpsl_runtime.events.steps import Recording
    from mpsl_runtime.live.feed import Feed
    from mpsl_runtime.run.decisions import Prediction, Step
    from mpsl_runtime.run.loop import Loop
    from mpsl_runtime.run.model import Model
    from mpsl_runtime.run.policies import Policy
    from mpsl_runtime.run.watcher import Watcher
    from mpsl_runtime.service.service import Service, ServiceSettings

__all__ = ["run"]

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Recordings (RAW, DAT, AEDAT, ES, CSV, .bin), a folder or zip of "
        "[Train|Test]/<label>/<file>, - for standard input, or a live address: udp:// "
        "udp+spif:// udp+faery:// tcp:// dv:// with host:port, camera://. For a model of images: "
        "pictures, .npy, IDX files (with their labels beside), or a folder of them.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Picture of the first recording (.png .svg .pdf)."),
]
EngineOption = Annotated[str, typer.Option(help="native or reference (numpy).")]
Plastic = Annotated[
    str | None,
    typer.Option(
        metavar="LAYERS",
        help="Layers that go on learning, without labels: all, or L02,L03. Of a model that "
        "`mpsl export --plastic` wrote. [none]",
    ),
]
ResetBanks = Annotated[
    str,
    typer.Option(metavar="WHEN", help="--plastic: never, or window: banks begin each anew."),
]
Threads = Annotated[
    int, typer.Option(metavar="N", min=1, max=1024, help="Of the native engine; the same spikes.")
]


# Of a recording's events and time; images have neither.
_OF_EVENTS = (
    "every", "onset", "hold_ms", "least_events", "step_us", *sources.NAMES,
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
    steps: sources.Steps = None,
    step_us: sources.StepUs = None,
    source_dialect: foreign.From = "auto",
    reset: foreign.ResetWord = None,
    fires: foreign.FiresWord = None,
    spikes: foreign.SpikesWord = None,
    leak: foreign.LeakWord = None,
    start: foreign.StartWord = None,
    norm_input: foreign.NormInput = None,
    dt_s: foreign.StepSeconds = None,
    coding: foreign.CodingWord = None,
    classes: foreign.Classes = None,
    plot: Plot = None,
    engine: EngineOption = "native",
    threads: Threads = 1,
    plastic: Plastic = None,
    reset_banks: ResetBanks = "never",
    fit: sources.Fit = False,
    crop: sources.Crop = None,
    downsample: sources.Downsample = 1,
    flip: sources.FlipWord = "",
    sensor: sources.Sensor = None,
    hot_pixels: sources.HotPixels = None,
    background_us: sources.Background = None,
    refractory_us: sources.Refractory = None,
    polarity: sources.Polarity = "keep",
    strict: sources.Strict = False,
    sort_window: sources.SortWindow = None,
    stream_name: sources.StreamName = None,
    columns: sources.Columns = None,
    time_unit: sources.TimeUnitName = None,
    timeout_s: sources.Timeout = None,
    serve: services.ServeWord = None,
    token_file: services.TokenFile = None,
    state: services.StateOption = None,
    state_every: services.StateEvery = 0.0,
    log: services.LogWord = "text",
    reorder_ms: sources.ReorderMs = 5.0,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Run a network on recordings, a live stream, or images.

    Prints a line a step, a prediction a window and a summary; for images and labelled recordings,
    one line each and the accuracy. A live source ends with its sender, with Ctrl-C, or with
    SIGTERM.

    Example: mpsl run nmnist8-small recording.bin --plot out.png
    """
    from mpsl_runtime.run.opening import model_of
    from mpsl_runtime.run.plotting import check_plot

    if plot is not None:
        check_plot(plot)
    settings = services.service_settings(serve, token_file, state, state_every)
    given = {name: context.params[name] for name in sources.NAMES} | {"serve": serve is not None}
    plan = foreign.filled_model(model, context.params, overrules=True).plan
    _check_learning(context, plastic, settings)
    loaded = model_of(
        plan, engine=engine, steps=steps, step_us=step_us, threads=threads,  # type: ignore[arg-type]
        plastic=plastic, banks_reset=reset_banks,  # type: ignore[arg-type]
    )  # fmt: skip
    found: Feed | Iterator[Image]
    if loaded.takes_images:
        _refuse(context, _OF_EVENTS)
        found = _images(source, loaded)
    else:
        found = loaded.feed(source, say=_say_of_source, **sources.stream_options(given))
    chosen = policies.policy_of(
        policy,
        loaded.metadata,
        every=every,
        onset=onset,
        early_margin=early_margin,
        hold_ms=hold_ms,
        least_events=least_events,
        least_score=least_score,
        least_margin=least_margin,
    )
    _show_all(loaded, found, chosen, plot, settings, as_json=as_json)


def _check_learning(context: typer.Context, plastic: str | None, settings: ServiceSettings) -> None:
    """Raises UsageError for what does not go with banks that learn, before anything runs."""
    from mpsl_runtime.errors import UsageError

    if plastic is None:
        source = context.get_parameter_source("reset_banks")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError("no banks learn that could be reset", expected="--plastic LAYERS",
                             where="--reset-banks")  # fmt: skip
        return
    if settings.state is not None:
        raise UsageError("the banks of a network that learns are not kept in a state file",
                         got="--plastic", expected="no --state")  # fmt: skip


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


def _images(words: Sequence[str], model: Model) -> Iterator[Image]:
    """The images of all sources; every path is looked at before the first is run."""
    from itertools import chain

    from mpsl_runtime.data.images import images_of
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.live.address import is_live

    if any(is_live(word) for word in words):
        raise UsageError(
            "model of images takes no live source", got=words[0], where=model.plan.source
        )
    return chain.from_iterable([images_of(word, model.plan) for word in words])


def _show_all(
    model: Model,
    found: Feed | Iterator[Image],
    policy: Policy,
    plot: Path | None,
    settings: ServiceSettings,
    *,
    as_json: bool,
) -> None:
    """Runs all that is shown and prints what comes, and what did not come through."""
    from mpsl_runtime.live.feed import Feed
    from mpsl_runtime.run.plotting import save_plot
    from mpsl_runtime.run.watcher import Watcher
    from mpsl_runtime.service.service import Service

    feed = found if isinstance(found, Feed) else None
    watcher: Watcher | None = None
    shown: Iterable[Recording] | Iterable[Image] = found
    if plot is not None:
        watcher = Watcher() if feed is None else Watcher(model.binning)
        if feed is not None:
            feed.on_camera = watcher.see_camera
        shown = watcher.watch(found)
    stream = model.stream(shown, policy, feed=feed)
    service = Service(model, stream, settings, say=tell)
    with _ended_by_sigterm(service):
        with service:
            if feed is not None and feed.source is not None:
                feed.source.open()
                tell(feed.source.doing, address=feed.source.address)
            service.ready()
            _consume(stream, model, watcher, service, as_json=as_json)
        learned = None if model.plastic is None else model.plastic.facts()
        print_summary(stream.summary, learned, as_json=as_json)
        if feed is not None:
            print_losses(feed.counts())
        if watcher is not None and plot is not None:
            save_plot(plot, watcher, model.class_names)
            show(f"picture: {plot}", err=True)


def _consume(
    stream: Loop, model: Model, watcher: Watcher | None, service: Service, *, as_json: bool
) -> None:
    """Prints what the stream gives, to its end, to Ctrl-C or to SIGTERM."""
    from mpsl_runtime.run.silence import SilenceWatch

    is_live = stream.feed is not None and stream.feed.source is not None
    silence = SilenceWatch(model.plan)
    with stream:
        try:
            for item in stream:
                _say_if(silence.see(item))
                if watcher is not None:
                    watcher.see(item)
                if as_json:
                    show_json(item.to_mapping())
                else:
                    _print_item(item, model)
        except KeyboardInterrupt:
            if not is_live:
                raise
            service.interrupted()
    _say_if(silence.end())
    _say_if(silence.total)


@contextmanager
def _ended_by_sigterm(service: Service) -> Iterator[None]:
    """SIGTERM ends the run after its step, with its totals, as whoever sends it expects; one that
    comes while they are printed changes nothing."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: service.stop())
    except ValueError:  # not the main thread: the program around us has its own ways
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_of_source(line: str) -> None:
    tell(line, level="warning")


def _say_if(line: str | None) -> None:
    if line is not None:
        tell(line, level="warning")


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
