"""Finds the probe of a model: an input that makes every population fire, and has no tie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.probe import MOST_OUTPUTS, MOST_VALUES, Probe, digest_of, is_spiking
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.rounding import Rounding

__all__ = ["answered", "find_probe"]

_STEPS = 8
# Part of the input in the middle, active of 256, quanta.
_WINDOWS = (3 / 8, 1 / 4, 1 / 2, 1.0, 1 / 8)
_LEVELS = ((26, 1), (64, 1), (128, 2), (256, 2), (200, 4), (256, 8), (256, 30), (256, 180))
_SEEDS = 2
# Inputs that are looked at for ties, which takes longer.
_MOST_CHECKED = 24


def find_probe(plan: Plan) -> Probe | None:
    """A probe: of the inputs that are tried the first in which every population fires before any
    tie; else the one in which most do. None: whatever is tried has a tie in its first step.

    The same plan gives the same probe on every machine, but for what is no tie by a hair's breadth:
    who compares files takes the input from the file (`answered`).
    """
    engine, rounding = Engine(plan), Rounding(plan)
    best: tuple[int, int, Probe] | None = None
    for steps, probe in _ranked(plan, engine):
        frames = probe.frames(plan)
        whole = rounding.steps_without_tie(frames)
        kept = whole if whole >= steps else min(whole, len(frames))
        if not kept:
            continue
        found = replace(probe, probe_steps=kept)
        spikes = [layer[:kept] for layer in engine.record(frames)]
        count = sum(bool(layer.any()) for layer in spikes)
        if best is None or (count, kept) > best[:2]:
            best = count, kept, found
        if count == len(spikes):
            break
    return None if best is None else answered(plan, best[2])


def answered(plan: Plan, probe: Probe) -> Probe:
    """The probe with what this network gives on its input."""
    reference = Reference(plan)
    frames = probe.frames(plan)
    spikes = reference.record(frames)
    outputs = ""
    if not is_spiking(plan) and math.prod(plan.output_shape) <= MOST_OUTPUTS:
        outputs = ",".join(f"{value:.6g}" for value in reference.membrane.tolist())
    return replace(probe, probe_sha256=digest_of(spikes), probe_outputs=outputs)


def _ranked(plan: Plan, engine: Engine) -> Iterator[tuple[int, Probe]]:
    """Inputs that are worth a look, and the step by which every population has fired: first those
    in which all fire, then those in which most do; of equals the ones with fewest spikes."""
    found: list[tuple[int, int, int, int, Probe]] = []
    for order, probe in enumerate(_tried(plan)):
        spikes = engine.record(probe.frames(plan))
        silent = sum(not layer.any() for layer in spikes)
        begun = [int(_active(layer).argmax()) for layer in spikes if layer.any()]
        steps = max(begun, default=0) + 1
        total = sum(int(layer[:steps].sum()) for layer in spikes)
        found.append((silent, total, order, steps, probe))
    for _, _, _, steps, probe in sorted(found, key=lambda each: each[:3])[:_MOST_CHECKED]:
        yield steps, probe


def _active(layer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(layer.reshape(len(layer), -1).any(axis=1), np.bool_)


def _tried(plan: Plan) -> Iterator[Probe]:
    metadata, size = plan.metadata, math.prod(plan.input_shape)
    steps = max(1, min(_STEPS, MOST_VALUES // size, metadata.steps if metadata else _STEPS))
    bound = (metadata.input_max if metadata else 0) or 65_536
    if metadata is not None and metadata.coding == "binary":
        bound = 1
    side = plan.input_shape[-1] if len(plan.input_shape) > 2 else size
    seen: set[Probe] = set()
    for window in _WINDOWS:
        for density, amplitude in _LEVELS:
            for seed in range(1, _SEEDS + 1):
                width = max(1, round(side * window))
                probe = Probe(seed, steps, density, min(amplitude, bound), width)
                if probe not in seen:
                    seen.add(probe)
                    yield probe
