"""Other programs that run the same model, for `mpsl bench --against`.

This distribution knows none. Others join through the entry-point group `mpsl.programs`: a function
`(plan, threads) -> Program`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import MissingExtraError, UsageError
from mpsl_runtime.model.plan import Plan

__all__ = ["Program", "ProgramFactory", "find_programs"]


class Program(Protocol):
    """One plan in one program, advanced step by step as the engine is.

    Attributes:
        device: program, version and what it runs on, in words.
    """

    device: str

    def reset(self) -> None:
        """Back to the state at rest."""

    def step(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """One step: frame [*input_shape] -> what the last population gives [K]."""
        ...

    def states(self) -> dict[str, NDArray[np.float32]]:
        """V after the last step of every population that keeps one, by the neurons' name."""
        ...


ProgramFactory = Callable[[Plan, int], Program]


def find_programs(names: Sequence[str]) -> dict[str, ProgramFactory]:
    """The factories of the programs, in the order asked for.

    Raises:
        MissingExtraError: the distribution that brings them, or a package it needs, is absent.
        UsageError: no program of that name.
    """
    known = {entry.name: entry for entry in entry_points(group="mpsl.programs")}
    found: dict[str, ProgramFactory] = {}
    for name in names:
        if not known:
            raise MissingExtraError(f"a program to compare with ({name})", "mpsl[cpu]")
        if name not in known:
            raise UsageError(
                "unknown program to compare with",
                got=repr(name),
                expected=", ".join(sorted(known)),
                where="--against",
            )
        try:
            found[name] = known[name].load()
        except ImportError as error:
            raise MissingExtraError(error.name or name, "mpsl[cpu]") from None
    return found
