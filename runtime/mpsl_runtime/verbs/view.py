"""`mpsl view`: models and a source in, a page that shows both out."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.terminal import show, show_json, tell
from mpsl_runtime.verbs import policy as policies
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.notes import show_notes
from mpsl_runtime.verbs.options import Json, MemoryLimit
from mpsl_runtime.verbs.summary import print_losses, print_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mpsl_runtime.view.film import Film
    from mpsl_runtime.view.server import Server
    from mpsl_runtime.view.session import Session, Shown

__all__ = ["view"]

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL... SOURCE",
        help="Models (.nir files or names) to show beside each other, then recordings or a live "
        "address, as for `mpsl run`.",
    ),
]
Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65_535, help="Of the page; 0: one that is free.")
]
Host = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="Where to listen; beyond this machine a token is asked."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="The page must show what is in it. [$MPSL_TOKEN, else made where one is needed]",
    ),
]
Speed = Annotated[
    float, typer.Option(metavar="X", min=1 / 64, max=64, help="Of files: 1 is the camera's own.")
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A film of it, .gif (a minute at most) or .mp4. A file is then played once, at once.",
    ),
]
Threads = Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Of each native engine.")]


def view(
    context: typer.Context,
    words: Words,
    port: Port = 8642,
    host: Host = "127.0.0.1",
    token_file: TokenFile = None,
    speed: Speed = 1.0,
    record: Record = None,
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
    threads: Threads = 1,
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
    serve: sources.Serve = False,
    reorder_ms: sources.ReorderMs = 5.0,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Watch networks on recordings or a live stream, in a browser.

    The page shows the events, what each network is given, its scores and answers. A file begins
    when the page is opened. Ends with Ctrl-C or SIGTERM, or with its live source.

    Example: mpsl view nmnist8-small recording.bin --speed 0.1
    """
    from mpsl_runtime.service.access import read_token
    from mpsl_runtime.view.server import Server, check_extra
    from mpsl_runtime.view.session import Session

    check_extra()
    given = {name: context.params[name] for name in sources.NAMES}
    rule = {
        "every": every, "onset": onset, "early_margin": early_margin, "hold_ms": hold_ms,
        "least_events": least_events, "least_score": least_score, "least_margin": least_margin,
    }  # fmt: skip
    token = read_token(token_file)
    shown = _models(words, policy, rule, {"steps": steps, "step_us": step_us, "threads": threads})
    options = sources.stream_options(given)
    session = Session(shown, words[-1], options, speed=speed, once=record is not None, say=tell)
    _serve(
        session,
        lambda: Server(session, host, port, token=token, say=tell),
        None if record is None else _film(record, shown),
        as_json=as_json,
    )


def _models(
    words: Sequence[str], policy: str, rule: dict[str, Any], how: dict[str, Any]
) -> list[Shown]:
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.run.opening import load
    from mpsl_runtime.view.session import MOST_MODELS, Shown

    if not 2 <= len(words) <= MOST_MODELS + 1:
        raise UsageError(
            "cannot be viewed",
            got=f"{len(words)} arguments",
            expected=f"1 … {MOST_MODELS} models, then a source",
        )
    shown = []
    for word in words[:-1]:
        model = load(word, **how)
        show_notes(model.plan)
        path = Path(word)
        name = path.stem if path.stem != "model" or not path.parent.name else path.parent.name
        shown.append(Shown(name, model, policies.policy_of(policy, model.metadata, **rule)))
    return shown


def _film(path: Path, shown: Sequence[Shown]) -> Film:
    from mpsl_runtime.view.film import Film

    return Film(
        path,
        [each.name for each in shown],
        [tuple(each.model.class_names) for each in shown],
        say=tell,
    )


def _serve(
    session: Session, listen: Callable[[], Server], film: Film | None, *, as_json: bool
) -> None:
    """Shows it until it ends, and says what there was."""
    from mpsl_runtime.view.composer import Composer, Frame

    server = listen()

    def see(frame: Frame) -> None:
        server.see(frame)
        if film is not None:
            film.see(frame)

    composer = Composer(session, see, lambda: film is not None or server.is_watched)
    try:
        if film is not None:
            film.start()
        with _ended_by_signals(session.ended):
            session.start()
            server.start()
            composer.start()
            if as_json:
                show_json({"view": {"url": server.url}})
            else:
                show(f"watch at {server.url}")
            session.ended.wait()
    finally:
        composer.stop()
        server.stop()
        session.stop()
        if film is not None:
            film.close()
    if session.error is not None:
        raise session.error
    for channel in session.channels:
        if len(session.channels) > 1 and not as_json:
            show(f"{channel.name}:")
        print_summary(channel.stream.summary, as_json=as_json)
        if channel.stream.feed is not None:
            print_losses(channel.stream.feed.counts())
    print_losses({"pictures left out for slow pages": {"pictures": server.dropped}})
    if film is not None:
        print_losses({"pictures left out of the film": {"pictures": film.dropped}})


@contextmanager
def _ended_by_signals(ended: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end it after the step that runs, with its totals."""
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: ended.set())
    except ValueError:  # not the main thread: the program around us has its own ways
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
