"""Finds a data set, and gets it where it is absent and can be got."""

from __future__ import annotations

import os
from pathlib import Path

from mpsl_runtime.data import datasets
from mpsl_train.data import download
from mpsl_train.data.sources import Simulation, source_of

__all__ = ["default_root", "locate", "make"]


def default_root(name: str, data: Path | None) -> Path:
    """Where a data set goes that is not there yet: `--data`, `$MPSL_DATA/<name>`, or
    `~/.cache/mpsl/<name>`. A folder that holds other things gets a folder of that name."""
    if data is not None:
        occupied = data.is_dir() and any(data.iterdir())
        return data / name if occupied else data
    named = os.environ.get("MPSL_DATA")
    return (Path(named) if named else Path.home() / ".cache" / "mpsl") / name


def make(name: str, root: Path, *, seed: int = 0) -> None:
    """Makes or downloads a data set that has a source.

    Args:
        seed: of a simulation; a download has none.

    Raises:
        DataError: it cannot be got, or `root` holds something else. OutputError: `root` cannot be
            written. UsageError: it has no source.
    """
    source = source_of(name)
    if isinstance(source, Simulation):
        source.make(root, seed=seed)
    else:
        download.fetch(name, root)


def locate(name: str, data: Path | None) -> Path:
    """The folder of a data set. What is absent is made or downloaded only without `--data`: a
    folder that was named and is not there is a mistake in the name.

    Raises:
        DataError: it is not there and cannot be got.
    """
    if data is None and source_of(name) is not None and datasets.look_for(name) is None:
        make(name, default_root(name, None))
    return datasets.find(name, data)
