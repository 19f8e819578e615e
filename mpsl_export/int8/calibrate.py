"""Chooses the scale of every layer of an int8 model by the error that it is measured to make.

Samples that training held out run through the float32 network. For each layer several scales are
tried, from the one that clips no weight to finer ones that clip the largest: with the layer's input
in the float32 network, the scale is taken whose spikes differ least from float32; of equals the one
whose current differs least. (Judged with the spikes of the int8 layers before it, all scales look
alike: their errors outweigh the layer's own.) With the chosen scales the int8 network then runs as
a whole, which shows how the errors add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.int8.quantize import Stage, integers, quantised_node, scale_of, stages
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model import readout
from mpsl_runtime.model.grid import EXACT_LIMIT, worst_sum
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Node, Plan, Pooling
from mpsl_runtime.model.scale import Scale, unclipped_threshold
from mpsl_runtime.run.reference import Reference, apply

__all__ = ["Calibration", "Candidate", "calibrate", "input_bound"]

Array = NDArray[np.float32]
Spikes = NDArray[np.bool_]
Signal = Array | Spikes

# Threshold in quanta, as a multiple of the one that clips nothing.
_FINER = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
# Samples that run side by side: the spikes of a wide layer fill much memory.
_BATCH = 16
# Currents hardly vary between samples; their error is measured on so many.
_CURRENT_SAMPLES = 8
_LEAST_BOUND = 255
_MOST_BOUND = 1 << 15
_MARGIN = 4


@dataclass(frozen=True)
class Candidate:
    """One scale of one layer, and what it does for the layer's input in the float32 network.

    Attributes:
        scale: the scale. clipped: part of the weights that it clips.
        spike_error: part of the layer's outputs, neurons times steps, that differ from float32; for
            a layer whose U are the scores, the root mean square error of U, in thresholds.
        current_error: root mean square error of the current, in thresholds.
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
        input_max: bound on the input, see `ModelMetadata.input_max`; largest_input: that was seen.
        tried: for each layer every scale that was tried, the chosen one first.
        network_errors: for each layer the part of its outputs that differ from float32 when the
            layers before it are int8 too.
        samples: number of samples.
        agreement: part of them that int8 gives the same label as float32.
        accuracy: of `float32` and `int8` on them.
    """

    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    input_max: int
    largest_input: int
    tried: tuple[tuple[Candidate, ...], ...]
    network_errors: tuple[float, ...]
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
                    "network_error": network_error,
                    "tried": [candidate.to_mapping() for candidate in tried],
                }
                for name, tried, network_error in zip(
                    self.names, self.tried, self.network_errors, strict=True
                )
            ],
        }


def calibrate(
    plan: Plan,
    frames: Array,
    labels: NDArray[np.int64],
    trained: Sequence[Scale] | None = None,
) -> Calibration:
    """Chooses a scale for every layer, and the bound on the input.

    Args:
        plan: the merged network in float32.
        frames: float32 [T, B, *input shape] of training samples. labels: theirs, [B].
        trained: scales that training used; then only their errors are measured.

    Raises:
        ModelError: a layer for which no scale keeps its sums below 2^24 quanta, or that has no
            int8 form; it is named.
    """
    metadata = plan.metadata
    if metadata is None:
        raise ModelError("network has no metadata of mpsl", where=plan.source)
    largest = int(np.abs(frames).max(initial=0.0) / np.float32(metadata.input_grid))
    input_max = input_bound(metadata, largest)
    exact: Signal = frames
    coarse: Signal = frames
    membranes: tuple[Array | None, Array | None] = None, None
    quantum, bound = metadata.input_grid, input_max
    found = stages(plan)
    tried, network_errors = [], []
    for index, stage in enumerate(found):
        before = plan.nodes[stage.first : stage.last - 1]
        pooled = math.prod(math.prod(n.kernel) for n in before if isinstance(n, Pooling))
        layer = _Layer(plan, stage, exact, (quantum, bound * pooled))
        tried.append(tuple(layer.candidates(trained[index] if trained else None)))
        exact, exact_membrane = layer.expected, layer.expected_membrane
        coarse, coarse_membrane = layer.run(coarse, tried[-1][0].scale)
        membranes = exact_membrane, coarse_membrane
        network_errors.append(float((coarse != exact).mean()))
        quantum, bound = 1.0, 1
    predictions = [
        readout.label(readout.scores(metadata.readout, spikes, membrane))
        for spikes, membrane in zip((exact, coarse), membranes, strict=True)
    ]
    return Calibration(
        names=tuple(stage.weighted.name for stage in found),
        scales=tuple(candidates[0].scale for candidates in tried),
        input_max=_widened(metadata, input_max, tried[0][0].worst_sum),
        largest_input=largest,
        tried=tuple(tried),
        network_errors=tuple(network_errors),
        samples=len(labels),
        agreement=float((predictions[0] == predictions[1]).mean()),
        accuracy={
            name: float((predicted == labels).mean())
            for name, predicted in zip(("float32", "int8"), predictions, strict=True)
        },
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


def _widened(metadata: ModelMetadata, bound: int, worst: int) -> int:
    """A larger bound on event counts, if the first layer's sums allow it: a camera has hot pixels.

    Args:
        worst: the first layer's largest sum under `bound`.
    """
    if metadata.input_kind == "events" and metadata.coding == "count":
        for wider in (1 << k for k in range(_MOST_BOUND.bit_length() - 1, bound.bit_length(), -1)):
            if worst * wider < EXACT_LIMIT * bound:
                return wider
    return bound


class _Layer:
    """One weighted layer with its input in the float32 network.

    Attributes:
        expected, expected_membrane: spikes [T, B, …] and last U [B, n] of the float32 layer.
    """

    def __init__(self, plan: Plan, stage: Stage, exact: Signal, grid: tuple[float, int]) -> None:
        """exact: input [T, B, …]; grid: (input quantum, largest |input| in it)."""
        self._plan = plan
        self._stage = stage
        self._exact = exact
        self._grid = grid
        nodes = plan.nodes[stage.first : stage.last + 1]
        self.expected, self.expected_membrane = self._run(nodes, exact)

    def candidates(self, trained: Scale | None) -> list[Candidate]:
        """Every scale that is tried, the best first; `trained` alone where there is one.

        Raises:
            ModelError: none of them keeps the layer's sums exact.
        """
        found = [self._judge(scale) for scale in ([trained] if trained else self._scales())]
        proven = [candidate for candidate in found if candidate.worst_sum < EXACT_LIMIT]
        if not proven:
            least = min(candidate.worst_sum for candidate in found)
            raise ModelError(
                "layer has no int8 form: its sums may not be exact",
                got=f"up to {least:,} quanta",
                expected=f"< 2^24 = {EXACT_LIMIT:,}",
                where=f"{self._stage.weighted.name} of {self._plan.source}",
            )
        best = min(proven, key=lambda candidate: (candidate.spike_error, candidate.current_error))
        return [best, *(candidate for candidate in found if candidate is not best)]

    def run(self, frames: Signal, scale: Scale) -> tuple[Spikes, Array]:
        """Spikes, and the last U in the trained units, with weights on the grid of `scale`."""
        stage = self._stage
        neuron = stage.neuron.with_threshold(scale.stored_threshold)
        before = self._plan.nodes[stage.first : stage.last - 1]
        spikes, membrane = self._run((*before, quantised_node(stage, scale), neuron), frames)
        return spikes, membrane * np.float32(scale.step / scale.quantum)

    def _scales(self) -> Iterator[Scale]:
        stage = self._stage
        whole = unclipped_threshold(float(np.abs(stage.weighted.weight).max()), stage.threshold)
        seen: set[Scale] = set()
        for factor in _FINER:
            threshold = int(np.clip(whole * factor, 1, EXACT_LIMIT - 1))
            scale = scale_of(stage, threshold)
            if scale not in seen:
                seen.add(scale)
                yield scale

    def _judge(self, scale: Scale) -> Candidate:
        weight, bias, clipped = integers(self._stage, scale)
        spikes, membrane = self.run(self._exact, scale)
        if self._stage.read_as_score:
            error = _rms(membrane - self.expected_membrane) / self._stage.threshold
        else:
            error = float((spikes != self.expected).mean())
        return Candidate(
            scale=scale,
            clipped=clipped,
            spike_error=error,
            current_error=self._current_error(scale),
            worst_sum=worst_sum(weight, bias, *self._grid),
        )

    def _current_error(self, scale: Scale) -> float:
        """The current is linear in the weights: that of their error is its error."""
        stage = self._stage
        weight, bias, _ = integers(stage, scale)
        error = replace(
            stage.weighted,
            weight=(weight * scale.step - stage.weighted.weight).astype(np.float32),
            bias=(bias * scale.step - stage.weighted.bias).astype(np.float32),
        )
        x = self._exact[:, :_CURRENT_SAMPLES].astype(np.float32)
        x = x.reshape(-1, *x.shape[2:])
        for node in (*self._plan.nodes[stage.first : stage.last - 1], error):
            x = apply(node, x)
        return _rms(x) / stage.threshold

    def _run(self, nodes: Sequence[Node], frames: Signal) -> tuple[Spikes, Array]:
        """Spikes [T, B, …] and the last U [B, n] of a piece of a plan."""
        first, last = nodes[0], nodes[-1]
        piece = Plan(tuple(nodes), first.input_shape, last.output_shape, None, self._plan.source)
        steps, count = frames.shape[:2]
        spikes = np.empty((steps, count, *last.output_shape), np.bool_)
        membrane = np.empty((count, math.prod(last.output_shape)), np.float32)
        reference = Reference(piece)
        for start in range(0, count, _BATCH):
            part = slice(start, start + _BATCH)
            out = reference.run_batch(frames[:, part].astype(np.float32))
            spikes[:, part] = out.reshape(*out.shape[:2], *last.output_shape) > 0
            membrane[part] = reference.membrane.reshape(out.shape[1], -1)
        return spikes, membrane


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
