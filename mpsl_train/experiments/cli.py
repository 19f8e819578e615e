"""The verbs of experiments. Imports typer alone: torch comes later."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["features", "register_experiments"]

Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of `mpsl train`.")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The data set's folder or its parent. [$MPSL_DATA/<data set>]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the JSON on stdout and nothing else.")]


def features(
    run: Runs,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Picture to write; the JSON beside it.")] = Path(
        "features.png"
    ),
    limit: Annotated[int, typer.Option(help="Test samples; 0 = all.")] = 500,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the samples and of t-SNE.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show how the penultimate layer tells the classes apart: t-SNE and silhouette scores.

    Example: mpsl features runs/stbp runs/mpsl --out features.png
    """
    from mpsl_train.experiments.features import features as embed

    result = embed(run, out, data=data, limit=limit, seed=seed)
    if as_json:
        print(json.dumps(result))
        return
    for row in result["runs"]:
        print(
            f"{row['run']}: silhouette {row['silhouette_features']:.3f} on {row['neurons']} "
            f"features, {row['silhouette_embedding']:.3f} in the plane ({row['samples']} samples)"
        )
    print(f"{out} {out.with_suffix('.json')}", file=sys.stderr)


def register_experiments(app: typer.Typer) -> None:
    """Adds the experiments to the command."""
    app.command("features")(features)
