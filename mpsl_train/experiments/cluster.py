"""The workers of a sweep as tasks of a Ray cluster (extra `ray`).

Ray only finds places for them. The journal says which run belongs to which worker, so a sweep that
was begun on one host continues in a cluster, and the other way round.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import MissingExtraError, MpslError, RunError, UsageError
from mpsl_train.experiments.crew import Deaths
from mpsl_train.experiments.journal import Journal
from mpsl_train.experiments.worker import work
from mpsl_train.recipe.plugins import allowed_sources

__all__ = ["RayCrew"]


class RayCrew:
    """Ray tasks, each of which trains one run after another on whatever host has a place.

    Args:
        address: `auto` and `HOST:PORT` for a cluster that runs; `local`: this host, for the sweep.
        journal: of the sweep. data: as `sweep` takes it. Each host must see both at these paths.
        device: as `train` takes it; each task has a GPU of its own where it may use one.

    Raises:
        MissingExtraError: Ray is not installed. UsageError: there is no such cluster.
    """

    def __init__(self, address: str, journal: Journal, data: Path | None, device: str) -> None:
        # Read on import: no report of what runs here; a task that asks for no GPU still sees them.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtraError("sweeps over a cluster", "mpsl[ray]") from error
        self.ray = ray
        try:
            _reach(address)
            ray.init(address=address, include_dashboard=False, log_to_driver=False,
                     logging_level="ERROR")  # fmt: skip
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"no Ray cluster at {address!r}", got=str(error).split(". ")[0].splitlines()[0],
                expected="local, auto or HOST:PORT of a cluster that runs",
            ) from error  # fmt: skip
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0)) if device != "cpu" else 0
        if device == "cuda" and not gpus:
            ray.shutdown()
            raise UsageError("cluster has no GPU", got=address, expected="--device cpu or auto")
        self._places = gpus or int(has.get("CPU", 1))
        folder = journal.folder.resolve()
        self._task = ray.remote(
            num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0, max_calls=1,
        )(_take_part)  # fmt: skip
        self._arguments = (
            str(folder), _mark(folder), "cuda" if gpus else "cpu",
            None if data is None else str(data.resolve()), allowed_sources(),
        )  # fmt: skip
        self._running: list[Any] = []
        self._deaths = Deaths("tasks of the cluster")

    def places(self) -> int:
        """How many tasks the cluster has cores, or GPUs, for."""
        return self._places

    def keep(self, count: int) -> None:
        """Hands in tasks until `count` are at work or wait for a place.

        Raises:
            RunError: a host cannot take part, or tasks die one after another.
        """
        ended, self._running = self.ray.wait(
            self._running, num_returns=len(self._running), timeout=0
        ) if self._running else ([], [])  # fmt: skip
        for task in ended:
            try:
                refusal = self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                refusal = None
                self._deaths.add(str(error).strip().splitlines()[-1])
            if refusal:
                raise RunError("host of the cluster cannot take part", got=refusal)
        while len(self._running) < count:
            self._running.append(self._task.remote(*self._arguments))

    def dismiss(self) -> None:
        """Stops the tasks and leaves the cluster; what they were training can be resumed."""
        for task in self._running:
            self.ray.cancel(task, force=True)
        self.ray.shutdown()


def _reach(address: str) -> None:
    """Raises OSError where nothing listens: Ray would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def _mark(folder: Path) -> str:
    """The journal's first line, which names its writer: no two journals have the same."""
    with (folder / "journal.log").open(encoding="utf-8") as file:
        return file.readline()


def _take_part(
    folder: str, mark: str, device: str, data: str | None, plugins: Sequence[str]
) -> str:
    """A task: trains until nothing waits. Returns why this host cannot, or nothing."""
    place, host = Path(folder), socket.gethostname()
    try:
        seen = _mark(place)
    except OSError:
        seen = ""
    if seen != mark:
        return f"{host} does not see the sweep's {place / 'journal.log'}"
    with (place / "logs" / f"ray-{host}-{os.getpid()}.log").open("a") as log, redirect_stderr(log):
        try:
            work(place, device=device, data=None if data is None else Path(data), plugins=plugins)
        except MpslError as error:
            return f"{host}: {error}"
    return ""
