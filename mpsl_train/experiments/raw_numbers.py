"""The numbers behind a table as CSV: one row a run, so that anyone can compute it again."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpsl_runtime.atomic import replacing

__all__ = ["write_raw"]


def write_raw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of the same keys; what is None stays empty.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
