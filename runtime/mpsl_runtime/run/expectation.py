"""What another program computed, replayed: the first step at which ours gives something else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.containers import read_arrays
from mpsl_runtime.errors import DataError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.checks import checked
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.memory import limit_or_default

__all__ = ["Expectation", "Replay", "read_expectation", "replay"]

Array = NDArray[np.float32]

_TOLERANCE = 1e-4
"""Of real numbers, times the largest of them where that is above 1: sums are added in any order."""


@dataclass(frozen=True, eq=False)
class Expectation:
    """Input and output of a network, as another program has them.

    Attributes:
        frames: float32 [T, B, *input_shape]. outputs: float32 [T, B, K].
        are_spikes: the outputs are whole numbers, and must be equal.
        where: the file.
    """

    frames: Array
    outputs: Array
    are_spikes: bool
    where: str


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        values: that were compared. differing: of these. samples: that were run.
        sample, step, neuron: of the first that differs, by step, sample and neuron; else None.
        got, expected: there.
    """

    values: int
    differing: int
    samples: int
    sample: int | None = None
    step: int | None = None
    neuron: int | None = None
    got: float | None = None
    expected: float | None = None

    def to_mapping(self) -> dict[str, object]:
        """For JSON."""
        first = None
        if self.differing:
            first = {key: getattr(self, key) for key in _FIRST}
        return {
            "samples": self.samples,
            "values": self.values,
            "differing": self.differing,
            "first_difference": first,
        }

    def line(self) -> str:
        """For people."""
        of = f"of {self.values:,} output values in {self.samples} samples"
        if not self.differing:
            return f"0 {of} differ"
        return (
            f"{self.differing:,} {of} differ; first in sample {self.sample}, step {self.step}, "
            f"neuron {self.neuron}: got {self.got:g}, expected {self.expected:g}"
        )


_FIRST = ("sample", "step", "neuron", "got", "expected")


def read_expectation(path: Path, plan: Plan) -> Expectation:
    """Reads an `.npz` file with `input` and `expected`, each [T, …] or [T, B, …].

    Raises:
        DataError: it is absent or damaged, lacks one of them, or they do not fit the network.
        UsageError: input that is not finite.
    """
    given, outputs = read_arrays(path, ("input", "expected"), limit_or_default(None))
    steps = given.shape[0] if given.ndim else 0
    batch = given.shape[1] if given.ndim > 1 else 1
    inputs, classes = math.prod(plan.input_shape), math.prod(plan.output_shape)
    if given.size == steps * inputs:
        batch = 1  # [T, *input_shape], flat or with ones
    if not steps or not batch or given.size != steps * batch * inputs:
        shape = ", ".join(map(str, plan.input_shape))
        raise DataError(
            "input does not fit the model",
            got=given.shape,
            expected=f"[T, {shape}] or [T, B, {shape}]",
            where=path,
        )
    if outputs.size != steps * batch * classes or outputs.shape[0] != steps:
        raise DataError(
            "expected output does not fit the model and its input",
            got=outputs.shape,
            expected=f"[{steps}, {f'{batch}, ' if batch > 1 else ''}{classes}]",
            where=path,
        )
    with np.errstate(over="ignore"):
        wanted = outputs.astype(np.float32).reshape(steps, batch, classes)
    if not np.isfinite(wanted).all():  # the tolerance goes by the largest
        raise DataError("expected output is not finite", expected="finite numbers", where=path)
    frames = checked(given, given.shape, path).reshape(steps, batch, *plan.input_shape)
    last = plan.output_neuron
    is_exact = last is not None and last.kind != "integrating"
    return Expectation(frames, wanted, is_exact, str(path))


def replay(plan: Plan, expectation: Expectation) -> Replay:
    """Runs the samples in the engine, each from rest.

    Raises:
        ModelError: the model takes too much memory.
    """
    engine = Engine(plan)
    samples = expectation.outputs.shape[1]
    ours = np.zeros_like(expectation.outputs)
    for sample in range(samples):
        ours[:, sample] = engine.run(np.ascontiguousarray(expectation.frames[:, sample]))
    theirs = expectation.outputs
    largest = float(np.abs(theirs).max(initial=0))
    tolerance = 0.0 if expectation.are_spikes else _TOLERANCE * max(1.0, largest)
    with np.errstate(invalid="ignore"):
        apart = ~(np.abs(ours - theirs) <= tolerance)
    if not apart.any():
        return Replay(ours.size, 0, samples)
    step, sample, neuron = (int(i) for i in np.argwhere(apart)[0])
    return Replay(
        ours.size,
        int(apart.sum()),
        samples,
        sample,
        step,
        neuron,
        float(ours[step, sample, neuron]),
        float(theirs[step, sample, neuron]),
    )
