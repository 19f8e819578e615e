"""What becomes of datagrams: recordings that begin, their events, and their ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mpsl_runtime.live.arrivals import Run

__all__ = ["Begin", "Data", "End", "Output", "Report"]


@dataclass(frozen=True)
class Begin:
    """A recording begins. `size` is (0, 0) where the datagrams do not say it."""

    origin_us: int | None
    trial: bool
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Data:
    """Events of the recording, and how many before them were lost."""

    run: Run
    missing: int


@dataclass(frozen=True)
class End:
    """The recording ends; `last`: its sender says that nothing follows."""

    last: bool


Output = Begin | Data | End


class Report(Protocol):
    """Where it is counted: a `LiveSource`."""

    def ignore(self, reason: str, number: int = 1) -> None:
        """Datagrams that were no use."""

    def lose(self, cause: str, number: int) -> int:
        """Events that did not come through."""

    def resynchronise(self, why: str) -> None:
        """Time or numbers begin anew."""
