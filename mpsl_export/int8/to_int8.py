"""From a network in float32 to its int8 form: samples, calibration, graph, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint
from mpsl_export.int8.calibrate import Calibration, calibrate
from mpsl_export.int8.calibration_input import calibration_frames
from mpsl_export.int8.quantize import quantised_graph
from mpsl_export.recipe_file import Holdout, holdout_of, read_recipe
from mpsl_export.write.format import Network
from mpsl_export.write.to_nir import run_network
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import ModelError, UsageError, plain
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.grid import LayerGrid, layer_grids
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.scale import Scale
from mpsl_runtime.run_folder import RunFolder

if TYPE_CHECKING:
    import nir

__all__ = ["Int8", "model_to_int8", "report_bytes", "report_path", "report_table", "to_int8"]


@dataclass(frozen=True, eq=False)
class Int8:
    """An int8 network and how it came about.

    Attributes:
        graph: to be written; plan: of this graph.
        calibration: scales and measured errors. grids: the proof, layer by layer.
        source: which samples were used, in words; seed: with which they were drawn.
        trained: the scales are those that training used.
    """

    graph: nir.NIRGraph
    plan: Plan
    calibration: Calibration
    grids: tuple[LayerGrid, ...]
    source: str
    seed: int
    trained: bool

    @property
    def words(self) -> str:
        """On which samples, in a few words."""
        return plain(f"{self.calibration.samples} samples of {self.source}, seed {self.seed}")

    def to_mapping(self) -> dict[str, Any]:
        """The report, for JSON."""
        report = self.calibration.to_mapping()
        for layer, grid in zip(report["layers"], self.grids, strict=True):
            layer["worst_sum"] = grid.worst_sum
        return {
            "weights": "int8",
            "scales": "trained" if self.trained else "calibrated",
            "calibrated_on": self.source,
            "seed": self.seed,
            **report,
        }


def to_int8(
    run: Path,
    checkpoint: Checkpoint,
    *,
    data: Path | None,
    samples: int,
    seed: int,
    source: str | Path | None = None,
) -> Int8:
    """The network of a run on a grid, calibrated and proven exact.

    A run that was trained on a grid (recipe key quantize) is put on that very grid, so that its
    record is the record of this model; the samples then show errors and bound the input.

    Args:
        run: the run folder. checkpoint: its banks.
        data: where the data set lies. samples: how many to calibrate on; seed: which.
        source: to calibrate on instead of what training held out.

    Raises:
        UsageError: no sample asked for. DataError: the data set is absent.
        ModelError: a layer has no int8 form: its decay is no binary fraction, or no scale keeps its
            sums exact.
    """
    network = run_network(run, checkpoint)
    trained = checkpoint.scales
    if source is not None:
        return model_to_int8(network, source, samples=samples, seed=seed, trained=trained)
    _check_count(samples)
    split, chosen, words = _samples(run, checkpoint, data, samples, seed)
    frames = np.stack([split.input(int(i), checkpoint.model) for i in chosen], axis=1)
    calibration = calibrate(network.plan, frames, split.labels[chosen], trained)
    return _on_grid(network, calibration, words, seed, trained is not None)


def model_to_int8(
    network: Network,
    source: str | Path,
    *,
    samples: int,
    seed: int,
    trained: Sequence[Scale] | None = None,
) -> Int8:
    """Any network on a grid, calibrated on recordings or frames, and proven exact.

    Args:
        source: see `calibration_input`. samples: how many of them at most; seed: which.
        trained: scales that training used.

    Raises:
        UsageError: no sample asked for. DataError: the samples cannot be read, or do not fit.
        ModelError: the network does not say what its input is, or has no int8 form; a node that
            leaves the grid is named.
    """
    _check_count(samples)
    if network.plan.metadata is None:
        raise ModelError(
            "model does not say what its input is, which int8 needs",
            expected="a model that mpsl wrote, or that `mpsl import` has read",
            where=network.plan.source,
        )
    frames, words = calibration_frames(network.plan, source, samples, seed)
    calibration = calibrate(network.plan, frames, None, trained)
    return _on_grid(network, calibration, words, seed, trained is not None)


def _on_grid(
    network: Network, calibration: Calibration, words: str, seed: int, trained: bool
) -> Int8:
    """What the loader would refuse, or is not exact for every input within its bound, is never
    written."""
    graph = quantised_graph(
        network.graph, calibration.scales, calibration.input_max, calibration.input_grid
    )
    plan = plan_of(graph, source=network.plan.source)
    return Int8(graph, plan, calibration, layer_grids(plan), words, seed, trained)


def _check_count(samples: int) -> None:
    if samples < 1:
        raise UsageError("calibration needs samples", got=samples, expected="≥ 1")


def report_path(model: Path) -> Path:
    """Where the report of an int8 model lies: `model.int8.onnx` → `model.int8.json`."""
    return model.with_suffix(".json")


def report_bytes(result: Int8) -> bytes:
    """The report as JSON."""
    return (json.dumps(result.to_mapping(), indent=1) + "\n").encode()


def report_table(result: Int8) -> list[str]:
    """The report for people: the error of every layer."""
    calibration = result.calibration
    lines = [
        f"int8, {'on the grid of training, measured' if result.trained else 'calibrated'} on "
        f"{calibration.samples} samples ({result.source}, seed {result.seed})",
        f"  {'layer':<12} {'grid':>6} {'threshold':>10} {'clipped':>8} {'current error':>14} "
        f"{'spike error':>12} {'worst sum':>11}",
    ]
    for name, tried, grid in zip(calibration.names, calibration.tried, result.grids, strict=True):
        best = tried[0]
        threshold = "as it was" if grid.threshold is None else str(best.scale.threshold)
        lines.append(
            f"  {name:<12} {'2^' + str(best.scale.exponent):>6} {threshold:>10} "
            f"{best.clipped:>8.2%} {best.current_error:>14.2e} {best.spike_error:>12.2e} "
            f"{grid.worst_sum:>11,}"
        )
    lines.append(
        "  errors of this layer alone: rms of the current in thresholds; part of the spikes that "
        "differ"
    )
    lines.append(f"  {'population':<12} {'rate':>8} {'int8':>8} {'spikes that differ':>19}")
    lines += [
        f"  {drift.layer:<12} {drift.rate:>8.2%} {drift.int8_rate:>8.2%} {drift.differing:>19.2e}"
        for drift in calibration.drift
    ]
    labels = "".join(
        f"{word} {calibration.accuracy[name]:.2%} {name}"
        for word, name in (("; accuracy there", "float32"), (",", "int8"))
        if name in calibration.accuracy
    )
    lines.append(f"  same label as float32 on {calibration.agreement:.2%}{labels}")
    lines.append(
        f"  exact while no input is beyond {calibration.input_max} "
        f"(largest seen {calibration.largest_input}); sums must stay below 2^24 = 16,777,216"
    )
    return lines


def _samples(
    run: Path, checkpoint: Checkpoint, data: Path | None, count: int, seed: int
) -> tuple[datasets.Split, NDArray[np.int64], str]:
    """Samples that training held out; training samples where it held out none."""
    name = checkpoint.model.dataset
    split = datasets.open_split(name, datasets.find(name, data), "train")
    held = _holdout(run)
    training, held_out = stratified_split(split.labels, held.fraction, held.seed, held.limit)
    pool, source = (held_out, "validation") if len(held_out) else (training, "training")
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(pool)[:count])
    return split, chosen, f"{source} part of {name}"


def _holdout(run: Path) -> Holdout:
    """How training split its data; a run folder that has no recipe held out nothing."""
    path = RunFolder(run).recipe
    return holdout_of(read_recipe(path)[1] if path.exists() else {}, path)
