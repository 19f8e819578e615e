"""`mpsl robustness`: accuracy of runs on samples that get worse (Fig. 3), with error bars.

Beside each frozen network, but for competing neurons (`stdp`), may stand others that use the
unlabelled test batches: the controls `aligned` and `modulated`, and `plastic`, whose local rules go
on (not Eq. 12). All see the samples in a seeded random order, in batches; plastic banks and
statistics start anew for each level and seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events import binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.batches import Samples, to_window
from mpsl_train.experiments.corruptions import CORRUPTIONS, corrupt_events, corrupt_image
from mpsl_train.experiments.curves import draw_curves
from mpsl_train.experiments.inference import preserved
from mpsl_train.experiments.raw_numbers import write_raw
from mpsl_train.experiments.runs import (
    StdpRun,
    TrainedRun,
    check_png,
    choose,
    load_run,
    load_stdp,
    open_test,
)
from mpsl_train.experiments.ways import FROZEN, Curve, Ways, curves_of
from mpsl_train.training.module import predictions_of

__all__ = ["robustness"]

# Frozen, the size of a batch is a matter of time alone.
_FROZEN_BATCH = 100
# What decides the input: runs that differ in it cannot see the same corrupted samples. An image has
# no steps before the network.
_INPUT = (
    "dataset", "steps", "step_us", "coding", "origin", "downsample", "crop", "image_mean",
    "image_std",
)  # fmt: skip


def robustness(
    folders: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    ways: Ways = FROZEN,
    corruptions: Sequence[str] = (),
    limit: int = 1000,
    seeds: int = 5,
    batch: int = 100,
    validation: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures runs of one data set under every corruption that fits it; writes `out`, and the
    numbers as JSON and as CSV beside it.

    Args:
        folders: of runs; those that differ in their seed alone make one curve. out: `.png`.
        data: the data set's folder or its parent.
        ways: what else than the frozen networks.
        corruptions: names, default all. limit: test samples, 0 = all.
        seeds: of the corruptions. batch: samples that all but the frozen ones see at once; 1: a
            stream, as a deployed network has it.
        validation: measure on the training samples that were held out, to choose settings by.
        say: gets a line for each level.

    Raises:
        MpslError: a run or its data cannot be read, runs do not go together, an unknown name.
    """
    check_png(out, folders)
    least = 2 if ways.align else 1  # one sample's mean is what tells its class
    if seeds < 1 or batch < least:
        raise UsageError("too few seeds or samples in a batch", got=f"{seeds}, {batch}",
                         expected=f"≥ 1 and ≥ {least}")  # fmt: skip
    runs = [load_stdp(folder) or load_run(folder, rules=ways.adapt) for folder in folders]
    _check_inputs(runs)
    metadata = runs[0].metadata
    split, root = open_test(runs[0], data)
    names = _names(corruptions, metadata)
    if validation:
        split, indices = _held_out(runs, root, limit)
    else:
        indices = choose(split.labels, limit, 0)
    curves = curves_of(runs, root, ways, batch)
    source = _Source(split, metadata, indices)
    for name in names:
        _measure(curves, source, name, seeds, batch, say)
    result = {
        "dataset": metadata.dataset,
        "samples": len(indices),
        "split": "validation" if validation else "test",
        "corruption_seeds": seeds,
        "batch": batch,
        "corruptions": {name: _facts(name) for name in names},
        "curves": _grouped(curves, names),
    }
    with replacing(out) as temporary:
        draw_curves(temporary, result)
    with replacing(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(result) + "\n", "utf-8")
    write_raw(out.with_suffix(".csv"), _rows(curves, len(indices)))
    return result


def _rows(curves: Sequence[Curve], samples: int) -> list[dict[str, Any]]:
    """One for each run, way of using it, corruption, level and corruption seed."""
    return [
        {
            "run": curve.run.folder.name,
            "seed": curve.run.recipe.seed,
            "way": curve.variant,
            "corruption": name,
            "level": level,
            "corruption_seed": number,
            "samples": samples,
            "accuracy": accuracy,
        }
        for curve in curves
        for name, levels in curve.accuracy.items()
        for level, values in zip(CORRUPTIONS[name].levels, levels, strict=True)
        for number, accuracy in enumerate(values)
    ]


def _measure(
    curves: Sequence[Curve],
    source: _Source,
    name: str,
    seeds: int,
    batch: int,
    say: Callable[[str], None],
) -> None:
    """All levels of one corruption. Level 0 is the same of all of them, and measured once."""
    corruption = CORRUPTIONS[name]
    before = [next(iter(curve.accuracy.values()))[0] for curve in curves if curve.accuracy]
    for level in corruption.levels:
        if level == 0 and before:
            for curve, clean in zip(curves, before, strict=True):
                curve.accuracy[name] = [list(clean)]
            continue
        for curve in curves:
            curve.accuracy.setdefault(name, []).append([])
        for seed in range(seeds):
            new = seed == 0 or (corruption.random and level > 0)
            if new:
                frames = source.corrupted(name, level, seed)
                samples = Samples(frames, source.labels, source.metadata)
            for curve in curves:
                values = curve.accuracy[name][-1]
                # Frozen, the order of the samples changes nothing.
                same = curve.variant == "frozen" and not new
                values.append(values[-1] if same else _accuracy(curve, samples, seed, batch))
        say(f"{name} {level:g}: " + ", ".join(
            f"{np.mean(curve.accuracy[name][-1]):.1%}" for curve in curves[:12]
        ))  # fmt: skip


def _held_out(
    runs: Sequence[TrainedRun | StdpRun], root: Path, limit: int
) -> tuple[datasets.Split, NDArray[np.int64]]:
    """The training split, and the samples that none of the runs has trained on."""
    split = datasets.open_split(runs[0].recipe.data.dataset, root, "train")
    parts = []
    for run in runs:
        data = run.recipe.data
        parts.append(
            stratified_split(split.labels, data.validation, run.recipe.seed, data.train_limit)[1]
        )
        if not np.array_equal(parts[-1], parts[0]) or not len(parts[0]):
            raise UsageError(
                "runs hold out different training samples, or none",
                expected="one seed, data.validation and data.train_limit", where=run.folder,
            )  # fmt: skip
    return split, parts[0][choose(split.labels[parts[0]], limit, 0)]


def _check_inputs(runs: Sequence[TrainedRun | StdpRun]) -> None:
    for run in runs[1:]:
        for key in _INPUT:
            if key == "steps" and run.metadata.input_kind == "image":
                continue
            mine, first = getattr(run.metadata, key), getattr(runs[0].metadata, key)
            if mine != first:
                raise UsageError(
                    f"runs differ in {key}", got=repr(mine), expected=repr(first), where=run.folder
                )


def _facts(name: str) -> dict[str, Any]:
    corruption = CORRUPTIONS[name]
    return {
        "levels": list(corruption.levels),
        "title": corruption.title,
        "unit": corruption.unit,
    }


def _names(wanted: Sequence[str], metadata: ModelMetadata) -> list[str]:
    known = [name for name, one in CORRUPTIONS.items() if one.fits(metadata.input_kind)]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"no such corruption of {metadata.input_kind}", got=repr(name),
                expected=", ".join(known),
            )  # fmt: skip
    return [name for name in known if not wanted or name in wanted]


class _Source:
    """The chosen test samples, decoded once."""

    def __init__(
        self, split: datasets.Split, metadata: ModelMetadata, indices: NDArray[np.int64]
    ) -> None:
        self.split, self.metadata, self.indices = split, metadata, indices
        self.labels = split.labels[indices]
        self.events: list[Events] = []
        if split.kind == "events":
            self.events = [split.events(int(index)) for index in indices]

    def corrupted(self, name: str, level: float, seed: int) -> NDArray[np.unsignedinteger]:
        """Network input [N, C, H, W] or [N, T, C, H, W], unsigned."""
        if self.split.kind == "image":
            return np.stack([
                corrupt_image(name, self.split.image(int(i)), level, seed=seed, index=int(i))
                for i in self.indices
            ])  # fmt: skip
        rule = self.metadata.binning
        frames = [
            binning.frames(corrupt_events(name, one, level, seed=seed, index=int(i)), rule)
            for i, one in zip(self.indices, self.events, strict=True)
        ]
        largest = max(float(one.max(initial=0)) for one in frames)
        return np.stack(frames).astype(np.uint8 if largest < 256 else np.uint32)


@torch.no_grad()
def _accuracy(curve: Curve, samples: Samples, seed: int, batch: int) -> float:
    order = np.random.default_rng([seed, 6]).permutation(len(samples.labels))
    # Parts of nearly one size: a last batch of a few samples has no mean to speak of.
    parts = np.array_split(order, -(-len(order) // batch))
    run, right = curve.run, 0
    if isinstance(run, StdpRun):
        run.network.generator.manual_seed(seed)
        for indices in parts:
            right += int(
                (run.predict(samples.frames[indices]).numpy() == samples.labels[indices]).sum()
            )
        return right / len(order)
    network, steps = run.network, run.metadata.steps
    if curve.variant == "frozen":
        parts = np.array_split(order, -(-len(order) // max(batch, _FROZEN_BATCH)))
    curve.begin()
    with preserved(network):
        for indices in parts:
            values, labels = samples[(None, indices)]
            answer = curve.answer or network
            output = answer(to_window(values), steps)
            predicted = predictions_of(run.recipe.training.loss, output)
            right += int((predicted == labels).sum())
    return right / len(order)


def _grouped(curves: Sequence[Curve], names: Sequence[str]) -> list[dict[str, Any]]:
    """Runs that differ in their seed alone are one curve: mean ± sd over them; the sd of a single
    run is over the corruption seeds."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        recipe = curve.run.recipe.model_copy(update={"seed": 0})
        groups.setdefault(f"{recipe.hash()} {curve.variant}", []).append(curve)
    labels = [_label(group[0]) for group in groups.values()]
    rows = []
    for group, label in zip(groups.values(), labels, strict=True):
        if labels.count(label) > 1:
            label = f"{label}, {group[0].run.folder.name}"
        row: dict[str, Any] = {
            "label": label,
            "variant": group[0].variant,
            "runs": [str(curve.run.folder) for curve in group],
            "sd_over": "runs" if len(group) > 1 else "corruption seeds",
            "mean": {},
            "sd": {},
            "accuracy": {},
        }
        for name in names:
            values = np.array([curve.accuracy[name] for curve in group])  # [runs, levels, seeds]
            spread = values.mean(2) if len(group) > 1 else values[0].T
            row["mean"][name] = values.mean((0, 2)).tolist()
            row["sd"][name] = spread.std(0, ddof=1 if len(spread) > 1 else 0).tolist()
            row["accuracy"][name] = values.tolist()
        rows.append(row)
    return rows


def _label(curve: Curve) -> str:
    recipe = curve.run.recipe
    label = getattr(recipe, "method", "") or "+".join(recipe.mechanisms)
    if recipe.rules.sign == "-" and not getattr(recipe, "method", ""):
        label += " (−)"
    if "DP" in recipe.network:
        label += ", dropout"
    return label if curve.variant == "frozen" else f"{label}, {curve.variant}"
