"""The command `mpsl`. Imports typer and the standard library alone, so that help comes at once.

Other distributions add verbs through the entry-point group `mpsl.commands`: a function
`register(app: typer.Typer) -> None`, which says of each verb what it is for (`purposes`). Whatever
goes wrong is one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from mpsl_runtime.errors import MpslError
from mpsl_runtime.purposes import Purpose

__all__ = ["build", "main"]

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

        print(f"mpsl {__version__}")
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

    @app.callback(
        epilog="Example: mpsl train dvs-digits --out runs/a && mpsl export runs/a --format nir"
    )
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Print the version."
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
            reason = str(error).replace("\n", " ")
            print(f"mpsl: add-on {entry.name!r} cannot be loaded: {reason}", file=sys.stderr)
    return app


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits: 0 done, 1 verification failed, 2 bad input, 130 Ctrl-C."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        command: Any = typer.main.get_command(build())
        if not arguments:
            arguments = ["--help"]
        try:
            with command.make_context("mpsl", list(arguments)) as context:
                command.invoke(context)
            sys.stdout.flush()
            return 0
        except typer.Exit as done:
            sys.stdout.flush()
            return int(done.exit_code)
    except KeyboardInterrupt as stop:
        return _say(str(stop) or "interrupted", 130)
    except typer.Abort:
        return _say("interrupted", 130)
    except MpslError as error:
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader has gone (`| head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"; in {error.filename}" if error.filename else ""
        return _say(f"{error.strerror or error}{where}", 2)
    except MemoryError:
        return _say("not enough memory", 2)
    except Exception as error:
        # Wrong usage: typer brings its own click, older ones the real one; both can say this.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return _say(f"{message()} (try --help)", 2)


def _say(line: str, code: int) -> int:
    print(f"mpsl: {' '.join(line.split())}", file=sys.stderr)
    return code
