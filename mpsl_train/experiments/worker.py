"""A process of a sweep: `python -m mpsl_train.experiments.worker FOLDER DEVICE [DATA]`.

Trains one run after another until none waits. Also the way to add a machine that sees the folder.
`--plugins FILE` names a plug-in that its recipes need.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import MpslError
from mpsl_runtime.run_folder import RunFolder
from mpsl_runtime.terminal import show
from mpsl_train.experiments.journal import Claim, Journal
from mpsl_train.recipe import parse
from mpsl_train.recipe.plugins import allow

__all__ = ["work"]

_POLL_S = 1.0


def work(
    folder: Path,
    *,
    device: str = "auto",
    data: Path | None = None,
    plugins: Sequence[str] = (),
) -> int:
    """Trains what waits; returns how many runs.

    Args:
        plugins: that may run. The rest as `sweep` takes it.
    """
    for plugin in plugins:
        allow(plugin)
    journal, parent, done = Journal(folder), os.getppid(), 0
    # Until the command that started this process has gone, or every run is finished: a run that is
    # at work elsewhere may yet be killed there.
    while os.getppid() == parent and journal.open_runs():
        with journal.claim() as claim:
            if claim is None:
                time.sleep(_POLL_S)
                continue
            show(f"== {claim.name}", err=True)
            try:
                journal.finish(claim, _train(claim, device, data))
            except MpslError as error:
                journal.fail(claim, str(error))
            done += 1
    return done


def _train(claim: Claim, device: str, data: Path | None) -> dict[str, Any]:
    from mpsl_train.training.report import read_report
    from mpsl_train.training.training import train

    run, recipe = RunFolder(claim.run), parse(claim.recipe, claim.run)
    if run.is_finished and run.is_begun and run.recipe.read_bytes() == claim.recipe.encode():
        return read_report(run.report)  # killed between the last file and the journal
    resume = run.is_begun and not run.is_finished
    return train(recipe, claim.run, data=data, device=device, resume=resume).report


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--plugins", action="append", default=[])
    given = parser.parse_args()
    work(given.folder, device=given.device, data=given.data, plugins=given.plugins)


if __name__ == "__main__":
    _main()
