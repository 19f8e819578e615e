"""The options that choose a policy, the same for every verb that answers streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpsl_runtime.model.metadata import ModelMetadata
    from mpsl_runtime.run.policies import Policy

__all__ = [
    "EarlyMargin",
    "Every",
    "HoldMs",
    "LeastEvents",
    "LeastMargin",
    "LeastScore",
    "OnsetWord",
    "PolicyWord",
    "policy_of",
]

PolicyWord = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="Where windows begin in a stream. onset: where something begins; tumbling: every T "
        "steps; sliding: every --every steps, overlapping; continuous: the state runs on; auto: "
        "onset. A recording that is one sample is one window.",
    ),
]
Every = Annotated[
    int,
    typer.Option(
        "--every", metavar="K", min=1, max=100_000, help="sliding: a window begins every K steps."
    ),
]
OnsetWord = Annotated[
    str | None,
    typer.Option(
        "--onset",
        metavar="N/MS|auto",
        help="onset: more than N events within MS milliseconds; auto follows the background. "
        "[the model's, else auto]",
    ),
]
EarlyMargin = Annotated[
    str | None,
    typer.Option(
        "--early-margin",
        metavar="M|auto",
        help="Answer as soon as the best score leads by M; auto: the model's, from `calibrate`.",
    ),
]
HoldMs = Annotated[
    float,
    typer.Option("--hold-ms", metavar="MS", min=0, max=3_600_000, help="A class stays so long."),
]
LeastEvents = Annotated[
    int | None,
    typer.Option(
        "--least-events",
        metavar="N",
        min=0,
        max=10**9,
        help="Fewer in a window: none. [the model's, else 1]",
    ),
]
LeastScore = Annotated[
    float | None,
    typer.Option(
        "--least-score",
        metavar="S",
        min=-1e9,
        max=1e9,
        help="Best score not above: none. [the model's]",
    ),
]
LeastMargin = Annotated[
    float | None,
    typer.Option(
        "--least-margin", metavar="M", min=0, max=1e9, help="Smaller lead: none. [the model's]"
    ),
]


def policy_of(
    name: str,
    metadata: ModelMetadata | None,
    *,
    every: int = 1,
    onset: str | None = None,
    early_margin: str | None = None,
    hold_ms: float = 0.0,
    least_events: int | None = None,
    least_score: float | None = None,
    least_margin: float | None = None,
) -> Policy:
    """The policy that a command line asks for; what it does not say comes from the model.

    Raises:
        UsageError: a word or a number that cannot be, or `auto` where the model has nothing.
    """
    from mpsl_runtime.run.onset import Onset
    from mpsl_runtime.run.policies import Policy, calibrated

    start = calibrated(metadata)
    rule: dict[str, Any] = {"hold_us": round(hold_ms * 1000)}
    for key, value in (
        ("least_events", least_events),
        ("least_score", least_score),
        ("least_margin", least_margin),
    ):
        if value is not None:
            rule[key] = value
    rule["early_margin"] = _early(early_margin, metadata)
    return Policy.of(
        name,
        every=every,
        onset=start.onset if onset is None else Onset.parse(onset),
        rule=start.rule.changed(**rule),
    )


def _early(word: str | None, metadata: ModelMetadata | None) -> float | None:
    from mpsl_runtime.errors import UsageError

    if word is None:
        return None
    if word == "auto":
        if metadata is None or not metadata.early_margin:
            raise UsageError(
                "model has no early margin",
                expected="a number, or `mpsl calibrate` first",
                where="--early-margin auto",
            )
        return metadata.early_margin
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise UsageError(
            "not a margin", got=repr(word), expected="a number ≥ 0, or auto", where="--early-margin"
        )
    return value
