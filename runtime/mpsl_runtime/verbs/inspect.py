"""`mpsl inspect`: a model or a run folder in, a table or JSON out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.terminal import show_json, show_lines
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json

if TYPE_CHECKING:
    from mpsl_runtime.deploy.fit import Fit
    from mpsl_runtime.model.filling import Filling

__all__ = ["inspect"]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Count operations on the model's test set, which lies there."
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, max=1_000_000_000, help="--data: test samples, evenly spread."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="CHIP,…",
        help="Does it fit? speck, loihi2, spinnaker2, xylo-audio, xylo-imu, akd1000, "
        "brainscales2, all, or a chip's .toml file.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Diagram of the network (.png .svg .pdf), with firing rates on --data, or of the "
        "model's card.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="--target: exit code 1 unless the model fits, as it is.")
]


def inspect(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN", help="A .nir or .onnx file, a model's name, or a run folder."
        ),
    ],
    data: Data = None,
    samples: Samples = 64,
    target: Target = None,
    strict: Strict = False,
    plot: Plot = None,
    source_dialect: foreign.From = "auto",
    reset: foreign.ResetWord = None,
    fires: foreign.FiresWord = None,
    spikes: foreign.SpikesWord = None,
    leak: foreign.LeakWord = None,
    start: foreign.StartWord = None,
    norm_input: foreign.NormInput = None,
    dt_s: foreign.StepSeconds = None,
    steps: sources.Steps = None,
    step_us: sources.StepUs = None,
    coding: foreign.CodingWord = None,
    classes: foreign.Classes = None,
    dataset: foreign.DataSet = None,
    as_json: Json = False,
) -> None:
    """Show what a model or a run folder holds, what it costs, and which chips take it.

    Example: mpsl inspect nmnist8-small --target speck
    """
    from mpsl_runtime.inspection import describe, lines
    from mpsl_runtime.zoo import find_model

    file = find_model(path, folders=True)
    _check_options(file, data, target, strict, plot)
    filling = foreign.filling_of(context.params)
    costs = {} if data is None else _costs(file, data, samples, filling)
    description = describe(file, filling=filling)
    fits = [] if target is None else _fits(file, target, filling)
    if plot is not None:
        _draw(file, plot, data, samples, filling)
    if as_json:
        show_json(description | costs | _targets(fits))
    else:
        _print(lines(description), costs, fits)
    if strict and not all(result.fits for result in fits):
        raise typer.Exit(1)


def _check_options(
    file: Path, data: Path | None, target: str | None, strict: bool, plot: Path | None
) -> None:
    from mpsl_runtime.errors import UsageError

    if plot is not None:
        from mpsl_runtime.run.plotting import check_plot

        check_plot(plot)
    asked = next(
        (
            word
            for word, value in (("--data", data), ("--target", target), ("--plot", plot))
            if value is not None
        ),
        "",
    )
    if asked and (file.is_dir() or file.suffix.lower() == ".onnx"):
        raise UsageError(
            f"{asked} looks at a NIR file", got=file, expected="a .nir file or a model's name"
        )
    if strict and target is None:
        raise UsageError("--strict asks whether the model fits a chip", expected="--target CHIP")


def _fits(file: Path, target: str, filling: Filling) -> list[Fit]:
    from mpsl_runtime.deploy.chips import find_chips
    from mpsl_runtime.deploy.fit import fit
    from mpsl_runtime.inspection import read_plan

    chips = find_chips(target)
    plan, _ = read_plan(file, filling=filling)
    return [fit(plan, chip) for chip in chips]


def _costs(file: Path, data: Path, samples: int, filling: Filling) -> dict[str, Any]:
    """NeuroBench's figures on the test set, and the estimate of energy."""
    from mpsl_runtime.bench.inputs import from_test_set
    from mpsl_runtime.deploy.energy import energy_estimate
    from mpsl_runtime.deploy.workload import measure
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.model.filling import load_filled

    plan = load_filled(file, filling, timed=True, labelled=True).plan
    given = None if plan.metadata is None else from_test_set(plan, data, samples)
    if given is None:
        raise UsageError(
            "model names no data set",
            expected="a model that mpsl wrote, or that was imported with --dataset NAME",
            where=f"--data, {file}",
        )
    figures = measure(plan, given.samples)
    return {
        "neurobench": {**figures, "source": given.source},
        "energy_estimate": energy_estimate(figures["SynapticOperations"]),
    }


def _draw(file: Path, plot: Path, data: Path | None, samples: int, filling: Filling) -> None:
    """The diagram, with firing rates where they are known."""
    from mpsl_runtime.bench.inputs import from_test_set
    from mpsl_runtime.diagram.blocks import diagram_of
    from mpsl_runtime.diagram.drawing import save_diagram
    from mpsl_runtime.diagram.rates import rates_of_card, rates_on
    from mpsl_runtime.inspection import describe_nir, read_plan
    from mpsl_runtime.model.filling import load_filled
    from mpsl_runtime.terminal import show

    plan, _ = read_plan(file, filling=filling)
    diagram = diagram_of(plan)
    rates = rates_of_card(plan, file)
    if data is not None:
        plan = load_filled(file, filling, timed=True, labelled=True).plan
        given = from_test_set(plan, data, samples)
        rates = None if given is None else rates_on(plan, given.samples, given.source)
    about = describe_nir(file, filling=filling)
    name = file.parent.name if file.stem == "model" and file.parent.name else file.stem
    title = f"{name}: {about['parameters']:,} parameters, {about['neurons']:,} neurons"
    save_diagram(plot, diagram, title, rates)
    show(f"picture: {plot}", err=True)


def _targets(fits: list[Fit]) -> dict[str, Any]:
    from mpsl_runtime.deploy.fit import to_mapping

    return {"targets": [to_mapping(result) for result in fits]} if fits else {}


def _print(table: list[str], costs: dict[str, Any], fits: list[Fit]) -> None:
    """The table of layers, unless chips are asked for; the costs; each chip."""
    from mpsl_runtime.deploy.fit import lines

    if not fits:
        show_lines(table)
    if costs:
        show_lines(_cost_lines(costs["neurobench"], costs["energy_estimate"]))
    for result in fits:
        show_lines([*lines(result), ""])


def _cost_lines(figures: dict[str, Any], energy: dict[str, Any]) -> list[str]:
    operations = figures["SynapticOperations"]
    rows = [
        ("Footprint", f"{figures['Footprint']:,} bytes"),
        ("ConnectionSparsity", f"{figures['ConnectionSparsity']:.4f}"),
        ("ActivationSparsity", f"{figures['ActivationSparsity']:.4f}"),
        *((f"SynapticOperations {name}", f"{value:,.1f}") for name, value in operations.items()),
        ("MembraneUpdates", f"{figures['MembraneUpdates']:,.1f}"),
        (
            "energy, estimate",
            f"{energy['sample_nj']:,.1f} nJ ({energy['mac_pj']} pJ a MAC, {energy['ac_pj']} pJ "
            f"an AC; every Dense operation a MAC: {energy['dense_sample_nj']:,.1f} nJ)",
        ),
    ]
    return [
        "",
        f"  by NeuroBench 2.3, a sample, mean of {figures['source']}",
        *(f"  {name:<33} {value}" for name, value in rows),
        f"  {energy['source']}",
    ]
