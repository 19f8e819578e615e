"""Holds what came out of a file against the record of training, and words the verdict.

For every file and every program that reads it: at most 1e-4 of the output spikes may differ from
the record (or those of one sample, where a set is so small that one is more), each sample that
differs must be explained by its ties (`ties`), and the prediction may differ only there, or where
ties in hidden layers moved the potentials that are its scores, at most max(1, N/1000) times. A file
must also hold, bit for bit, what the exporter writes for the run's banks: a wrong weight that no
test sample shows is still wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_export.checkpoint import Checkpoint
from mpsl_export.verify.backend_run import BackendRun
from mpsl_export.verify.backends import Backend, LayerActivity
from mpsl_export.verify.samples import Samples
from mpsl_export.verify.tie_search import score_tolerance
from mpsl_export.verify.ties import Difference, Explanation, Referee
from mpsl_export.verify.verdict import Verdict
from mpsl_export.write.alteration import Alteration
from mpsl_runtime.model import readout
from mpsl_runtime.model.plan import Plan

__all__ = ["SPIKE_TOLERANCE", "Judge"]

SPIKE_TOLERANCE = 1e-4


class Judge:
    """Holds outputs against the record.

    Args:
        plan: what the banks of `checkpoint` merge to. samples: that the programs ran on.
    """

    def __init__(self, checkpoint: Checkpoint, plan: Plan, samples: Samples) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._samples = samples
        self._record = samples.evaluation
        self._referee = Referee(plan)
        self._banks: Backend | None = None

    def verdict(
        self, file: Path, altered: Sequence[Alteration], runs: Sequence[BackendRun]
    ) -> Verdict:
        """The verdict on one file.

        Args:
            file: its path. altered: what its exporter would not have written.
            runs: of the file; none where it was not run.
        """
        trained = float((self._record.predictions == self._record.labels).mean())
        verdict = Verdict(str(file), "trained", {"trained": trained})
        verdict.fail_by_content(altered, "the merge of the banks")
        for run in runs:
            if run.fault:
                verdict.fail(f"{run.name}: {run.fault}")
            else:
                self._judge(run, verdict)
        if not verdict.passed and verdict.first_difference is None:
            hidden = self._first_hidden([run for run in runs if not run.fault][:1])
            if hidden is not None:
                verdict.fail(hidden.sentence(), hidden)
            verdict.place_by_content(altered)
        return verdict

    def _judge(self, run: BackendRun, verdict: Verdict) -> None:
        """Adds what one program made of the file."""
        record, n, name = self._record, len(self._samples), run.name
        spikes, scores = run.spikes, run.scores(self._checkpoint.model.readout)
        predictions = readout.label(scores)
        differing = (spikes != record.spikes).any(axis=(1, 2))
        mismatch = float((spikes != record.spikes).mean())
        changed = predictions != record.predictions
        verdict.devices[name] = run.backend.device
        verdict.accuracy[name] = float((predictions == record.labels).mean())
        verdict.argmax_agreement[name] = float(1 - changed.mean())
        verdict.spike_mismatch[name] = mismatch
        # In a small set one sample is more than the tolerance; it may differ if its prediction may.
        if mismatch > SPIKE_TOLERANCE and differing.sum() > 1:
            verdict.fail(
                f"{name}: {mismatch:.2e} of the output spikes differ, at most "
                f"{SPIKE_TOLERANCE:.0e} may"
            )
        if changed.sum() > max(1, n / 1000):
            verdict.fail(f"{name}: {changed.sum()} of {n} predictions differ")
        for position in (int(p) for p in np.flatnonzero(changed & ~differing)):
            if not self._score_tie(position, int(predictions[position])):
                self._explain_scores(name, position, spikes[position], scores[position], verdict)
        self._explain(run, np.flatnonzero(differing), spikes, verdict)

    def _score_tie(self, position: int, other: int) -> bool:
        """Whether the record's scores of two classes are the same but for rounding."""
        scores = self._record.scores[position]
        label = int(self._record.predictions[position])
        apart = abs(float(scores[label] - scores[other]))
        return apart <= float(score_tolerance(scores).max())

    def _explain_scores(
        self,
        name: str,
        position: int,
        spikes: NDArray[np.uint8],
        scores: NDArray[np.float32],
        verdict: Verdict,
    ) -> None:
        """A label that differs though no output spike does: where potentials are the scores, ties
        in hidden layers move them. Flipped in the reference, they must give the scores of training
        and those of the program."""
        frames, sample = self._samples.one(position), self._record.ids[position]
        ties: list[Difference] = []
        if self._checkpoint.model.readout == "membrane":
            explain, recorded = self._referee.explain_output, self._record.scores[position]
            trained = explain(sample, frames, "trained", spikes, recorded)
            tested = explain(sample, frames, name, spikes, scores)
            if trained.wrong is None and tested.wrong is None:
                ties = [*trained.ties, *tested.ties]
        if not ties:
            verdict.fail(f"{name}: prediction of {sample} differs without a differing spike")
            return
        verdict.explained += 1
        verdict.ties += ties

    def _explain(
        self,
        run: BackendRun,
        positions: NDArray[np.int64],
        spikes: NDArray[np.uint8],
        verdict: Verdict,
    ) -> None:
        """Explains the samples that differ, up to the first that rounding does not explain.

        Where training and program differ, one of them differs from the reference, or both do.
        """
        for position in (int(p) for p in positions):
            frames, sample = self._samples.one(position), self._record.ids[position]
            trained = self._explain_trained(position, frames)
            tested = self._referee.explain_program(sample, frames, run.backend, spikes[position])
            for explanation in (trained, tested):
                if explanation.wrong is not None:
                    verdict.fail(explanation.wrong.sentence(), explanation.wrong)
                    return
            verdict.explained += 1
            verdict.ties += [*trained.ties, *tested.ties]

    def _explain_trained(self, position: int, frames: NDArray[np.float32]) -> Explanation:
        """The record of a sample: by its probe, or by the banks run again on this machine, or,
        where these do not give the recorded output, by the output alone."""
        sample, recorded = self._record.ids[position], self._record.spikes[position]
        probe = self._record.probes.get(sample)
        if probe is not None:
            activity = [
                LayerActivity(neuron.name, spikes[:, : neuron.threshold.size])
                for neuron, spikes in zip(self._plan.spiking, probe, strict=True)
            ]
            return self._referee.explain_activity(sample, frames, "trained", activity)
        if self._banks is None:
            # Only when something differs: it needs torch.
            from mpsl_export.verify.backends.banks import TrainedBanks

            names = [neuron.name for neuron in self._plan.spiking]
            self._banks = TrainedBanks(self._checkpoint, names)
        activity = self._banks.record(frames)
        if np.array_equal(activity[-1].spikes, recorded.astype(np.bool_)):
            return self._referee.explain_activity(sample, frames, "trained", activity)
        return self._referee.explain_output(sample, frames, "trained", recorded)

    def _first_hidden(self, runs: Sequence[BackendRun]) -> Difference | None:
        """The first sample in which a layer differs, for a file whose outputs do not."""
        for run in runs:
            for position in range(len(self._samples)):
                found = self._referee.hidden(
                    self._record.ids[position], self._samples.one(position), run.backend
                )
                if found is not None:
                    return found
        return None
