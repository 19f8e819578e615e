"""Finds a data set, and gets it where it is absent and can be got."""

from __future__ import annotations

import os
from pathlib import Path

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError

__all__ = ["MADE", "default_root", "locate", "make"]

_FETCHED = ("mnist", "fashion-mnist", "nmnist", "cifar10", "dvs-gesture")
MADE = ("dvs-digits", "dvs-gesture-made")


def default_root(name: str, data: Path | None) -> Path:
    """Where a data set goes that is not there yet: `--data`, `$MPSL_DATA/<name>`, or
    `~/.cache/mpsl/<name>`. A folder that holds other things gets a folder of that name."""
    if data is not None:
        occupied = data.is_dir() and any(data.iterdir())
        return data / name if occupied else data
    named = os.environ.get("MPSL_DATA")
    return (Path(named) if named else Path.home() / ".cache" / "mpsl") / name


def make(name: str, root: Path, *, seed: int = 0) -> None:
    """Makes one of the data sets of `MADE`; errors as the makers say."""
    if name == "dvs-digits":
        from mpsl_train.data import dvs_digits

        dvs_digits.make(root, seed=seed)
    else:
        from mpsl_train.data import made_gestures

        made_gestures.make(root, seed=seed)


def locate(name: str, data: Path | None) -> Path:
    """The folder of a data set. What is absent is made or downloaded only without `--data`: a
    folder that was named and is not there is a mistake in the name.

    Raises:
        DataError: it is not there and cannot be got.
    """
    try:
        return datasets.find(name, data)
    except DataError:
        if data is not None or name not in (*_FETCHED, *MADE):
            raise
    if name in MADE:
        make(name, default_root(name, None))
    else:
        from mpsl_train.data import download

        download.fetch(name, default_root(name, None))
    return datasets.find(name, None)
