"""Runs a model over a staged stream under a policy, and has its answers judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpsl_runtime.bench.staged_stream import StagedStream, Staging
from mpsl_runtime.bench.stream_evaluation import Answer, Verdict, judge
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.policies import Policy

__all__ = ["Labelled", "evaluate", "held_out", "name_of", "test_set"]


@dataclass(frozen=True)
class Labelled:
    """Labelled recordings: `events(i)` is the one of class `labels[i]`, 0 ≤ i < len(labels)."""

    events: Callable[[int], Events]
    labels: Sequence[int]


def test_set(model: Model, data: Path | None, limit: int | None) -> Labelled:
    """The test recordings of the model's data set.

    Args:
        data: where it lies. limit: only so many, spread evenly over the classes.

    Raises:
        UsageError: the model says no data set of recordings. DataError: it is not there.
    """
    split = _split(model, data, "test")
    return _chosen(split, range(len(split)), limit)


def held_out(
    model: Model, data: Path | None, fraction: float, seed: int, limit: int | None
) -> Labelled:
    """The training recordings that training held out, given its fraction and seed."""
    split = _split(model, data, "train")
    _, validation = stratified_split(split.labels, fraction, seed)
    return _chosen(split, validation.tolist(), limit)


def _split(model: Model, data: Path | None, split: datasets.SplitName) -> datasets.Split:
    metadata = model.metadata
    if metadata is None or metadata.dataset not in datasets.DATASETS:
        raise UsageError(
            "model does not say which data set it is of",
            got="no metadata" if metadata is None else repr(metadata.dataset),
            expected=", ".join(datasets.DATASETS),
            where=model.plan.source,
        )
    found = datasets.open_split(metadata.dataset, datasets.find(metadata.dataset, data), split)
    if found.kind != "events":
        raise UsageError("model takes images, not a stream", where=model.plan.source)
    return found


def _chosen(split: datasets.Split, indices: Sequence[int], limit: int | None) -> Labelled:
    if limit is not None and limit < len(indices):
        by_class: dict[int, list[int]] = {}
        for index in indices:
            by_class.setdefault(int(split.labels[index]), []).append(index)
        columns = list(by_class.values())
        longest = max(map(len, columns))
        order = [column[i] for i in range(longest) for column in columns if i < len(column)]
        indices = sorted(order[:limit])
    chosen = list(indices)
    labels = [int(split.labels[index]) for index in chosen]
    return Labelled(lambda i: split.events(chosen[i]), labels)


def name_of(policy: Policy) -> str:
    """A policy with its settings, in words."""
    words: list[str] = [policy.name]
    if policy.name == "sliding":
        words.append(f"every {policy.every}")
    if policy.name == "onset":
        words.append(str(policy.onset))
    if policy.rule.early_margin is not None:
        words.append(f"early {policy.rule.early_margin:g}")
    return " ".join(words)


def evaluate(model: Model, samples: Labelled, policy: Policy, staging: Staging) -> Verdict:
    """Runs the staged stream once.

    Args:
        model: of events. samples: what is shown. policy: under which it answers.
        staging: order, pauses and noise; the same gives every policy the same stream.
    """
    staged = StagedStream(
        len(samples.labels),
        samples.events,
        samples.labels,
        model.binning.sensor_size,
        staging,
    )
    stream = model.stream([staged.recording("stream")], policy)
    answers = list(_answers(stream, policy, model))
    return judge(name_of(policy), answers, staged.shown, synops=stream.summary.synops)


def _answers(items: Iterator[Step | Prediction], policy: Policy, model: Model) -> Iterator[Answer]:
    """`continuous` answers at every step, the others where a window ends."""
    step_us, steps = model.binning.step_us, model.binning.steps
    for item in items:
        if isinstance(item, Step):
            if policy.name == "continuous":
                end_us = item.t_us + step_us
                yield Answer(item.label, max(0, end_us - steps * step_us), end_us)
        elif policy.name != "continuous":
            yield Answer(item.label, item.begin_us, item.t_us)
