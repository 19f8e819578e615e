"""The errors of mpsl: one tree, one line each.

A message says what was wrong, what was got, what was expected and where; the command line prints
that line and exits with `exit_code`. Nothing of ours raises a bare `ValueError` on user input.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "MissingExtraError",
    "ModelError",
    "MpslError",
    "OutputError",
    "RecipeError",
    "RunError",
    "UsageError",
]


class MpslError(Exception):
    """Base of every error that a user can cause.

    Args:
        what: the fact that is wrong, as a short clause.
        got: what was found, shown with `repr` unless it is text already.
        expected: what would have been right.
        where: file, node, key or option.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        where: object | None = None,
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.where = where
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if where is not None:
            parts.append(f"in {where}")
        super().__init__("; ".join(parts).replace("\n", " "))


class UsageError(MpslError):
    """A command line or an argument that cannot be meant."""


class DataError(MpslError):
    """A recording or a data set that is absent, damaged or does not fit the model."""


class ModelError(MpslError):
    """A model file that is damaged, not finite, or made of something the engine does not run."""


class RecipeError(MpslError):
    """A recipe with an unknown key or an impossible value."""


class RunError(MpslError):
    """A run folder that lacks a part or whose parts do not belong together."""


class OutputError(MpslError):
    """An output that cannot be written."""


class MissingExtraError(MpslError):
    """A command that needs a package this installation does not have."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} is not installed here",
            expected=f"the extra {extra!r} (pip install '{extra}')",
        )
