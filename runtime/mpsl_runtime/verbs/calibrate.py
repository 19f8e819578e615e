"""`mpsl calibrate`: a model and held-out recordings in, the model with limits for streams out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsl_runtime.terminal import show_json, show_lines
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json, MemoryLimit, ModelName
from mpsl_runtime.verbs.stream_eval import DataFolder, Noise, Samples, Seed

if TYPE_CHECKING:
    from mpsl_runtime.bench.calibration import Calibration

__all__ = ["calibrate"]

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The model to write. [MODEL itself]")
]
HeldOut = Annotated[
    float,
    typer.Option(
        "--validation", metavar="F", min=0.001, max=0.9, help="Share of training that is held out."
    ),
]
NoiseAnswers = Annotated[
    float,
    typer.Option(
        "--noise-answers", metavar="F", min=0, max=1, help="Noise windows that may answer a class."
    ),
]


def calibrate(
    context: typer.Context,
    model: ModelName,
    data: DataFolder,
    out: Out = None,
    noise_hz: Noise = 1.0,
    noise_answers: NoiseAnswers = 0.01,
    samples: Samples = None,
    validation: HeldOut = 0.1,
    seed: Seed = 0,
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
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Choose when a model answers in a stream, on the recordings that training held out.

    Writes onset, least events, least score and margin, and the margin for early answers into the
    model's metadata. --validation and --seed are those of the training.

    Example: mpsl calibrate nmnist8-small DIR --out calibrated.nir
    """
    from mpsl_runtime.bench.calibration import calibrate as choose
    from mpsl_runtime.bench.stream_run import held_out
    from mpsl_runtime.model.seal import check_seal
    from mpsl_runtime.run.marked_file import write_marked
    from mpsl_runtime.run.opening import model_of
    from mpsl_runtime.run.rewrite import rewritten
    from mpsl_runtime.zoo import find_model

    path = Path(find_model(model))
    check_seal(path)
    filled = foreign.filled_model(model, context.params, labelled=True)
    loaded = model_of(filled.plan)
    recordings = held_out(loaded, data, validation, seed, samples)
    chosen = choose(loaded, recordings, noise_hz=noise_hz, noise_answers=noise_answers, seed=seed)
    graph = rewritten(filled.graph, filled.plan)[0] if filled.is_new else filled.graph
    graph.metadata = {**graph.metadata, **chosen.limits()}
    target = out or path
    write_marked(graph, loaded.plan, target)
    if as_json:
        show_json({"written": str(target), **chosen.__dict__})
    else:
        show_lines(_lines(chosen, target))


def _lines(chosen: Calibration, target: Path) -> list[str]:
    early = "none"
    if chosen.early_margin:
        early = (
            f"{chosen.early_margin:g}: {chosen.early_accuracy:.2%} right after "
            f"{chosen.early_steps:.1f} steps in the mean"
        )
    return [
        f"{chosen.recordings} recordings, {chosen.accuracy:.2%} right; "
        f"{chosen.noise_windows} windows of noise",
        f"  onset         {chosen.onset}",
        f"  least events  {chosen.least_events}",
        f"  least score   {chosen.least_score:g}",
        f"  least margin  {chosen.least_margin:g}",
        f"  early margin  {early}",
        f"under these limits {chosen.answered:.2%} of the recordings and "
        f"{chosen.noise_answered:.2%} of the noise windows are answered with a class",
        f"wrote {target}",
    ]
