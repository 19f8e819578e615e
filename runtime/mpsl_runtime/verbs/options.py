"""Options that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Json", "MemoryLimit", "ModelName"]


def _limit_memory(context: typer.Context, value: str | None) -> str | None:
    """Every engine of this call keeps to it."""
    if value is not None:
        from mpsl_runtime.run.memory import memory_limited, parse_memory

        context.with_resource(memory_limited(parse_memory(value)))
    return value


MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        callback=_limit_memory,
        help="What the model may take at most, for example 512MiB. [2GiB]",
    ),
]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .nir file, or the name of a model: nmnist8-small.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
