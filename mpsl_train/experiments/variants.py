"""A method of a comparison, plain or with keys of its own: `mpsl:rules.current_share=0.1`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpsl_runtime.errors import UsageError
from mpsl_train.methods import METHODS, Method, changes_of

__all__ = ["Variant", "variants"]

# Commas within brackets belong to a list.
_COMMA = re.compile(r",(?![^\[]*\])")
_UNSUITABLE = re.compile(r"[^A-Za-z0-9._+]+")
_LONGEST = 150


@dataclass(frozen=True)
class Variant:
    """One way to train a recipe.

    Attributes:
        label: as it was asked for, which tables show. method: a name of `METHODS`.
        overrides: `key=value`, after the method's own changes and those of the whole comparison.
    """

    label: str
    method: str
    overrides: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The label as a part of names of folders."""
        return _UNSUITABLE.sub("-", self.label).strip("-")

    @property
    def facts(self) -> Method:
        """What is known of its method."""
        return METHODS[self.method]


def variants(labels: list[str]) -> list[Variant]:
    """`NAME` or `NAME:KEY=VALUE,KEY=VALUE` each, every one once.

    Raises:
        RecipeError: no such method. UsageError: two have one name of a folder, or too long a one.
    """
    found: dict[str, Variant] = {}
    for label in dict.fromkeys(labels):
        method, _, keys = label.partition(":")
        changes_of(method, {})
        overrides = tuple(part.strip() for part in _COMMA.split(keys) if part.strip())
        variant = Variant(label, method, overrides)
        if variant.word in found:
            raise UsageError(
                "two methods have one name of a folder", got=label,
                expected=f"something else than {found[variant.word].label!r}", where="--method",
            )  # fmt: skip
        if len(variant.word) > _LONGEST:
            raise UsageError("method has too many keys", got=f"{len(label)} letters",
                             expected=f"≤ {_LONGEST}", where="--method")  # fmt: skip
        found[variant.word] = variant
    return list(found.values())
