"""Those who train for a sweep: worker processes of this host; a crew that only dies is given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mpsl_runtime.errors import RunError
from mpsl_train.recipe.plugins import allowed_sources

__all__ = ["Crew", "Deaths", "HostCrew"]

# Workers that may die of something else than their run before the sweep gives up.
_MOST_DEATHS = 10


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


class Deaths:
    """Counts workers that died of something else than their run.

    Args:
        who: for the message.
    """

    def __init__(self, who: str) -> None:
        self._who, self._count = who, 0

    def add(self, reason: str, where: Path | None = None) -> None:
        """One more has died.

        Raises:
            RunError: it was one too many.
        """
        self._count += 1
        if self._count > _MOST_DEATHS:
            raise RunError(f"{self._who} keep dying", got=reason, where=where)


class HostCrew:
    """Worker processes that this command starts on this host.

    Args:
        folder: of the sweep. data, device: as `sweep` takes them.
    """

    def __init__(self, folder: Path, data: Path | None, device: str) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "mpsl_train.experiments.worker", str(folder), device]
        self._command += [] if data is None else [str(data)]
        for source in allowed_sources():
            self._command += ["--plugins", source]
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        self._environment = {**os.environ, "OMP_NUM_THREADS": threads}
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._started, self._deaths = 0, Deaths("worker processes")

    def places(self) -> int:
        """A worker for each core."""
        return len(os.sched_getaffinity(0))

    def keep(self, count: int) -> None:
        """See `Crew.keep`."""
        alive = []
        for process, log in self._processes:
            code = process.poll()
            if code is None:
                alive.append((process, log))
            elif code:
                self._deaths.add(f"exit {code}", log)
        self._processes = alive
        while len(self._processes) < count:
            log = self._folder / "logs" / f"worker-{os.getpid()}-{self._started}.log"
            self._started += 1
            with log.open("ab") as file:
                process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    env=self._environment,
                )  # fmt: skip
            self._processes.append((process, log))

    def dismiss(self) -> None:
        """See `Crew.dismiss`."""
        for process, _ in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process, _ in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
