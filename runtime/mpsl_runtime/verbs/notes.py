"""What a model file says and was not taken at its word: one line on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpsl_runtime.errors import LONGEST_MESSAGE, shortened
from mpsl_runtime.terminal import show

if TYPE_CHECKING:
    from mpsl_runtime.model.plan import Plan

__all__ = ["show_notes"]


def show_notes(plan: Plan) -> None:
    """Prints the notes of a plan as one line; nothing where there are none."""
    if plan.notes:
        notes = shortened("; ".join(plan.notes), 2 * LONGEST_MESSAGE)
        show(f"note: {notes}; in {plan.source}", err=True)
