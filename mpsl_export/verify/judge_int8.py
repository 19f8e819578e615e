"""Holds an int8 file against the record of training, if training was on its grid, else against the
numpy reference: nothing may differ.

Where training did not use the grid, its record does not say which spikes are right; but the sums of
such a model never round (`mpsl_runtime.model.grid`), so every program must give the same ones.
Required:

- the file holds, bit for bit, what the run's banks become on the grids that it names, which are
  those of training where training had some;
- those grids keep every sum below 2^24 quanta;
- torch, ONNX Runtime, the engine and the reference agree on every output spike and score, and
  with the record where training was on the grid;
- each reaches the trained accuracy − 0.5 points.

A program that reads the file in units of its own (norse) is held to the rule of float models: few
spikes may differ, and each sample that does is explained by its ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backend_run import BackendRun
from mpsl_export.verify.backends import Backend, LayerActivity
from mpsl_export.verify.backends.runtime import RuntimeProgram
from mpsl_export.verify.int8_anchor import Anchor
from mpsl_export.verify.judge import SPIKE_TOLERANCE
from mpsl_export.verify.samples import Samples
from mpsl_export.verify.ties import Difference, Referee
from mpsl_export.verify.verdict import Verdict
from mpsl_export.write.alteration import Alteration
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model import readout
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.plan import Plan

__all__ = ["ACCURACY_LOSS", "Int8Judge"]

ACCURACY_LOSS = 0.005


@dataclass(frozen=True, eq=False)
class _Right:
    """What every program must give: spikes [N, T, K], scores [N, K], and whose they are."""

    spikes: NDArray[np.uint8]
    scores: NDArray[np.float32]
    whose: str


class Int8Judge:
    """Words the verdict on int8 files.

    Args:
        samples: that the programs ran on. trained_int8: the record was made on the grid.
    """

    def __init__(self, samples: Samples, *, trained_int8: bool) -> None:
        self._samples = samples
        self._record = samples.evaluation
        self._rule = samples.model.readout
        self._trained_int8 = trained_int8

    def verdict(
        self,
        file: Path,
        anchor: Anchor,
        altered: Sequence[Alteration],
        runs: Sequence[BackendRun],
    ) -> Verdict:
        """The verdict on one file.

        Args:
            file: its path. anchor: of the file, its reference has run.
            altered: what the exporter of the file would not have written. runs: of the file.
        """
        trained = float((self._record.predictions == self._record.labels).mean())
        verdict = Verdict(
            str(file), "trained" if self._trained_int8 else "reference", {"trained": trained}
        )
        verdict.fail_by_content(altered, "the int8 form of the banks")
        reference = anchor.reference
        if anchor.expected is None or reference is None:
            verdict.fail(anchor.fault)
            return verdict
        if reference.fault:
            verdict.fail(f"{reference.name}: {reference.fault}")
            return verdict
        try:
            layer_grids(anchor.expected.plan)
        except ModelError as error:
            verdict.fail(str(error))
        right = _Right(reference.spikes, reference.scores(self._rule), "the reference")
        if self._trained_int8:
            right = _Right(self._record.spikes, self._record.scores, "the record of training")
        own = [run for run in runs if run.name == reference.name]
        for run in runs if own else (reference, *runs):
            if run.fault:
                verdict.fail(f"{run.name}: {run.fault}")
            else:
                self._judge(run, right, anchor.expected.plan, verdict)
        if altered and verdict.first_difference is None:
            self._show_effect(runs, anchor.expected.plan, verdict)
            verdict.place_by_content(altered)
        return verdict

    def _judge(self, run: BackendRun, right: _Right, plan: Plan, verdict: Verdict) -> None:
        """Adds what one program made of the file."""
        name, n, labels = run.name, len(self._samples), self._record.labels
        spikes, scores = run.spikes, run.scores(self._rule)
        predictions, expected = readout.label(scores), readout.label(right.scores)
        unequal = (spikes != right.spikes).any(axis=(1, 2))
        differing = unequal | (scores != right.scores).any(axis=1)
        mismatch = float((spikes != right.spikes).mean())
        accuracy = float((predictions == labels).mean())
        verdict.devices[name] = run.backend.device
        verdict.accuracy[name] = accuracy
        verdict.argmax_agreement[name] = float((predictions == expected).mean())
        verdict.spike_mismatch[name] = mismatch
        if accuracy < verdict.accuracy["trained"] - ACCURACY_LOSS - 1e-9:
            verdict.fail(
                f"{name}: accuracy {accuracy:.2%} is more than 0.5 points below the trained "
                f"{verdict.accuracy['trained']:.2%}"
            )
        if run.own_units:
            changed = int((predictions != expected)[unequal].sum())
            if mismatch <= SPIKE_TOLERANCE and changed <= max(1, n / 1000):
                self._explain(run, np.flatnonzero(unequal), spikes, plan, verdict)
                return
        if not differing.any():
            return
        position = int(np.flatnonzero(differing)[0])
        found = self._first_apart(position, plan, run.backend)
        verdict.fail(
            f"{name}: {mismatch:.2e} of the output spikes, and the scores of {differing.sum()} of "
            f"{n} samples, differ from {right.whose}; none may",
            found,
        )
        if verdict.first_difference is None:
            # A difference that only a batch shows has no place in a single run.
            sample = self._record.ids[position]
            verdict.first_difference = {"sample": sample, "backend": name}

    def _explain(
        self,
        run: BackendRun,
        positions: NDArray[np.int64],
        spikes: NDArray[np.uint8],
        plan: Plan,
        verdict: Verdict,
    ) -> None:
        referee = Referee(plan)
        for position in (int(p) for p in positions):
            explanation = referee.explain_program(
                self._record.ids[position],
                self._samples.one(position),
                run.backend,
                spikes[position],
            )
            if explanation.wrong is not None:
                verdict.fail(explanation.wrong.sentence(), explanation.wrong)
                return
            verdict.explained += 1
            verdict.ties += explanation.ties

    def _first_apart(self, position: int, plan: Plan, other: Backend) -> Difference | None:
        """Where a program parts from the reference, bit for bit, in spikes or membrane potentials,
        by step and then by layer; None where it does not.

        Args:
            plan: the right network.
        """
        frames, sample = self._samples.one(position), self._record.ids[position]
        right = RuntimeProgram(plan, "reference").record(frames)
        pairs = list(zip(right, other.record(frames), strict=True))
        for step in range(len(frames)):
            for index, (one, two) in enumerate(pairs):
                apart = one.spikes[step] != two.spikes[step]
                if not apart.any() and one.membrane is not None and two.membrane is not None:
                    apart = one.membrane[step] != two.membrane[step]
                if not apart.any():
                    continue
                neuron = int(np.flatnonzero(apart)[0])
                return Difference(
                    sample=sample,
                    backend=other.name,
                    layer=one.layer,
                    step=step,
                    neuron=neuron,
                    membrane=_potential(one, step, neuron),
                    threshold=float(plan.spiking[index].threshold.reshape(-1)[neuron]),
                    tie=False,
                    seen=None if two.membrane is None else _potential(two, step, neuron),
                )
        return None

    def _show_effect(self, runs: Sequence[BackendRun], plan: Plan, verdict: Verdict) -> None:
        """What an altered file does in a hidden layer, in the first sample that shows it."""
        for run in [run for run in runs if not run.fault][:1]:
            for position in range(len(self._samples)):
                found = self._first_apart(position, plan, run.backend)
                if found is not None:
                    verdict.fail(found.sentence(), found)
                    return


def _potential(activity: LayerActivity, step: int, neuron: int) -> float:
    """U, where the program shows it."""
    return math.nan if activity.membrane is None else float(activity.membrane[step, neuron])
