"""The command `mpsl`. Imports typer and the standard library alone, so that help comes at once.

Other distributions add verbs through the entry-point group `mpsl.commands`: a function
`register(app: typer.Typer) -> None`, which says of each verb what it is for (`purposes`). Whatever
goes wrong is one line on stderr and one of the exit codes of `Code`.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import wraps
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from mpsl_runtime.errors import MpslError, UsageError
from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import flush, prepare, settle, show, tell

__all__ = ["Code", "build", "main"]


class Code(IntEnum):
    """How a command ends. 1 means that and nothing else: scripts wait for it."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    FAULT = 70
    INTERRUPTED = 130
    NO_READER = 141


_EPILOG = """Example: mpsl train dvs-digits --out runs/a && mpsl export runs/a --format nir

\b
Exit codes:
  0    done; for verify, bench and card: nothing differs
  1    verification failed, outputs differ
  2    bad input or usage, told in one line on stderr; nothing is half-written
  70   a fault of mpsl itself (mpsl --debug shows where)
  130  Ctrl-C
  141  the reader of stdout has gone, as with | head
"""

# Of a verb that names no purpose.
_UNNAMED = "More"


class _Verbs(TyperGroup):
    """Lists the verbs by what they are for, each in the order in which they were registered."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Called by the help page."""
        shown = {name: verb for name, verb in self.commands.items() if not verb.hidden}
        width = max(map(len, shown), default=0)
        groups: dict[str, list[tuple[str, str]]] = {purpose: [] for purpose in Purpose}
        for name, verb in shown.items():
            row = (name.ljust(width), verb.get_short_help_str(formatter.width - width - 6))
            purpose = getattr(verb, "rich_help_panel", None)
            groups.setdefault(purpose if isinstance(purpose, str) else _UNNAMED, []).append(row)
        for purpose, rows in groups.items():
            if rows:
                with formatter.section(str(purpose)):
                    formatter.write_dl(rows)


def _version(wanted: bool) -> None:
    if wanted:
        from mpsl_runtime import __version__

        show(f"mpsl {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The application with the verbs of every distribution that is installed."""
    app = typer.Typer(
        name="mpsl",
        cls=_Verbs,
        add_completion=False,
        no_args_is_help=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(epilog=_EPILOG)
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Print the version."
        ),
        debug: bool = typer.Option(
            False, "--debug", help="Before the verb: show the traceback of whatever goes wrong."
        ),
    ) -> None:
        """Train spiking networks with several plasticity rules, merge them, run them on events."""

    from mpsl_runtime import verbs

    verbs.register(app)
    # Within a distribution, as it lists them: so does the help.
    for entry in sorted(entry_points(group="mpsl.commands"), key=_distribution):
        try:
            entry.load()(app)
        except Exception as error:  # one broken add-on must not take `mpsl run` with it
            _say(f"add-on {entry.name!r} cannot be loaded: {error}", Code.DONE)
    _refuse_nan(app)
    return app


def _refuse_nan(app: typer.Typer) -> None:
    """No number of a command line may be NaN: it passes every `min` and `max`."""

    def guarded(verb: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(verb)
        def call(*values: Any, **named: Any) -> Any:
            for name, value in named.items():
                if isinstance(value, float) and math.isnan(value):
                    option = f"--{name.strip('_').replace('_', '-')}"
                    raise UsageError("no number", got="nan", expected="a number", where=option)
            return verb(*values, **named)

        return call

    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = guarded(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _refuse_nan(group.typer_instance)


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with one of the codes that `mpsl --help` lists."""
    prepare()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    finally:
        settle()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    debug = False
    try:
        command: Any = typer.main.get_command(build())
        with command.make_context("mpsl", list(arguments) or ["--help"]) as context:
            debug = bool(context.params.get("debug"))
            command.invoke(context)
        flush()
        return Code.DONE
    except typer.Exit as done:
        return _flushed(int(done.exit_code))
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        return _told(error, arguments)


def _flushed(code: int) -> int:
    try:
        flush()
    except (MpslError, BrokenPipeError) as error:
        return _told(error)
    return code


def _told(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Says in one line what went wrong; returns the exit code.

    Args:
        arguments: of the command line, for the value that an option was given.
    """
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _say(str(error) or "interrupted", Code.INTERRUPTED)
    if isinstance(error, MpslError):
        return _say(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):  # the reader (`| head`) has gone; nobody is to be told
        return Code.NO_READER
    if isinstance(error, OSError):
        where = f"; in {error.filename}" if error.filename else ""
        return _say(f"{error.strerror or error}{where}", Code.BAD_INPUT)
    if isinstance(error, MemoryError):
        return _say("not enough memory", Code.BAD_INPUT)
    # Wrong usage: typer brings its own click, older ones the real one; both can say this.
    message = getattr(error, "format_message", None)
    if message is not None:
        line, given = str(message()).rstrip(), _given(error, arguments)
        if given is not None and given not in line:
            line = f"{line.rstrip('.')}; got {given}"
        return _say(f"{line} (try --help)", Code.BAD_INPUT)
    return _say(
        f"fault in mpsl itself: {type(error).__name__}: {error} (mpsl --debug … shows where)",
        Code.FAULT,
    )


def _given(error: BaseException, arguments: Sequence[str]) -> str | None:
    """The value of the option that an error of typer is about: its ranges do not say it."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, following in zip(arguments, [*arguments[1:], None], strict=True):
            if word == option:
                return following
            if word.startswith(f"{option}="):
                return word.removeprefix(f"{option}=")
    return None


def _say(line: str, code: int) -> int:
    # With stderr full or gone, the exit code says it alone.
    with suppress(MpslError, BrokenPipeError):
        tell(str(MpslError(line)), level="error")
    return code
