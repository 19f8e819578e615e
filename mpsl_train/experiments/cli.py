"""The verbs of experiments. Imports typer alone: torch comes later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import show, show_json, show_lines

__all__ = ["ablate", "compare", "features", "register_experiments", "robustness"]

Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of `mpsl train`.")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The data set's folder or its parent. [$MPSL_DATA/<data set>]"
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS",
        help="Train on the hosts of a Ray cluster: auto, HOST:PORT or local. Needs mpsl[ray].",
    ),
]  # fmt: skip
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugins", metavar="FILE",
        help="Python file with a rule of your own, which runs; repeatable.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print the JSON on stdout and nothing else.")]


def features(
    run: Runs,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Picture to write; JSON and CSV beside it.")] = Path(
        "features.png"
    ),
    limit: Annotated[int, typer.Option(min=0, max=10**9, help="Test samples; 0 = all.")] = 500,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the samples and of t-SNE.")
    ] = 0,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show how the penultimate layer tells the classes apart: t-SNE and silhouette scores.

    Example: mpsl features runs/stbp runs/mpsl --out features.png
    """
    from mpsl_train.experiments.features import features as embed
    from mpsl_train.recipe.plugins import allow

    for plugin in plugins or []:
        allow(plugin)
    result = embed(run, out, data=data, limit=limit, seed=seed)
    if as_json:
        show_json(result)
        return
    for row in result["runs"]:
        show(
            f"{row['run']}: silhouette {row['silhouette_features']:.3f} on {row['neurons']} "
            f"features, {row['silhouette_embedding']:.3f} in the plane ({row['samples']} samples)"
        )
    _show_written(out)


def _show_written(picture: Path) -> None:
    """Names a picture and the numbers beside it."""
    show(" ".join(str(picture.with_suffix(end)) for end in (".png", ".json", ".csv")), err=True)


def robustness(
    run: Runs,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Picture to write; JSON and CSV beside it.")] = Path(
        "robustness.png"
    ),
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Also with rules that go on learning, without labels.")
    ] = False,
    align: Annotated[
        bool,
        typer.Option("--align", help="Also with mean currents shifted back to those of training."),
    ] = False,
    modulate: Annotated[
        float | None,
        typer.Option(
            "--modulate",
            metavar="M",
            min=1e-6,
            max=1.0,
            help="Also with thresholds that follow the membranes' statistics (TM-NORM), which run "
            "with this momentum; 1: of the batch alone.",
        ),
    ] = None,
    corruption: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=10**9, help="Test samples; 0 = all.")] = 1000,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Of the corruptions.")] = 5,
    batch: Annotated[
        int,
        typer.Option(min=1, max=10**6, help="Samples that all but the frozen see at once."),
    ] = 100,
    validation: Annotated[
        bool, typer.Option("--validation", help="On held-out training samples, to choose by.")
    ] = False,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Measure runs on spoiled samples: noise, crop, lost and false events, jitter, hot pixels.

    Example: mpsl robustness runs/stbp-* runs/adaptive-* --adapt --align --out robustness.png
    """
    from mpsl_train.experiments.robustness import robustness as measure
    from mpsl_train.experiments.ways import Ways
    from mpsl_train.recipe.plugins import allow

    for plugin in plugins or []:
        allow(plugin)
    result = measure(
        run, out, data=data, ways=Ways(adapt, align, modulate), corruptions=corruption or [],
        limit=limit, seeds=seeds, batch=batch, validation=validation,
        say=lambda line: show(line, err=True),
    )  # fmt: skip
    if as_json:
        show_json(result)
        return
    names = list(result["corruptions"])
    width = max(len(curve["label"]) for curve in result["curves"])
    show(f"{'accuracy in %, mean of all levels but 0':<{width}}  clean " +
          " ".join(f"{name:>11}" for name in names))  # fmt: skip
    for curve in result["curves"]:
        clean = 100 * curve["mean"][names[0]][0]
        means = [100 * sum(curve["mean"][name][1:]) / (len(curve["mean"][name]) - 1)
                 for name in names]  # fmt: skip
        show(f"{curve['label']:<{max(width, 39)}}  {clean:5.1f} "
              + " ".join(f"{value:11.1f}" for value in means))  # fmt: skip
    _show_written(out)


def ablate(
    recipe: Annotated[str, typer.Argument(help="A name in models/, or a path to a .toml file.")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep. [runs/ablate-<recipe>]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    mechanisms: Annotated[
        list[str] | None,
        typer.Option(help="As stbp+hebbian; repeatable. [stbp, stbp+hebbian, stbp+hebbian+sbp]"),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="Of λ; repeatable. [fixed, learnable, frozen after half the epochs]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each combination.")] = 5,
    workers: Annotated[
        int, typer.Option(min=0, max=1024, help="Processes; 0: one for each core.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ray: Ray = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compare mechanisms and what becomes of λ, seed by seed; the same command goes on.

    Example: mpsl ablate dvs-digits --seeds 3 --set training.epochs=4 --out runs/ablation
    """
    from mpsl_train.experiments import ablation

    cells = ablation.configurations(
        recipe, set_ or [], mechanisms=mechanisms or ablation.MECHANISMS,
        modes=mode or ablation.MODES, seeds=seeds, plugins=plugins or [],
    )  # fmt: skip
    name = next(iter(cells[0].recipes.values())).name
    folder = out if out is not None else Path("runs") / f"ablate-{name}"
    result = ablation.ablate(cells, folder, data=data, device=device, workers=workers, ray=ray)
    for run, error in result["failed"].items():
        show(f"warning: {run} failed: {error}", err=True)
    if as_json:
        show_json(result)
        return
    show(f"{'':<28} λ          test accuracy   against the first, 95 %          p (t)  p (Holm)")
    for row in result["configurations"]:
        show(f"{row['mechanisms']:<28} {row['mode']:<10} {_statistics(row['against_first'])}")
    show(f"{folder / 'ablation.png'} {folder / 'ablation.json'}", err=True)


def _statistics(row: Mapping[str, Any]) -> str:
    sd = "" if row["sd"] is None else f" ± {100 * row['sd']:.2f}"
    accuracy = f"{100 * row['mean']:.2f}{sd}"
    text = f"{accuracy:<15} "
    if row["difference"] is None:
        return text.rstrip()
    text += f"{100 * row['difference']:+.2f}"
    if row["interval"] is None:
        return text
    low, high = row["interval"]
    text = f"{text} ({100 * low:+.2f} … {100 * high:+.2f})"
    return f"{text:<48}{row['p_t']:>6.3f}{row['p_holm']:>10.3f}"


def compare(
    recipe: Annotated[
        list[str], typer.Argument(metavar="RECIPE…", help="Names in models/, or .toml files.")
    ],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder of the sweep.")] = Path("runs/compare"),
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,…]",
            help="Repeatable; with keys of its own. [stdp, sbp, stbp, hgll, mpsl]",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of all; repeatable."),
    ] = None,
    updates: Annotated[
        int, typer.Option(min=0, max=10**9, help="Of each run; 0: as many as its recipe says.")
    ] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Runs of each method on each recipe.")
    ] = 5,
    workers: Annotated[
        int, typer.Option(min=0, max=1024, help="Processes; 0: one for each core.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ray: Ray = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Put methods into one table at the same number of updates; the same command goes on.

    Example: mpsl compare mnist-small nmnist8-small --updates 200 --set training.epochs=4

    Example: mpsl compare nmnist8-small --seeds 20 --method stbp
    --method mpsl:rules.current_share=0.1
    """
    from mpsl_train.experiments import method_table

    chosen = method_table.entries(
        recipe, set_ or [], methods=method or method_table.DEFAULT_METHODS, seeds=seeds,
        updates=updates, data=data, plugins=plugins or [],
    )  # fmt: skip
    result = method_table.compare_methods(
        chosen, out, data=data, device=device, workers=workers, ray=ray
    )
    for run, error in result["failed"].items():
        show(f"warning: {run} failed: {error}", err=True)
    if as_json:
        show_json(result)
    else:
        show_lines(method_table.table(result).split("\n"))
    show(
        " ".join(str(out / f"comparison{suffix}") for suffix in (".png", ".md", ".csv", ".json")),
        err=True,
    )


def register_experiments(app: typer.Typer) -> None:
    """Adds the experiments to the command."""
    app.command("ablate", rich_help_panel=Purpose.PROVE)(ablate)
    app.command("compare", rich_help_panel=Purpose.PROVE)(compare)
    app.command("robustness", rich_help_panel=Purpose.PROVE)(robustness)
    app.command("features", rich_help_panel=Purpose.PROVE)(features)
