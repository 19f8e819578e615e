"""What is printed: text of any origin, as lines that no terminal can be fooled or stopped by.

Names of files, nodes and classes come from strangers. Everything that a verb prints goes through
here: what is not printable is escaped, an encoding that lacks a character does not stop the
command, a closed stream is as good as none, and a full disk is one error.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from mpsl_runtime.errors import OutputError, plain

__all__ = [
    "Level",
    "clear_progress",
    "flush",
    "log_as_json",
    "prepare",
    "settle",
    "show",
    "show_json",
    "show_lines",
    "show_progress",
    "tell",
]

_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}

Level = Literal["info", "warning", "error"]


class _Log:
    """How stderr is written."""

    is_json = False


_log = _Log()


def show(line: str, *, err: bool = False) -> None:
    """Prints one line on stdout, or on stderr, at once.

    Raises:
        OutputError: the stream takes nothing more, as on a full disk.
        BrokenPipeError: its reader has gone.
    """
    if err and _log.is_json:
        _write(_record(line, "info", {}), err=True)
    else:
        _write(plain(line) + "\n", err)


def tell(message: str, *, level: Level = "info", **values: object) -> None:
    """Says on stderr what happens: a line for people, or, after `log_as_json`, for programs.

    Args:
        message: one sentence. level: of the log.
        values: the same for programs, under names of their own.

    Raises:
        OutputError, BrokenPipeError: see `show`.
    """
    line = _record(message, level, values) if _log.is_json else f"mpsl: {plain(message)}\n"
    _write(line, err=True)


def log_as_json(wanted: bool = True) -> None:
    """From now on every line on stderr is one JSON object: `time` (ISO 8601, UTC), `level`,
    `message`, and the values of `tell`."""
    _log.is_json = wanted


def _record(message: str, level: Level, values: Mapping[str, object]) -> str:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {"time": time, "level": level, "message": plain(message), **values}
    return json.dumps(_json(record), allow_nan=False) + "\n"


def show_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Prints the lines of a table; see `show`."""
    for line in lines:
        show(line, err=err)


def show_json(document: object) -> None:
    """Prints `document` as JSON on one line of stdout; numbers that JSON lacks become null."""
    _write(json.dumps(_json(document), allow_nan=False) + "\n", err=False)


def show_progress(line: str, *, done: bool = False) -> None:
    """Prints over the last progress line of stderr; `done`: what follows comes below it."""
    _write("\r" + plain(line) + ("\n" if done else ""), err=True)


def clear_progress() -> None:
    """Wipes the progress line off the terminal."""
    _write("\r\x1b[K", err=True)


def prepare() -> None:
    """Makes the streams of this process safe to print on. Before anything is opened or printed.

    A descriptor that is closed (`>&-`) would be given to the next file that is opened, and what is
    printed would land in that file: it becomes /dev/null. Characters that the terminal's encoding
    lacks are escaped.
    """
    log_as_json(False)
    for descriptor, name in _NAMES.items():
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number: this one, since those below are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Writes out what others have printed on stdout; raises as `show` does."""
    _write("", err=False)


def settle() -> None:
    """Writes out what still waits, or gives it up: nothing is left for the end of Python to fail
    on. After the last line."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _give_up(stream)


def _give_up(stream: TextIO) -> None:
    """What still waits in `stream` goes nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        return


def _write(text: str, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up(stream)
        name = "stderr" if err else "stdout"
        raise OutputError("cannot write output", got=error.strerror, where=name) from error


def _json(value: Any) -> Any:
    """`value` with null for what JSON has no number for, and paths as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
