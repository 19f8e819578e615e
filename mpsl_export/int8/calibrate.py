"""Chooses the scale of every layer of an int8 model by the error that it is measured to make.

Samples run through the float32 network. For each layer several scales are tried, from the one that
clips no weight to finer ones that clip the largest: with the layer's input in the float32 network,
the scale is taken whose spikes differ least from float32; of equals the one whose current differs
least (`trial`). With the chosen scales the int8 network then runs as a whole beside the float one,
which shows how the errors add up (`drift`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.int8.drift import Drift, drift_of
from mpsl_export.int8.quantize import (
    Stage,
    integers,
    quantised_node,
    quantised_plan,
    scale_of,
    stages,
)
from mpsl_export.int8.trial import Trial, try_scales
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, ModelError
from mpsl_runtime.model import readout
from mpsl_runtime.model.grid import GridSignal, GridWalk, layer_grids
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Node, Plan
from mpsl_runtime.model.quanta import EXACT_LIMIT, LARGEST_WEIGHT, worst_sum
from mpsl_runtime.model.scale import Scale, unclipped_threshold

__all__ = ["Calibration", "Candidate", "calibrate", "input_bound"]

Array = NDArray[np.float32]

# Threshold in quanta, as a multiple of the one that clips nothing.
_FINER = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
# Powers of two, from the finest that clips nothing: one clips a little, coarser ones are for sums
# that are too long.
_POWERS = (0, -1, 1, 2, 3, 4, 5, 6)
_LARGEST_EXPONENT = 60
_FINEST_GRID = 2.0**-16
_LEAST_BOUND = 255
_MOST_BOUND = 1 << 15
_MARGIN = 4


@dataclass(frozen=True)
class Candidate:
    """One scale of one layer, and what it does for the layer's input in the float32 network.

    Attributes:
        scale: the scale. clipped: part of the weights that it clips.
        spike_error: part of the outputs, neurons times steps, of what is behind the layer that
            differ from float32; where U are the scores, or nothing fires, the root mean square
            error of U.
        current_error: root mean square error of the current. Both in thresholds, or, where mpsl did
            not write the neurons behind, in root mean squares of the current itself.
        worst_sum: the largest sum that can be, in quanta of the current, for the least input bound
            that must be possible.
    """

    scale: Scale
    clipped: float
    spike_error: float
    current_error: float
    worst_sum: int

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weight_grid": self.scale.exponent,
            "threshold_quanta": self.scale.threshold,
            "clipped": self.clipped,
            "spike_error": self.spike_error,
            "current_error": self.current_error,
            "worst_sum": self.worst_sum,
        }


@dataclass(frozen=True)
class Calibration:
    """What calibration chose, and why.

    Attributes:
        names: of the weighted layers. scales: theirs.
        input_grid, input_max: of the input, see `ModelMetadata`; largest_input: that was seen.
        tried: for each layer every scale that was tried, the chosen one first.
        drift: of each population, when the whole network is int8.
        samples: number of samples.
        agreement: part of them that int8 gives the same label as float32.
        accuracy: of `float32` and `int8` on them; empty without labels.
    """

    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    input_grid: float
    input_max: int
    largest_input: int
    tried: tuple[tuple[Candidate, ...], ...]
    drift: tuple[Drift, ...]
    samples: int
    agreement: float
    accuracy: dict[str, float]

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "samples": self.samples,
            "largest_input": self.largest_input,
            "input_max": self.input_max,
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "layers": [
                {
                    "name": name,
                    **tried[0].to_mapping(),
                    "tried": [candidate.to_mapping() for candidate in tried],
                }
                for name, tried in zip(self.names, self.tried, strict=True)
            ],
            "drift": [drift.to_mapping() for drift in self.drift],
        }


def calibrate(
    plan: Plan,
    frames: Array,
    labels: NDArray[np.int64] | None = None,
    trained: Sequence[Scale] | None = None,
) -> Calibration:
    """Chooses a scale for every layer, and the bound on the input.

    Args:
        plan: the network in float32.
        frames: float32 [T, B, *input shape], T and B ≥ 1. labels: theirs, [B], if known.
        trained: scales that training used; then only their errors are measured.

    Raises:
        DataError: input that is not on the grid which the model names.
        ModelError: a layer for which no scale keeps its sums below 2^24 quanta, or that has no
            int8 form; it is named.
    """
    metadata = plan.metadata
    if metadata is None:
        raise ModelError("network has no metadata of mpsl", where=plan.source)
    metadata = replace(metadata, input_grid=_input_grid(frames, metadata))
    plan = replace(plan, metadata=metadata)
    largest = int(np.abs(frames).max(initial=0.0) / np.float32(metadata.input_grid))
    found = stages(plan)
    given = [[scale] for scale in trained] if trained else [_scales(stage) for stage in found]
    trials = try_scales(plan, found, given, frames)
    bound, tried = _within_a_bound(plan, found, trials, largest)
    scales = tuple(candidates[0].scale for candidates in tried)
    on_grid = quantised_plan(plan, scales, bound)
    drift, scores = drift_of(plan, on_grid, frames)
    predictions = {name: readout.label(values) for name, values in scores.items()}
    return Calibration(
        names=tuple(stage.weighted.name for stage in found),
        scales=scales,
        input_grid=metadata.input_grid,
        input_max=_widened(on_grid, bound),
        largest_input=largest,
        tried=tried,
        drift=drift,
        samples=frames.shape[1],
        agreement=float((predictions["float32"] == predictions["int8"]).mean()),
        accuracy={}
        if labels is None
        else {name: float((labels == label).mean()) for name, label in predictions.items()},
    )


def input_bound(metadata: ModelMetadata, largest: int) -> int:
    """How large |input| may become, in units of `input_grid`.

    An image has no more than its 256 values, and binary coding has only 0 and 1. A pixel's events
    in one step have no bound of their own: four times what calibration saw, as a power of two, and
    at least 255, must be possible.

    Args:
        largest: |input| that calibration saw, in the same units.
    """
    if metadata.input_kind == "image":
        channels = max(1, metadata.image_mean.count(",") + 1, metadata.image_std.count(",") + 1)
        every = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
        current = np.abs(datasets.image_current(every, metadata)).max()
        return int(np.rint(current / metadata.input_grid))
    if metadata.coding == "binary":
        return 1
    return max(_LEAST_BOUND, 1 << (_MARGIN * max(1, largest) - 1).bit_length())


def _input_grid(frames: Array, metadata: ModelMetadata) -> float:
    """The power of two of which all input is a multiple: the model's own, or, where frames have
    nothing but their numbers, the largest that these allow."""
    grid = metadata.input_grid
    while metadata.input_kind == "frames" and grid > _FINEST_GRID and _off(frames, grid).any():
        grid /= 2
    off = _off(frames, grid)
    if off.any():
        raise DataError(
            "input of an int8 model must be on a grid",
            got=float(frames[off].flat[0]),
            expected=f"multiples of {grid:g}",
        )
    return grid


def _off(frames: Array, grid: float) -> NDArray[np.bool_]:
    quanta = frames / np.float32(grid)
    off: NDArray[np.bool_] = np.rint(quanta) != quanta
    return off


def _bounded(plan: Plan, bound: int) -> Plan:
    """With the bound on its input."""
    if plan.metadata is None:
        return plan
    return replace(plan, metadata=replace(plan.metadata, weights="int8", input_max=bound))


def _scales(stage: Stage) -> list[Scale]:
    """The scales that are tried of one layer, those that clip nothing first."""
    peak = float(np.abs(stage.weighted.weight).max())
    if stage.is_free:
        whole = unclipped_threshold(peak, stage.threshold)
        wanted = (int(np.clip(whole * factor, 1, EXACT_LIMIT - 1)) for factor in _FINER)
        return list(dict.fromkeys(scale_of(stage, threshold) for threshold in wanted))
    coarse = max(peak, float(np.abs(stage.weighted.bias).max()) / (EXACT_LIMIT >> 8), 1e-30)
    least = math.ceil(math.log2(coarse / (LARGEST_WEIGHT + 0.49)))
    exponents = (int(np.clip(least + by, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)) for by in _POWERS)
    return [Scale.power_of_two(e, stage.threshold) for e in dict.fromkeys(exponents)]


def _choose(
    plan: Plan, found: Sequence[Stage], trials: Sequence[Sequence[Trial]]
) -> tuple[tuple[Candidate, ...], ...]:
    """For each layer its candidates, the best first, and the others as they were tried.

    Args:
        plan: with the bound on its input.
    """
    walk = GridWalk(plan)
    at = {stage.index: (stage, own) for stage, own in zip(found, trials, strict=True)}
    chosen: list[tuple[Candidate, ...]] = []
    for index, node in enumerate(plan.nodes):
        placed: Node = node
        if index in at:
            stage, own = at[index]
            seen = walk.seen(index)
            if seen is not None:
                candidates = [_candidate(stage, trial, seen) for trial in own]
                chosen.append(_best_first(candidates, f"{node.name} of {plan.source}"))
                placed = quantised_node(stage, chosen[-1][0].scale)
        walk.passed(index, placed)  # refuses a layer that sees values on no grid
    return tuple(chosen)


def _within_a_bound(
    plan: Plan, found: Sequence[Stage], trials: Sequence[Sequence[Trial]], largest: int
) -> tuple[int, tuple[tuple[Candidate, ...], ...]]:
    """The bound on the input, and `_choose` for it.

    Neurons that fire many times a step pass a large input on: there the margin is as large as the
    proof allows.
    """
    if plan.metadata is None:
        raise ModelError("network has no metadata of mpsl", where=plan.source)
    bound = input_bound(plan.metadata, largest)
    counts = plan.metadata.input_kind != "image" and plan.metadata.coding == "count"
    shrinks = counts and any(neuron.many for neuron in plan.spiking)
    while True:
        try:
            return bound, _choose(_bounded(plan, bound), found, trials)
        except ModelError:
            if not shrinks or bound == largest:
                raise
        bound = max(bound // 2, largest)


def _candidate(stage: Stage, trial: Trial, seen: GridSignal) -> Candidate:
    weight, bias, _ = integers(stage, trial.scale)
    current = math.sqrt(trial.current / max(trial.currents, 1))
    # Of neurons that mpsl did not write nobody knows in what units their current is.
    power = math.sqrt(trial.power / max(trial.currents, 1))
    unit = stage.threshold if stage.neuron is not None else power or 1.0
    if trial.outputs and not stage.is_score:
        error = trial.differing / trial.outputs
    elif trial.potentials:
        error = math.sqrt(trial.potential / trial.potentials) / unit
    else:
        error = current / unit
    worst = worst_sum(weight, bias, seen.quantum, seen.largest)
    return Candidate(trial.scale, trial.clipped, error, current / unit, worst)


def _best_first(candidates: Sequence[Candidate], where: str) -> tuple[Candidate, ...]:
    """Raises ModelError: none of them keeps the layer's sums exact."""
    proven = [candidate for candidate in candidates if candidate.worst_sum < EXACT_LIMIT]
    if not proven:
        least = min(candidate.worst_sum for candidate in candidates)
        raise ModelError(
            "layer has no int8 form: its sums may not be exact",
            got=f"up to {least:,} quanta",
            expected=f"< 2^24 = {EXACT_LIMIT:,}",
            where=where,
        )
    best = min(proven, key=lambda candidate: (candidate.spike_error, candidate.current_error))
    return (best, *(candidate for candidate in candidates if candidate is not best))


def _widened(plan: Plan, bound: int) -> int:
    """A larger bound on event counts, if the proof allows it: a camera has hot pixels."""
    metadata = plan.metadata
    if metadata is not None and metadata.input_kind == "events" and metadata.coding == "count":
        for wider in (1 << k for k in range(_MOST_BOUND.bit_length() - 1, bound.bit_length(), -1)):
            try:
                layer_grids(_bounded(plan, wider))
            except ModelError:
                continue
            return wider
    return bound
