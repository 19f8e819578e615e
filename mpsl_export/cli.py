"""The verbs `export` and `verify` of the command `mpsl`."""

# Only typer and the standard library up here: `mpsl --help` imports this file.
from pathlib import Path
from typing import Annotated, Any

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import show, show_json, show_lines, show_progress
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs.options import MemoryLimit

__all__ = ["register"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `mpsl train`.")]
Provable = Annotated[
    list[str],
    typer.Argument(metavar="RUN|MODEL…", help="A run folder; or .nir and .onnx files, or names."),
]
Exportable = Annotated[
    str,
    typer.Argument(
        metavar="RUN|MODEL", help="A run folder of `mpsl train`, a .nir file, or a model's name."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command."""
    app.command("export", rich_help_panel=Purpose.MAKE)(export)
    app.command("verify", rich_help_panel=Purpose.PROVE)(verify)
    app.command("card", rich_help_panel=Purpose.PROVE)(card)


def export(
    context: typer.Context,
    source: Exportable,
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="nir, onnx, c, or an installed one.")
    ],
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="float32|int8", show_default="as trained"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE|DIR",
            help="Default: RUN/model.<format>, RUN/model.int8.<format>; or beside the model.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="int8: where the data set lies."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            max=10**9,
            help="int8: samples to calibrate on, at most.",
        ),
    ] = 64,
    seed: Annotated[
        int, typer.Option("--seed", help="int8: which samples.", min=0, max=2**32 - 1)
    ] = 0,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="SOURCE",
            help="int8: recordings, pictures, or an .npz with `input` [T, B, …], to calibrate on. "
            "[of a run: what training held out]",
        ),
    ] = None,
    source_dialect: foreign.From = "auto",
    reset: foreign.ResetWord = None,
    fires: foreign.FiresWord = None,
    spikes: foreign.SpikesWord = None,
    leak: foreign.LeakWord = None,
    start: foreign.StartWord = None,
    norm_input: foreign.NormInput = None,
    dt_s: foreign.StepSeconds = None,
    compat: Annotated[
        str | None,
        typer.Option("--compat", metavar="1.0.4", help="nir: for this version of the package."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix", metavar="NAME", help="c: what every name begins with.", show_default="mpsl"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            max=65_536,
            help="onnx: fixes the batch of the step graph, as TensorRT and edge runtimes want it.",
        ),
    ] = None,
    plastic: Annotated[
        bool,
        typer.Option(
            "--plastic",
            help="nir, of a run: the banks too, so that they may go on learning: `run --plastic`.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Merge a run's banks, or take a model file, and write the network in a format.

    Example: mpsl export runs/demo --format nir --weights int8
    """
    from mpsl_export.export import export as write

    exported = write(
        source,
        format,
        weights=weights,
        out=out,
        data=data,
        samples=samples,
        seed=seed,
        calibrate=calibrate,
        filling=foreign.filling_of(context.params),
        compat=compat,
        prefix=prefix,
        batch=batch,
        plastic=plastic,
        measure=True,
    )
    if as_json:
        show_json(exported.to_mapping())
    else:
        show_lines(exported.lines())


def verify(
    paths: Provable,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", metavar="FILE", help="Default: every RUN/model*."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where the data set lies.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, max=10**9, help="Only N samples, of all classes."
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="Repeatable: torch, onnx, reference, engine, c; of a run also norse, sinabs, …",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(
            "--dump",
            metavar="FILE.npz",
            help="Write inputs, and the spikes that files are held to.",
        ),
    ] = None,
    stamp: Annotated[
        bool,
        typer.Option(
            "--stamp/--no-stamp", help="Of a run: files that pass on all samples carry the result."
        ),
    ] = True,
    memory_limit: MemoryLimit = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Prove that exported models do what the trained network did; or, of model files alone, that
    they still do what they did: each has a probe, and a seal over all of it.

    Exit code 0: within tolerance; 1: verification failed; 2: bad input.

    Example: mpsl verify runs/demo --backend engine --backend onnx
    """
    import sys

    files = model_files(paths)
    if files:
        from mpsl_export.verify.model_proof import prove_model
        from mpsl_runtime.errors import UsageError
        from mpsl_runtime.verbs.verify import show_proofs

        if model or data or limit or dump:
            raise UsageError("only a run is held against data", got=paths[0], expected="a run")
        show_proofs([prove_model(file, backend or ()) for file in files], as_json=as_json)
        return

    from mpsl_export.verify.verify import verify as verify_run

    report = verify_run(
        Path(paths[0]),
        models=model or (),
        data=data,
        limit=limit,
        backends=backend or (),
        dump=dump,
        stamp=stamp,
        progress=_progress if sys.stderr.isatty() else None,
    )
    if as_json:
        show_json(report)
    else:
        show_lines(_table(report), err=True)
    if not report["passed"]:
        raise typer.Exit(1)


def card(
    run: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="The published run, other seeds, other methods."),
    ],
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite", help="RUN… are folders of cards: write their models again."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="With recipe.toml. Default: models/<recipe>."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where the data set lies.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, max=10**9, help="Verify only N samples."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="To verify with. Default: all installed."),
    ] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            "--changed",
            metavar="KEY",
            help="Of the recipe, which the runs have otherwise: training.epochs; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a model's card.md, report.json and model.nir from what its runs produced.

    Exit code 0: written; 1: the exports do not do what was trained, nothing is written.
    --rewrite needs no run: the same network bit for bit, written as this version writes it.

    Example: mpsl card runs/mnist-s0 runs/mnist-s1 runs/mnist-stbp-s0 --out models/mnist
    """
    if rewrite:
        _rewrite(run, as_json)
        return
    import sys

    from mpsl_export.card.card import make_card, save_card
    from mpsl_export.card.card_runs import read_run
    from mpsl_runtime.run_folder import RunFolder

    folder = out or Path("models") / str(read_run(run[0]).recipe["name"])
    made = make_card(
        run, folder, data=data, limit=limit, backends=backend or (), changed=changed or (),
        progress=_progress if sys.stderr.isatty() else None,
    )  # fmt: skip
    if not made["verification"]["passed"]:
        show_lines(_table(made["verification"]), err=True)
        raise typer.Exit(1)
    written = save_card(folder, made, RunFolder(run[0]).export(".nir"))
    if as_json:
        show_json({"written": written, "card": made})
    else:
        _show_written(written)


def _rewrite(folders: list[Path], as_json: bool) -> None:
    from mpsl_export.card.rewrite import rewrite

    written = [path for folder in folders for path in rewrite(folder)]
    if as_json:
        show_json({"written": written})
    else:
        _show_written(written)


def _show_written(paths: list[Path]) -> None:
    for path in paths:
        show(f"wrote {path} ({path.stat().st_size:,} bytes)")


def model_files(paths: list[str]) -> list[Path]:
    """The model files, where these are asked for; none: the one path is a run.

    Raises UsageError: a run beside others.
    """
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.zoo import find_model, known_models

    found = [Path(path) for path in paths]
    are_files = [p.is_file() or (not p.exists() and (p.suffix or str(p) in known_models()))
                 for p in found]  # fmt: skip
    if all(are_files):
        return [find_model(path) for path in paths]
    if len(paths) > 1:
        run = next(path for path, is_file in zip(paths, are_files, strict=True) if not is_file)
        raise UsageError("one run at a time is verified", got=run, expected="model files")
    return []


def _progress(done: int, of: int) -> None:
    show_progress(f"{done}/{of} samples", done=done == of)


def _table(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    lines = [f"{report['samples']} samples"]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    for model in report["models"]:
        lines.append("")
        verdict = "passed" if model["passed"] else "FAILED"
        against = {"trained": "the record of training"}.get(model["against"], "the reference")
        lines.append(f"{model['file']}: {verdict}, against {against}")
        lines.append(f"  {'':<10} {'accuracy':>9} {'same label':>11} {'spikes differ':>14}")
        for name, accuracy in model["accuracy"].items():
            row = f"  {name:<10} {accuracy:>8.2%}"
            if name in model["spike_mismatch"]:
                row += f" {model['argmax_agreement'][name]:>11.2%}"
                row += f" {model['spike_mismatch'][name]:>14.2e}   {model['devices'][name]}"
            lines.append(row)
        if model["explained_ties"]:
            lines.append(f"  differing samples explained by ties: {model['explained_ties']}")
        for drift in model.get("drift", ()):
            rates = f"{drift['rate']['float32']:.2%} → {drift['rate']['int8']:.2%}"
            lines.append(
                f"  drift of {drift['layer']:<12} rate {rates}, spikes differ "
                f"{drift['spike_difference']:.2e}"
            )
        lines += [f"  {reason}" for reason in model["reasons"]]
    return lines
