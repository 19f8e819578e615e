"""Whether the record of a run is what its own banks do, run again on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mpsl_export.checkpoint import Checkpoint
from mpsl_export.int8.quantize import quantised_plan
from mpsl_export.verify.backend_run import BackendRun
from mpsl_export.verify.backends import Backend
from mpsl_export.verify.judge import Judge
from mpsl_export.verify.samples import Samples
from mpsl_export.verify.verdict import Verdict
from mpsl_export.write.format import Network
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.plan import Plan

__all__ = ["check_own_record"]

BATCH = 32


def check_own_record(
    checkpoint: Checkpoint,
    samples: Samples,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Runs the banks on samples of the record, by the rules for a float model (`judge`).

    Args:
        samples: that passed `check_record`.

    Raises:
        RunError: the record is not what the banks do; the first difference is named.
    """
    plan = Network.of(graph_of(checkpoint), str(checkpoint.path)).plan
    run = BackendRun(_program(checkpoint, plan))
    for start in range(0, len(samples), BATCH):
        stop = min(start + BATCH, len(samples))
        run.take(samples.batch(range(start, stop)))
        if progress is not None:
            progress(stop, len(samples))
    where = Path(samples.evaluation.path)
    verdict: Verdict = Judge(checkpoint, plan, samples).verdict(where, [], [run])
    if not verdict.passed:
        raise RunError(
            "record is not what the banks of its run do", got=verdict.reasons[-1], where=where
        )


def _program(checkpoint: Checkpoint, plan: Plan) -> Backend:
    """The network as training evaluated it."""
    if checkpoint.scales is not None:
        from mpsl_export.verify.backends.torch_plan import TorchPlan

        # The bound is a claim about other inputs than these.
        return TorchPlan(quantised_plan(plan, checkpoint.scales, 1))
    from mpsl_export.verify.backends.banks import TrainedBanks

    return TrainedBanks(checkpoint, [neuron.name for neuron in plan.spiking])
