"""`mpsl bench`: the engine against other programs, on the same model and the same input.

All programs take turns in one process, each pass after a warm one of its own, and every figure is
a median over rounds, so that a busy machine slows all of them. A ratio is the median of the rounds'
ratios. With one thread the time is the process's own: the clock of a busy machine would favour
whoever is done before others get their turn. The engine is given the events of a step, as
`mpsl run` gives them; the others the frame.

In every round the outputs of all steps are compared. Once, before, so is the numpy reference, and
the V of every neuron after the last step. `equal` says that all outputs were the same; of an int8
model it also demands every V bit for bit, which `exact` says of any model. A float model whose
sums round differently may have a neuron at its threshold fire here and not there (DESIGN §8):
`mpsl verify` tells such ties from faults.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.bench.density import force_density
from mpsl_runtime.bench.inputs import BenchInput
from mpsl_runtime.bench.layer_times import LayerTime, has_layer_times, layer_times
from mpsl_runtime.bench.programs import Program, ProgramFactory
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.neuron_step import after_spikes, spikes_at
from mpsl_runtime.run.reference import Reference

__all__ = ["Row", "benchmark", "lines", "processor", "roofline"]

Array = NDArray[np.float32]
_TOLERANCE = 1e-5  # of U, where it is the output of a float model


@dataclass(frozen=True)
class Row:
    """One model on one input.

    Attributes:
        network: in the paper's notation, or the file's name; weights: `float32` or `int8`.
        density: part of the spiking neurons that fire in a step: the one asked for, or measured.
        engine_us, program_us: time of a step, the latter by program. ratio: program / engine.
        best_us: the shortest time of a step in any round, of the engine, as `engine`, and of each
            program: what a free machine might give, no more than that.
        synops: synaptic operations a step; gsops: billions of them a second.
        equal, exact: see the module.
        output_spikes: output values that are not zero; equality of silence would say little.
        layers: time, operations and measured density of each layer.
        memory_bytes: of the engine: weights, state and lists.
        events: inputs that are not zero, a step; spikes: of all layers, a step.
        real_time: how much faster than the recording.
        threads: of every program.
    """

    network: str
    weights: str
    density: float
    engine_us: float
    program_us: Mapping[str, float]
    ratio: Mapping[str, float]
    best_us: Mapping[str, float]
    synops: float
    equal: bool
    exact: bool
    output_spikes: int
    layers: tuple[LayerTime, ...]
    memory_bytes: int
    events: float
    spikes: float
    input: str
    devices: Mapping[str, str]
    real_time: float | None
    threads: int = 1

    @property
    def gsops(self) -> float:
        """Billions of synaptic operations a second."""
        return self.synops / self.engine_us / 1e3

    def of_roofline(self, limits: Mapping[str, float]) -> dict[str, float]:
        """The reached figure as a part of what a core does with weight rows in `l1` and in `l2`.

        It may pass 1: a row that several spikes under a pool share is added once and counts as
        often as it is shared, and where most neurons fire no row is looked up at all.

        Args:
            limits: as `roofline` gives them.
        """
        return {
            level: self.gsops / self.threads / limits[f"{self.weights}_{level}"]
            for level in ("l1", "l2")
        }

    def to_mapping(self, limits: Mapping[str, float]) -> dict[str, Any]:
        """A row of `mpsl bench --json`; null where nothing was measured.

        Args:
            limits: as `roofline` gives them.
        """
        onnx, torch = self.program_us.get("onnx"), self.program_us.get("torch")
        return {
            "network": self.network,
            "weights": self.weights,
            "density": round(self.density, 6),
            "engine_us": round(self.engine_us, 2),
            "ort_us": None if onnx is None else round(onnx, 2),
            "torch_us": None if torch is None else round(torch, 2),
            "ratio_ort": round(self.ratio["onnx"], 3) if "onnx" in self.ratio else None,
            "best_us": {name: round(us, 2) for name, us in self.best_us.items()},
            "gsops": round(self.gsops, 3),
            "synops": round(self.synops),
            "equal": self.equal,
            "exact": self.exact,
            "output_spikes": self.output_spikes,
            "events": round(self.events, 1),
            "spikes": round(self.spikes, 1),
            "of_roofline": {k: round(v, 3) for k, v in self.of_roofline(limits).items()},
            "memory_bytes": self.memory_bytes,
            "real_time_factor": None if self.real_time is None else round(self.real_time, 1),
            "programs": {
                name: {
                    "device": self.devices[name],
                    "us": round(self.program_us[name], 2),
                    "ratio": round(self.ratio[name], 3),
                }
                for name in self.program_us
            },
            "input": self.input,
            "layers": [layer.to_mapping(limits) for layer in self.layers],
        }


def benchmark(
    plan: Plan,
    given: BenchInput,
    *,
    programs: Mapping[str, ProgramFactory] | None = None,
    density: float | None = None,
    threads: int = 1,
    rounds: int = 15,
) -> Row:
    """Measures one model on one input.

    Args:
        plan: the model. given: its input.
        programs: programs to compare with, by name.
        density: forces the layers to it, on a copy; None runs the model as it is.
        threads: of every program. rounds: how often each has its turn.

    Raises:
        UsageError: no round, or a density or a number of threads that cannot be.
        ModelError, DataError: the model, or its input, is not exact on its grid.
    """
    if rounds < 1:
        raise UsageError("benchmark needs rounds", got=rounds, expected="≥ 1")
    name = plan.metadata.network if plan.metadata is not None else Path(plan.source).stem
    if density is not None:
        plan = force_density(plan, given, density)
    engine = Engine(plan, threads=threads)
    others = {key: factory(plan, threads) for key, factory in (programs or {}).items()}
    expected = [np.array(Reference(plan).run(sample)) for sample in given.samples]
    exact, spikes = _check_states(plan, given, threads, others)
    neurons = sum(math.prod(node.output_shape) for node in plan.spiking)
    clock = time.process_time if threads == 1 else time.perf_counter
    passes = {"": _engine_pass(engine, given, clock)}
    passes.update({key: _program_pass(program, given, clock) for key, program in others.items()})
    seconds, same = _in_turns(passes, plan, expected, rounds)
    engine_s = median(seconds[""]) / given.steps
    return Row(
        network=name,
        weights="int8" if is_int8(plan) else "float32",
        density=density or spikes / given.steps / max(1, neurons),
        engine_us=engine_s * 1e6,
        program_us={key: median(seconds[key]) / given.steps * 1e6 for key in others},
        ratio={
            key: median(b / a for a, b in zip(seconds[""], seconds[key], strict=True))
            for key in others
        },
        best_us={key or "engine": min(taken) / given.steps * 1e6 for key, taken in seconds.items()},
        synops=_synops(engine, given),
        equal=same and (exact or not is_int8(plan)),
        exact=exact,
        output_spikes=sum(int(np.count_nonzero(output)) for output in expected),
        layers=layer_times(plan, given, threads, rounds) if has_layer_times(plan) else (),
        memory_bytes=int(engine.memory_bytes),
        events=sum(int(np.count_nonzero(s)) for s in given.samples) / given.steps,
        spikes=spikes / given.steps,
        input=given.source,
        devices={key: program.device for key, program in others.items()},
        real_time=None if given.step_us is None else given.step_us / engine_s / 1e6,
        threads=threads,
    )


Clock = Callable[[], float]
Pass = Callable[[], tuple[float, list[Array]]]


def _in_turns(
    passes: Mapping[str, Pass], plan: Plan, expected: Sequence[Array], rounds: int
) -> tuple[dict[str, list[float]], bool]:
    """Every program's seconds a pass, round by round, each after a warm one; and whether all gave
    the expected outputs every time."""
    seconds: dict[str, list[float]] = {key: [] for key in passes}
    same = True
    for _ in range(rounds):
        for key, run in passes.items():
            run()
            taken, outputs = run()
            seconds[key].append(taken)
            same = same and all(_same(plan, a, b) for a, b in zip(outputs, expected, strict=True))
    return seconds, same


def _engine_pass(engine: Engine, given: BenchInput, clock: Clock) -> Pass:
    """All samples from rest: seconds, and the outputs [T, K] of each."""
    samples = [list(_sparse(sample)) for sample in given.samples]

    def run() -> tuple[float, list[Array]]:
        outputs: list[Array] = []
        begin = clock()
        if given.constant:
            outputs = [engine.run(sample) for sample in given.samples]
            return clock() - begin, outputs
        steps = []
        for sample in samples:
            engine.reset()
            steps.append([engine.step_sparse(address, value) for address, value in sample])
        return clock() - begin, [np.array(sample) for sample in steps]

    return run


def _program_pass(program: Program, given: BenchInput, clock: Clock) -> Pass:
    samples = [list(sample) for sample in given.samples]

    def run() -> tuple[float, list[Array]]:
        steps = []
        begin = clock()
        for sample in samples:
            program.reset()
            steps.append([program.step(frame) for frame in sample])
        return clock() - begin, [np.array(sample) for sample in steps]

    return run


def _sparse(sample: Array) -> Iterator[tuple[NDArray[np.int32], Array]]:
    for frame in sample.reshape(len(sample), -1):
        address = np.flatnonzero(frame).astype(np.int32)
        yield address, frame[address]


def _synops(engine: Engine, given: BenchInput) -> float:
    """Synaptic operations a step."""
    total = 0
    for sample in given.samples:
        engine.run(sample)
        total += engine.synops
    return total / given.steps


def _same(plan: Plan, outputs: Array, expected: Array) -> bool:
    """Spikes must be the same; U of a last layer that does not fire, within rounding."""
    last = plan.output_neuron
    if (last is None or last.kind == "integrating") and not is_int8(plan):
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        return bool(np.allclose(outputs, expected, rtol=0, atol=_TOLERANCE * scale))
    return np.array_equal(outputs, expected)


def _check_states(
    plan: Plan, given: BenchInput, threads: int, others: Mapping[str, Program]
) -> tuple[bool, int]:
    """Whether every V is the same in all programs, bit for bit, after the last step of each sample;
    and the spikes of all layers."""
    exact = True
    fired = 0
    checker, reference = Engine(plan, threads=threads), Reference(plan)
    for sample in given.samples:
        spikes, reference_spikes = checker.record(sample), reference.record(sample)
        U, reference_U = checker.record_membrane(sample), reference.record_membrane(sample)
        for mine, theirs in zip([*spikes, *U], [*reference_spikes, *reference_U], strict=True):
            exact = exact and np.array_equal(mine, theirs)
        states = {
            neuron.name: after_spikes(neuron, membrane[-1], spikes_at(neuron, membrane[-1]))
            for neuron, membrane in zip(plan.spiking, U, strict=True)
            if neuron.kind == "spiking"
        }
        for program in others.values():
            program.reset()
            for frame in sample:
                program.step(frame)
            theirs_now = program.states()
            for key, V in states.items():
                exact = exact and np.array_equal(theirs_now[key].reshape(V.shape), V)
        fired += sum(int(spike.sum()) for spike in spikes)
    return exact, fired


def roofline() -> dict[str, float]:
    """GSOP/s at which one core, now, adds weight rows that lie in its first-, second- and
    third-level cache: `float32_l1` … `float32_l3`, `int8_l1` … `int8_l3`. Takes 0.2 s.

    What is timed are the loops of the layers and nothing around them. On a busy machine it is less,
    as everything is.

    Source: Williams, Waterman, Patterson, "Roofline", Communications of the ACM 52 (2009).
    """
    from mpsl_runtime import _native

    return {key: float(value) for key, value in _native.roofline().items()}


def processor() -> str:
    """The processor's own name for itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def lines(rows: Sequence[Row], limits: Mapping[str, float]) -> list[str]:
    """Rows as a table for people, the layers of each row below it, then the roofline.

    Args:
        limits: as `roofline` gives them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.program_us))
    head = f"{'network':<38} {'weights':<8} {'density':>7} {'engine':>10}"
    for name in names:
        head += f" {name:>10} {'ratio':>7}"
    head += f" {'GSOP/s':>7} {'of L1':>6} {'of L2':>6} {'MSOP':>8} {'memory':>10}  equal"
    text = [head]
    for row in rows:
        line = f"{row.network[:38]:<38} {row.weights:<8} {row.density:>7.2%} {_us(row.engine_us)}"
        for name in names:
            known = name in row.program_us
            line += f" {_us(row.program_us[name])} {row.ratio[name]:>6.2f}x" if known else " " * 19
        line += f" {row.gsops:>7.1f}"
        for part in row.of_roofline(limits).values():
            line += f" {part:>6.0%}"
        line += f" {row.synops / 1e6:>8.3f} {row.memory_bytes / 2**20:>6.1f} MiB"
        text.append(f"{line}  {'yes' if row.equal else 'NO'}{' (bit for bit)' * row.exact}")
    for row in rows:
        text += ["", f"{row.network} {row.weights} at {row.density:.2%}, {row.input}, by layer:"]
        text += [
            f"  {layer.name:<16} {_us(layer.us) if layer.us > 0 else '< noise':>10}"
            f" {layer.synops / 1e6:>9.3f} MSOP {layer.gsops:>7.1f} GSOP/s"
            f"  fires {layer.density:.2%}"
            + _share(layer, limits)
            + (f"  (dense loops above {layer.crossover:.0%})" if layer.crossover < 1 else "")
            for layer in row.layers
        ]
        if row.real_time is not None:
            text.append(f"  {row.real_time:,.0f} times faster than the events come")
    text += ["", "roofline of a core in GSOP/s, weight rows in its caches:"]
    for kind in ("float32", "int8"):
        caches = (f"L{n} {limits[f'{kind}_l{n}']:>4.0f}" for n in (1, 2, 3))
        text.append(f"  {kind:<8} {'   '.join(caches)}")
    return text


def _share(layer: LayerTime, limits: Mapping[str, float]) -> str:
    share = layer.of_roofline(limits)
    return "" if share is None or layer.level is None else f"  {share:.0%} of {layer.level.upper()}"


def _us(value: float) -> str:
    return f"{value:>7.0f} µs" if value >= 100 else f"{value:>7.1f} µs"
