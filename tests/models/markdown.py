"""Tables of a README, as cells."""

from __future__ import annotations

__all__ = ["cells"]


def cells(line: str) -> list[str]:
    """The cells of one row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
