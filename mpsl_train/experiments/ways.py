"""The ways in which `mpsl robustness` uses a run: frozen, going on to learn, and the controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import UsageError
from mpsl_train.data.batches import Samples, to_window
from mpsl_train.data.frames import load_frames
from mpsl_train.experiments.inference import adaptive, aligned, mean_currents
from mpsl_train.experiments.runs import StdpRun, TrainedRun
from mpsl_train.experiments.threshold_modulation import ThresholdModulation
from mpsl_train.network.network import Output

__all__ = ["FROZEN", "Curve", "Ways", "curves_of"]

# Training samples that tell the controls what is usual.
_CLEAN_SAMPLES = 500


@dataclass(frozen=True)
class Ways:
    """What else is measured of each run than the frozen network.

    Attributes:
        adapt: with local rules that go on learning, without labels.
        align: with its channels' mean currents shifted to those of training.
        modulate: with thresholds that follow its membranes' statistics (TM-NORM), of this
            momentum, 0 < m ≤ 1; None: not.
    """

    adapt: bool = False
    align: bool = False
    modulate: float | None = None


FROZEN = Ways()


@dataclass(eq=False)
class Curve:
    """One way to use one run.

    Attributes:
        answer: to a window, of so many steps where its current is constant; None: of competing
            neurons.
        begin: called before the first window of a level and seed.
    """

    run: TrainedRun | StdpRun
    variant: str
    answer: Callable[[Tensor, int], Output] | None = None
    begin: Callable[[], None] = lambda: None
    accuracy: dict[str, list[list[float]]] = field(default_factory=dict)


def curves_of(
    runs: Sequence[TrainedRun | StdpRun], root: Path, ways: Ways, batch: int
) -> list[Curve]:
    curves: list[Curve] = []
    for run in runs:
        if isinstance(run, StdpRun):
            curves.append(Curve(run, "frozen"))
            continue
        curves.append(Curve(run, "frozen", run.network))
        if ways.align or ways.modulate is not None:
            curves += _controls(run, _training_windows(run, root, batch), ways)
        if ways.adapt and any(layer.plastic for layer in run.network.layer_list):
            curves.append(Curve(run, "plastic", partial(adaptive, run.network)))
    if ways.adapt and not any(curve.variant == "plastic" for curve in curves):
        raise UsageError(
            "no run has a local rule that could go on learning", got="--adapt",
            expected="a run with hebbian or another local mechanism",
        )  # fmt: skip
    return curves


def _controls(run: TrainedRun, windows: Sequence[Tensor], ways: Ways) -> list[Curve]:
    """What uses the test batches and learns nothing."""
    network, steps, found = run.network, run.metadata.steps, []
    if ways.align:
        means = mean_currents(network, windows, steps)

        def answer(window: Tensor, steps: int) -> Output:
            return aligned(network, window, means, steps)

        found.append(Curve(run, "aligned", answer))
    if ways.modulate is not None:
        modulation = ThresholdModulation(network, windows, steps, ways.modulate)
        found.append(Curve(run, "modulated", modulation, modulation.reset))
    return found


def _training_windows(run: TrainedRun, root: Path, batch: int) -> list[Tensor]:
    """Clean training samples, for the controls; the held-out ones are not among them."""
    recipe = run.recipe
    split = datasets.open_split(recipe.data.dataset, root, "train")
    training, _ = stratified_split(
        split.labels, recipe.data.validation, recipe.seed, recipe.data.train_limit
    )
    chosen = np.random.default_rng([recipe.seed, 7]).permutation(training)[:_CLEAN_SAMPLES]
    frames = load_frames(split, run.metadata, datasets.content_hash(split))
    samples = Samples(frames, split.labels, run.metadata)
    whole = max(1, len(chosen) // batch)
    return [to_window(samples[(None, part)][0]) for part in np.array_split(chosen, whole)]
