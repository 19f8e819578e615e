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

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mpsl_runtime.errors import RunError, UsageError
from mpsl_train.experiments.journal import Journal, Outcome
from mpsl_train.recipe import Recipe

__all__ = ["DEATHS", "Crew", "sweep"]

# Workers that may die of something else than their run before the sweep gives up.
DEATHS = 10
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
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    journal = Journal(folder)
    journal.enqueue(recipes)
    crew: Crew = _Processes(folder, data, device)
    if ray is not None:
        from mpsl_train.experiments.cluster import RayCrew

        crew = RayCrew(ray, journal, data, device)
    wanted = workers or crew.places()
    told = {name for name, outcome in journal.outcomes(list(recipes)).items() if outcome.report}
    if told:
        say(f"{len(told)} of {len(recipes)} runs are there already")
    started, before = time.monotonic(), len(told)
    try:
        while True:
            outcomes = journal.outcomes(list(recipes))
            for name, outcome in outcomes.items():
                if name not in told and outcome.state in ("finished", "failed"):
                    told.add(name)
                    rate = (time.monotonic() - started) / (len(told) - before)
                    say(_line(outcome, len(told), len(recipes), rate))
            if len(told) == len(recipes):
                return outcomes
            crew.keep(min(wanted, journal.open_runs()))
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --out {folder} goes on"
        ) from None
    finally:
        crew.dismiss()


def _line(outcome: Outcome, done: int, count: int, seconds_each: float) -> str:
    left = int(seconds_each * (count - done))
    end = f"[{done}/{count}, left {left // 60}:{left % 60:02d}]"
    if outcome.report is None:
        return f"{outcome.name}: failed: {outcome.error} {end}"
    return f"{outcome.name}: {outcome.report['accuracy']:.2%} {end}"


class Crew(Protocol):
    """Those who train for a sweep."""

    def places(self) -> int:
        """How many can train at once."""

    def keep(self, count: int) -> None:
        """Starts more until `count` are at work.

        Raises:
            RunError: they die one after another.
        """

    def dismiss(self) -> None:
        """Stops those that are still at work; what they were training can be resumed."""


class _Processes:
    """The worker processes that this command has started on this host."""

    def __init__(self, folder: Path, data: Path | None, device: str) -> None:
        self.folder = folder
        self.command = [sys.executable, "-m", "mpsl_train.experiments.worker", str(folder), device]
        self.command += [] if data is None else [str(data)]
        self.environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        self.processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.started = self.deaths = 0

    def places(self) -> int:
        return len(os.sched_getaffinity(0))

    def keep(self, count: int) -> None:
        alive = []
        for process, log in self.processes:
            code = process.poll()
            if code is None:
                alive.append((process, log))
            elif code:
                self.deaths += 1
                if self.deaths > DEATHS:
                    raise RunError("worker processes keep dying", got=f"exit {code}", where=log)
        self.processes = alive
        while len(self.processes) < count:
            log = self.folder / "logs" / f"worker-{os.getpid()}-{self.started}.log"
            self.started += 1
            with log.open("ab") as file:
                process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    env=self.environment,
                )  # fmt: skip
            self.processes.append((process, log))

    def dismiss(self) -> None:
        for process, _ in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process, _ in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
