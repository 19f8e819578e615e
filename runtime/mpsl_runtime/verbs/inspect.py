"""`mpsl inspect`: a model or a run folder in, a table or JSON out."""

from __future__ import annotations

from typing import Annotated

import typer

from mpsl_runtime.terminal import show_json, show_lines
from mpsl_runtime.verbs.options import Json, StepSeconds

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN", help="A .nir or .onnx file, a model's name, or a run folder."
        ),
    ],
    dt_s: StepSeconds = None,
    as_json: Json = False,
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
