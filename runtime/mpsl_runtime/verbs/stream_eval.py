"""`mpsl stream-eval`: a model and labelled recordings in, what policies are worth out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsl_runtime.terminal import show, show_json, show_lines
from mpsl_runtime.verbs import foreign
from mpsl_runtime.verbs import policy as policies
from mpsl_runtime.verbs import source as sources
from mpsl_runtime.verbs.options import Json, MemoryLimit, ModelName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpsl_runtime.run.model import Model
    from mpsl_runtime.run.policies import Policy

__all__ = ["stream_eval"]

DataFolder = Annotated[
    Path, typer.Argument(metavar="DATA", help="Where the model's data set lies, or its parent.")
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="onset, tumbling, continuous, sliding; repeatable. [all, and onset answered early]",
    ),
]
Pauses = Annotated[
    str, typer.Option("--pause-ms", metavar="MIN,MAX", help="Silence between two recordings.")
]
Noise = Annotated[
    float,
    typer.Option(
        "--noise-hz", metavar="HZ", min=0, max=10_000, help="Noise events a second and pixel."
    ),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", metavar="N", min=1, max=10**9, help="Recordings to show. [all]"),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of order, pauses and noise.")
]
# What `onset` is answered early with, where nothing else is said: two spikes ahead.
_EARLY = "2"


def stream_eval(
    context: typer.Context,
    model: ModelName,
    data: DataFolder,
    policy: Names = None,
    samples: Samples = None,
    pause_ms: Pauses = "200,2000",
    noise_hz: Noise = 1.0,
    seed: Seed = 0,
    every: policies.Every = 1,
    onset: policies.OnsetWord = None,
    early_margin: policies.EarlyMargin = None,
    hold_ms: policies.HoldMs = 0.0,
    least_events: policies.LeastEvents = None,
    least_score: policies.LeastScore = None,
    least_margin: policies.LeastMargin = None,
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
    """Judge policies on a stream of test recordings in random order, with pauses and noise.

    Example: mpsl stream-eval nmnist8-small DIR --noise-hz 1 --samples 100
    """
    from mpsl_runtime.bench.staged_stream import Staging
    from mpsl_runtime.bench.stream_evaluation import table
    from mpsl_runtime.bench.stream_run import evaluate, name_of, test_set
    from mpsl_runtime.run.opening import model_of

    plan = foreign.filled_model(model, context.params, labelled=True).plan
    loaded = model_of(plan)
    staging = Staging(_pauses(pause_ms), noise_hz, seed)
    chosen = _policies(
        loaded, policy or (),
        every=every, onset=onset, early_margin=early_margin, hold_ms=hold_ms,
        least_events=least_events, least_score=least_score, least_margin=least_margin,
    )  # fmt: skip
    for each in chosen:
        each.check(loaded.binning.steps)
    recordings = test_set(loaded, data, samples)
    verdicts = []
    for each in chosen:
        if sys.stderr.isatty():
            show(f"{name_of(each)}: {len(recordings.labels)} recordings", err=True)
        verdicts.append(evaluate(loaded, recordings, each, staging))
    if as_json:
        show_json({"policies": [verdict.to_mapping() for verdict in verdicts]})
    else:
        show_lines(table(verdicts))


def _policies(model: Model, names: Sequence[str], **settings: object) -> list[Policy]:
    """The policies asked for; without a name all four, and `onset` answered early."""
    wanted = [(name, settings) for name in names]
    if not wanted:
        wanted = [(name, settings) for name in ("tumbling", "continuous", "sliding", "onset")]
        if settings["early_margin"] is None:
            wanted.append(("onset", {**settings, "early_margin": _EARLY}))
    return [
        policies.policy_of(name, model.metadata, **each)  # type: ignore[arg-type]
        for name, each in wanted
    ]


def _pauses(text: str) -> tuple[float, float]:
    from mpsl_runtime.errors import UsageError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            "not a range of pauses", got=repr(text), expected="MIN,MAX", where="--pause-ms"
        ) from None
    return low, high
