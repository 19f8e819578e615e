"""What a verb of `mpsl` is for: the headings of its help, each verb naming its own.

A verb says so where it is registered, by typer's own `rich_help_panel`:

    app.command("train", rich_help_panel=Purpose.MAKE)(train)

An add-on may name a heading of its own; that one comes after these.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Purpose"]


class Purpose(StrEnum):
    """In the order of the help page."""

    MAKE = "Make a model"
    PROVE = "Prove and study it"
    RUN = "Run it on events"
