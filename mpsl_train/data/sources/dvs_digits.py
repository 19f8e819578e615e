"""dvs-digits, made by `mpsl_train.data.dvs_digits`."""

from __future__ import annotations

from pathlib import Path

from mpsl_train.data.sources.source import Simulation, register

__all__ = ["SOURCE"]


def _make(root: Path, *, seed: int = 0) -> None:
    from mpsl_train.data import dvs_digits

    dvs_digits.make(root, seed=seed)


SOURCE = register(Simulation("dvs-digits", _make))
