"""The verbs of experiments. Imports typer alone: torch comes later."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["features", "register_experiments", "robustness"]

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


def robustness(
    run: Runs,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Picture to write; the JSON beside it.")] = Path(
        "robustness.png"
    ),
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Also with rules that go on learning, without labels.")
    ] = False,
    align: Annotated[
        bool,
        typer.Option("--align", help="Also with mean currents shifted back to those of training."),
    ] = False,
    corruption: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Test samples; 0 = all.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Of the corruptions.")] = 5,
    batch: Annotated[int, typer.Option(help="Samples that --adapt and --align see at once.")] = 100,
    as_json: Json = False,
) -> None:
    """Measure runs on spoiled samples: noise, crop, lost and false events, jitter, hot pixels.

    Example: mpsl robustness runs/stbp-* runs/adaptive-* --adapt --align --out robustness.png
    """
    from mpsl_train.experiments.robustness import robustness as measure

    result = measure(
        run, out, data=data, adapt=adapt, align=align, corruptions=corruption or [], limit=limit,
        seeds=seeds, batch=batch, say=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    names = list(result["corruptions"])
    width = max(len(curve["label"]) for curve in result["curves"])
    print(f"{'accuracy in %, mean of all levels but 0':<{width}}  clean " +
          " ".join(f"{name:>11}" for name in names))  # fmt: skip
    for curve in result["curves"]:
        clean = 100 * curve["mean"][names[0]][0]
        means = [100 * sum(curve["mean"][name][1:]) / (len(curve["mean"][name]) - 1)
                 for name in names]  # fmt: skip
        print(f"{curve['label']:<{max(width, 39)}}  {clean:5.1f} "
              + " ".join(f"{value:11.1f}" for value in means))  # fmt: skip
    print(f"{out} {out.with_suffix('.json')}", file=sys.stderr)


def register_experiments(app: typer.Typer) -> None:
    """Adds the experiments to the command."""
    app.command("robustness")(robustness)
    app.command("features")(features)
