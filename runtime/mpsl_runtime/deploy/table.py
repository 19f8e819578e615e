"""The table of models and chips, as Markdown: `python -m mpsl_runtime.deploy.table [MODEL…]`.

A cell is `fits`, `as int8` (the same network with weights of 8 bits fits), or the measures whose
limits the network breaks even then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mpsl_runtime.deploy.chips import Chip, find_chips
from mpsl_runtime.deploy.fit import broken_as_int8, fit
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.terminal import show_lines
from mpsl_runtime.zoo import find_model, known_models

__all__ = ["main", "table"]


def table(models: Iterable[tuple[str, Path]], chips: Sequence[Chip]) -> list[str]:
    """A row for each model, a column for each chip.

    Args:
        models: name and file of each.

    Raises:
        ModelError: a file cannot be read.
    """
    text = [
        f"| model | {' | '.join(chip.name for chip in chips)} |",
        f"|---|{'---|' * len(chips)}",
    ]
    for name, path in models:
        plan = load_plan(path)
        text.append(f"| `{name}` | {' | '.join(_cell(plan, chip) for chip in chips)} |")
    return text


def _cell(plan: Plan, chip: Chip) -> str:
    result = fit(plan, chip)
    if result.fits or result.as_int8:
        return "fits" if result.fits else "as int8"
    return ", ".join(name.replace("_", " ") for name in broken_as_int8(plan, chip))


def main(arguments: Sequence[str]) -> None:
    """Prints the table of the files that are named, or of every model of the zoo."""
    names = list(arguments) or list(known_models())
    models = [
        (Path(name).parent.name if Path(name).suffix else name, find_model(name)) for name in names
    ]
    show_lines(table(models, find_chips("all")))


if __name__ == "__main__":
    main(sys.argv[1:])
