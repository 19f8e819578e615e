"""A list of named training runs, executed by several processes through one Optuna journal.

    outcomes = sweep(Path("runs/ablation"), {"stbp-s0": recipe, …}, workers=2)

The journal says which runs wait, run, are finished or have failed; each is one trial whose user
attributes are its name and its complete recipe. The same command again trains only what is absent.
Processes on other machines take part when they see the same folder: the same command there, or a
Ray cluster that starts them (`cluster.py`). Whoever trains a run holds a lock on `locks/<name>`,
which the kernel drops with the process: so a run that was killed is known, and goes on from its
last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mpsl_runtime.errors import UsageError
from mpsl_runtime.terminal import show
from mpsl_train.experiments.crew import Crew, HostCrew
from mpsl_train.experiments.journal import Journal, Outcome
from mpsl_train.recipe import Recipe

__all__ = ["sweep"]

_POLL_S = 0.5


def sweep(
    folder: Path,
    recipes: Mapping[str, Recipe],
    *,
    data: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    ray: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Outcome]:
    """Trains every run that is not finished yet, and returns when all are.

    Args:
        folder: of the sweep: `journal.log`, `runs/<name>`, `logs`, `locks`.
        recipes: by the name of the run, which is the name of its folder too.
        data: a data set's folder or the parent of several.
        workers: processes; 0: one for each core, on Ray one for each place that it has. Each
            computes with one thread unless `OMP_NUM_THREADS` says otherwise, so that figures do not
            depend on `workers`.
        ray: address of a Ray cluster whose hosts train, all seeing `folder` and `data` at the same
            place; None: this host alone.
        say: gets a line for each run that ends; default: stderr.

    Returns:
        What became of each run, in the order of `recipes`; a run that failed is there too.

    Raises:
        MpslError: the folder cannot be used, processes die one after another, or there is no such
            cluster.
        KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    if workers < 0:
        raise UsageError("number of processes is negative", got=workers, expected="≥ 0")
    say = say or (lambda line: show(line, err=True))
    journal = Journal(folder)
    journal.enqueue(recipes)
    crew = _crew(journal, data, device, ray)
    wanted = workers or crew.places()
    try:
        return _watch(journal, list(recipes), crew, wanted, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --out {folder} goes on"
        ) from None
    finally:
        crew.dismiss()


def _crew(journal: Journal, data: Path | None, device: str, ray: str | None) -> Crew:
    if ray is None:
        return HostCrew(journal.folder, data, device)
    from mpsl_train.experiments.cluster import RayCrew

    return RayCrew(ray, journal, data, device)


def _watch(
    journal: Journal, names: list[str], crew: Crew, wanted: int, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Keeps the crew at work until every run has ended."""
    told = {name for name, outcome in journal.outcomes(names).items() if outcome.report}
    if told:
        say(f"{len(told)} of {len(names)} runs are there already")
    started, before = time.monotonic(), len(told)
    while True:
        outcomes = journal.outcomes(names)
        for name, outcome in outcomes.items():
            if name not in told and outcome.state in ("finished", "failed"):
                told.add(name)
                rate = (time.monotonic() - started) / (len(told) - before)
                say(_line(outcome, len(told), len(names), rate))
        if len(told) == len(names):
            return outcomes
        crew.keep(min(wanted, journal.open_runs()))
        time.sleep(_POLL_S)


def _line(outcome: Outcome, done: int, count: int, seconds_each: float) -> str:
    left = int(seconds_each * (count - done))
    end = f"[{done}/{count}, left {left // 60}:{left % 60:02d}]"
    if outcome.report is None:
        return f"{outcome.name}: failed: {outcome.error} {end}"
    return f"{outcome.name}: {outcome.report['accuracy']:.2%} {end}"
