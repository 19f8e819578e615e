"""`mpsl replay`: recordings in, events to a live address out."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from mpsl_runtime.terminal import show, show_json
from mpsl_runtime.verbs.options import Json

__all__ = ["replay"]


def replay(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... ADDRESS", help="Recordings, then udp://, udp+spif:// or tcp://."
        ),
    ],
    speed: Annotated[
        float,
        typer.Option(
            min=1e-6, max=math.inf, help="1 is as fast as the camera was, inf does not wait."
        ),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Send recordings to a live address, as the camera would.

    Over tcp:// we listen, and the first who connects gets the bytes of the file.

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
