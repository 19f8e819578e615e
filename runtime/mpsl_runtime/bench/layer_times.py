"""The time of one layer: a network that ends behind it, less one that ends before it.

Both are whole networks, so that a layer is measured on its real input and with the caches as they
are. What it costs to hand spikes on belongs to the layer that fired: each network ends in one more
neuron that looks at a single pixel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.bench.inputs import BenchInput
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Node, Plan, Shape
from mpsl_runtime.run.engine import Engine

__all__ = ["LayerTime", "has_layer_times", "layer_times"]

Array = NDArray[np.float32]
_CACHES = (("l1", 32 << 10), ("l2", 1 << 20))  # bytes, of the cores of today


@dataclass(frozen=True)
class LayerTime:
    """One population and the weights before it, in one step.

    Attributes:
        name: of the population. us: microseconds. synops: synaptic operations.
        density: part of the neurons that fire; of a population that does not, of U that is not 0.
        crossover: see `Engine.crossovers`.
        weights: of its rows, `float32` or `int8`; weight_bytes: of all of them.
        level: the cache in which its rows lie when they are added, `l1`, `l2`, `l3`: one tap's rows
            of a convolution, all rows of a fully connected layer. None where no rows are added:
            behind events, or without weights.
    """

    name: str
    us: float
    synops: float
    density: float
    crossover: float
    weights: str = "float32"
    weight_bytes: int = 0
    level: str | None = None

    @property
    def gsops(self) -> float:
        """Billions of synaptic operations a second; 0 where the time drowns in noise."""
        return self.synops / self.us / 1e3 if self.us > 0 else 0.0

    def of_roofline(self, limits: Mapping[str, float]) -> float | None:
        """The reached figure as a part of what a core does with rows in that cache; above 1 where
        a row counts for several spikes, or dense loops look no row up.

        Args:
            limits: as `bench.roofline` gives them.
        """
        if self.level is None:
            return None
        return self.gsops / limits[f"{self.weights}_{self.level}"]

    def to_mapping(self, limits: Mapping[str, float]) -> dict[str, Any]:
        """An entry of `layers` in `mpsl bench --json`.

        Args:
            limits: as `bench.roofline` gives them.
        """
        share = self.of_roofline(limits)
        return {
            "name": self.name,
            "us": round(self.us, 2),
            "synops": round(self.synops),
            "gsops": round(self.gsops, 3),
            "density": round(self.density, 6),
            "crossover": round(self.crossover, 3),
            "weight_bytes": self.weight_bytes,
            "level": self.level,
            "of_roofline": None if share is None else round(share, 3),
        }


def has_layer_times(plan: Plan) -> bool:
    """Whether a network has layers one behind the other, so that their times can be told apart."""
    return plan.is_chain and plan.output_neuron is not None


def layer_times(
    plan: Plan, given: BenchInput, threads: int = 1, rounds: int = 15
) -> tuple[LayerTime, ...]:
    """Each layer's part of a step, in order; medians over rounds in which the networks take turns.

    Raises:
        UsageError: a number of threads that the engine does not take.
    """
    ends = [i for i, node in enumerate(plan.nodes) if isinstance(node, Neuron)]
    plain = [_ending(plan, end) for end in ends]
    counts, densities = [], []
    for short in plain:
        engine = Engine(short, threads=threads)
        outputs = [engine.run(sample) for sample in given.samples]
        # The counter starts anew with each sample.
        counts.append(sum(_synops_of(engine, sample) for sample in given.samples))
        densities.append(float(np.mean([np.mean(output != 0) for output in outputs])))
    probed = [Engine(_probed(short), threads=threads) for short in plain[:-1]]
    probed.append(Engine(plain[-1], threads=threads))
    seconds: list[list[float]] = [[] for _ in probed]
    clock = time.process_time if threads == 1 else time.perf_counter  # see `bench`
    for _ in range(rounds):
        for engine, taken in zip(probed, seconds, strict=True):
            _pass(engine, given, clock)
            taken.append(_pass(engine, given, clock) / given.steps)
    costs, crossovers = [], probed[-1].crossovers
    for i, end in enumerate(ends):
        before = seconds[i - 1] if i else [0.0] * rounds
        spent = median(b - a for a, b in zip(before, seconds[i], strict=True))
        synops = (counts[i] - (counts[i - 1] if i else 0)) / given.steps
        first = ends[i - 1] + 1 if i else 0
        kind, size, level = _rows_of(plan.nodes[first:end], is_first=i == 0, is_int8=is_int8(plan))
        costs.append(LayerTime(plan.nodes[end].name, spent * 1e6, synops, densities[i],
                               crossovers[i], kind, size, level))  # fmt: skip
    return tuple(costs)


def _rows_of(
    nodes: Sequence[Node], *, is_first: bool, is_int8: bool
) -> tuple[str, int, str | None]:
    """(kind of weights, their bytes, the cache in which rows lie when they are added)."""
    layer = next((node for node in reversed(nodes) if isinstance(node, Convolution | Dense)), None)
    kind = "int8" if is_int8 and not is_first else "float32"
    if layer is None:
        return kind, 0, None
    item = 1 if kind == "int8" else 4
    size = layer.weight.size * item
    if is_first:
        return kind, size, None
    near = size
    if isinstance(layer, Convolution):
        # One tap of a go of outputs: up to 256 int8 or 64 float32, and a chunk of channels.
        outputs, channels = layer.weight.shape[:2]
        rows, chunk = (256, 512) if kind == "int8" else (64, 128)
        near = min(outputs, rows) * min(channels, chunk) * item
    return kind, size, next((name for name, most in _CACHES if near <= most), "l3")


def _synops_of(engine: Engine, sample: Array) -> int:
    engine.run(sample)
    return int(engine.synops)


def _pass(engine: Engine, given: BenchInput, clock: Callable[[], float]) -> float:
    begin = clock()
    for sample in given.samples:
        engine.run(sample)
    return clock() - begin


def _ending(plan: Plan, end: int) -> Plan:
    """The network up to and including node `end`."""
    return replace(plan, nodes=plan.nodes[: end + 1], output_shape=plan.nodes[end].output_shape)


def _probed(plan: Plan) -> Plan:
    """With one more neuron behind it, that sees one pixel of every channel."""
    shape = plan.output_shape
    nodes: list[Node] = [*plan.nodes]
    bias = np.zeros(1, np.float32)
    out: Shape = (1,)
    if len(shape) == 3:
        channels, rows, columns = shape
        out = (1, 1, 1)
        weight = np.ones((1, channels, 1, 1), np.float32)
        stride = (rows, columns)
        nodes.append(
            Convolution("probe", weight, bias, stride, ((0, 0), (0, 0)), (1, 1), 1, shape, out, 0)
        )
    else:
        weight = np.ones((1, math.prod(shape)), np.float32)
        nodes.append(Dense("probe", weight, bias, shape, out, 0))

    def full(value: float) -> Array:
        return np.full(out, value, np.float32)

    nodes.append(
        Neuron(
            "probe_neuron", "spiking", full(0.5), full(1), "subtract", full(0), full(1), full(0),
            False, None, None, out, out,
        )
    )  # fmt: skip
    return replace(plan, nodes=tuple(nodes), output_shape=out)
