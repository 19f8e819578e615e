"""dvs-gesture-made, made by `mpsl_train.data.made_gestures`."""

from __future__ import annotations

from pathlib import Path

from mpsl_train.data.sources.source import Simulation, register

__all__ = ["SOURCE"]


def _make(root: Path, *, seed: int = 0) -> None:
    from mpsl_train.data import made_gestures

    made_gestures.make(root, seed=seed)


SOURCE = register(Simulation("dvs-gesture-made", _make))
