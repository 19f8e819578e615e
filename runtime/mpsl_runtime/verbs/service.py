"""The options of `mpsl run` for a program that stays: its server, its state, its logs."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from mpsl_runtime.terminal import log_as_json

if TYPE_CHECKING:
    from mpsl_runtime.service.service import ServiceSettings

__all__ = [
    "LogWord",
    "ServeCommand",
    "ServeWord",
    "StateEvery",
    "StateOption",
    "TokenFile",
    "service_settings",
]

DEFAULT_PLACE = "127.0.0.1:9464"
_SERVE = "--serve"
_LOGS = ("text", "json")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*):\d+")


class ServeCommand(TyperCommand):
    """A verb whose option `--serve` may stand with or without a place."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--serve HOST:PORT` and `--serve` as `--serve=…`, as the parser has it; how it logs is
        known before anything can be wrong."""
        log_as_json("--log=json" in args or ("--log", "json") in pairwise(args))
        given: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--":
                given += [word, *rest]
                break
            if word == _SERVE:
                has_place = bool(rest) and _PLACE.fullmatch(rest[0]) is not None
                word = f"{_SERVE}={rest.pop(0) if has_place else DEFAULT_PLACE}"
            given.append(word)
        parsed: list[str] = super().parse_args(ctx, given)
        return parsed


def _log(value: str) -> str:
    if value not in _LOGS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(_LOGS)}")
    return value


ServeWord = Annotated[
    str | None,
    typer.Option(
        _SERVE,
        metavar="[HOST:PORT]",
        help="Stay: /metrics and /healthz there, and a live source goes on when a sender has "
        f"finished. [{DEFAULT_PLACE}]",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="--serve: requests must bring what is in it; needed elsewhere than on 127.0.0.1. "
        "[$MPSL_TOKEN]",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="Keep the running state there, and go on from it: with the next step, however the "
        "program ended.",
    ),
]
StateEvery = Annotated[
    float,
    typer.Option(
        "--state-every",
        metavar="S",
        min=0,
        max=86_400,
        help="--state: write at most so often. [after each step]",
        show_default=False,
    ),
]
LogWord = Annotated[
    str,
    typer.Option(
        "--log",
        metavar="text|json",
        callback=_log,
        help="json: every line on stderr is a JSON object with time, level and message.",
    ),
]


def service_settings(
    serve: str | None, token_file: Path | None, state: Path | None, state_every_s: float
) -> ServiceSettings:
    """What the options ask for.

    Raises:
        UsageError, DataError: a place or a token that cannot be.
    """
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.service.access import parse_place, read_token
    from mpsl_runtime.service.service import ServiceSettings

    if serve is None and token_file is not None:
        raise UsageError("nothing asks for a token", got="--token-file", expected="--serve too")
    return ServiceSettings(
        place=None if serve is None else parse_place(serve),
        token=None if serve is None else read_token(token_file),
        state=state,
        state_every_s=state_every_s,
        stays=serve is not None,
    )
