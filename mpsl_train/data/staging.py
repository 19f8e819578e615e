"""Data sets appear whole or not at all: filled under a hidden name, then renamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mpsl_runtime.atomic import stage_in, sweep
from mpsl_runtime.errors import DataError, OutputError

__all__ = ["is_made", "staged"]


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Yields an empty hidden folder; when the block ends its content is what `root` holds.

    A `root` that is absent or empty is replaced in one step. One that has files of its own keeps
    them and gets each new entry in one step. When the block raises, `root` is as it was; what a
    killed process left is removed by the next one.

    Raises:
        OutputError: a folder cannot be made or renamed, or the disk is full.
    """
    try:
        sweep(root)
        occupied = root.is_dir() and any(root.iterdir())
        place = root if occupied else root.parent
        place.mkdir(parents=True, exist_ok=True)
        with stage_in(place) as stage:
            yield stage
            if occupied:
                for entry in sorted(stage.iterdir()):
                    entry.rename(root / entry.name)
            else:
                stage.rename(root)
    except OSError as error:
        raise OutputError(
            "data set cannot be written", got=error.strerror or error, where=root
        ) from error


def is_made(root: Path, record: Mapping[str, object], name: str) -> bool:
    """True for the made data set that `record` describes, False when there is nothing yet.

    Args:
        record: with the key `dataset`. name: of the file in `root` that holds the record.

    Raises:
        DataError: `root` holds something else, or the data set made otherwise.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"folder holds something else than {record['dataset']}",
            expected="a new or empty folder",
            where=root,
        ) from None
    if found != record:
        raise DataError(
            f"{record['dataset']} is there, but made otherwise",
            got=found,
            expected=record,
            where=root,
        )
    return True
