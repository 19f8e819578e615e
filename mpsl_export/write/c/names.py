"""Names of a graph as identifiers of C, each of them once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mpsl_runtime.errors import UsageError

__all__ = ["LONGEST", "checked_prefix", "identifiers"]

LONGEST = 24
# What stands beside a node's name in `step`, what C has for itself, and what functions and members
# of a node end in.
_KEYWORDS = """
    asm auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while
"""
_OURS = """
    camera classes counts event events input label late main memcpy memset model n k s reset score
    scores scratch size_is_right state step steps
"""
_TAKEN = frozenset((_KEYWORDS + _OURS).split())
_ENDINGS = re.compile(
    "_([A-Z]|[0-9]+|n|t|add|bias|weight|sum|step|steps|scale|ring|now|decay|threshold|gain|leak|"
    "initial|reset_value|drop|floor|synaptic_decay|synaptic_gain)$"
)
# Macros have it in capitals: two prefixes that differ in case alone would share them.
_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,23}")


def checked_prefix(prefix: str) -> str:
    """What every name of a program begins with, so that several programs fit one image.

    Raises:
        UsageError: no identifier can begin so.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            "prefix begins no name of C",
            got=prefix,
            expected=f"a small letter, then small letters, digits and _, {LONGEST} at most",
            where="--prefix",
        )
    return prefix


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """For each name of a node one of C: letters, digits and _ alone, 24 at most, no two alike.

    A name may be any text of a stranger's file. It stands behind the prefix, or begins with a
    letter itself.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        if not plain[:1].isalpha():
            plain = f"n{plain}"
        plain = plain[:LONGEST]
        if plain.lower() in _TAKEN or _ENDINGS.search(plain) or plain.startswith("late_"):
            plain = f"node_{plain}"[: LONGEST - 2] + "_x"
        made, number = plain, 2
        while made.lower() in taken:
            tail = f"_{number}"
            made, number = plain[: LONGEST - len(tail) - 2] + tail + "_x", number + 1
        taken.add(made.lower())
        found[name] = made
    return found
