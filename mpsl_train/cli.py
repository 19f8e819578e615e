"""`mpsl train`, and the verbs of the rooms. Imports typer alone: torch comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import show, show_json

__all__ = ["register", "train"]


Recipe = Annotated[str, typer.Argument(help="A name in models/, or a path to a .toml file.")]
Data = Annotated[
    Path | None,
    typer.Option(help="The data set's folder or its parent. [$MPSL_DATA/<data set>]"),
]
Out = Annotated[
    Path | None, typer.Option(help="Run folder to write. [runs/<recipe>[-<method>]-s<seed>]")
]
Method = Annotated[
    str | None,
    typer.Option(help="Train the recipe by another method: stbp, hgll, sbp, stdp, mpsl."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe field; repeatable."),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="Python file with a rule of your own, which runs; repeatable."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Processes on this host, each with a device of its own. [torchrun's, 1]",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")]
Json = Annotated[bool, typer.Option("--json", help="Print report.json on stdout and nothing else.")]


def train(
    recipe: Recipe,
    data: Data = None,
    out: Out = None,
    method: Method = None,
    set_: Changes = None,
    plugins: Plugins = None,
    device: Device = "auto",
    devices: Devices = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a network with one weight bank for each mechanism.

    Example: mpsl train dvs-digits --out runs/demo --set training.epochs=5
    """
    from mpsl_train import recipe as recipes

    changes = [] if method is None else [f"method={method}"]
    chosen = recipes.load(recipes.find_recipe(recipe), [*changes, *(set_ or [])], plugins or [])
    name = "-".join([chosen.name, *([chosen.method] if chosen.method else [])])
    run = out if out is not None else Path("runs") / f"{name}-s{chosen.seed}"
    from mpsl_train.network.finite import NonFiniteError
    from mpsl_train.network.processes import find_processes
    from mpsl_train.training.training import train as run_training

    try:
        result = run_training(chosen, run, data=data, device=device, devices=devices, resume=resume)
    except NonFiniteError as error:
        if find_processes(devices).first:
            raise
        raise typer.Exit(error.exit_code) from None  # all stop at it, and the first says so
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --out {run} --resume continues"
        ) from None
    if not result.report:
        return  # another process of this training has it
    if as_json:
        show_json(result.report)
        return
    report = result.report
    for warning in report["warnings"]:
        show(f"warning: {warning}", err=True)
    show(
        f"test accuracy {report['accuracy']:.2%} on {report['test_samples']} samples, "
        f"{report['epochs']} epochs, {report['training_seconds']:.0f} s; "
        f"run {run} (report.png, evaluation.npz)"
    )


def register(app: typer.Typer) -> None:
    """Adds this distribution's training verbs to `mpsl`."""
    from mpsl_train.data.cli import register_data
    from mpsl_train.experiments.cli import register_experiments

    register_data(app)
    app.command("train", rich_help_panel=Purpose.MAKE)(train)
    register_experiments(app)
