"""The errors of mpsl: one tree, one line each.

A message says what was wrong, what was got, what was expected and where; the command line prints
that line and exits with `exit_code`. Nothing of ours raises a bare `ValueError` on user input.
"""

from __future__ import annotations

import re

__all__ = [
    "LONGEST_MESSAGE",
    "DataError",
    "MissingExtraError",
    "ModelError",
    "MpslError",
    "OutputError",
    "RecipeError",
    "RunError",
    "UsageError",
    "plain",
    "shortened",
]

LONGEST_MESSAGE = 300
"""Characters of a message; what was got may be a megabyte of a stranger's file."""

# Characters that move the cursor, colour, hide or reorder what follows; surrogates are bytes of
# file names that are no text. Newlines and tabs are among them: a message is one line.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    "\ufff0-\uffff\U000e0000-\U000e0fff]"
)
_SHORTEST_PART = 40


def plain(text: str) -> str:
    """`text` with everything that is not printable escaped, as in a Python string: on one line."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def _text(value: object) -> str:
    """`value` as text, not longer than is of use, whatever it is."""
    try:
        text = str(value)
    except ValueError:  # Python does not print whole numbers of more than 4,300 digits
        text = f"a {type(value).__name__} that is too large to print"
    return plain(" ".join(shortened(text, 2 * LONGEST_MESSAGE).split()))


def shortened(text: str, length: int = LONGEST_MESSAGE) -> str:
    """The beginning and the end of `text`, in `length` characters."""
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


def _fitted(parts: list[str]) -> str:
    """The parts as one line of at most `LONGEST_MESSAGE` characters; the longest lose most."""
    excess = sum(map(len, parts)) + 2 * (len(parts) - 1) - LONGEST_MESSAGE
    for index in sorted(range(len(parts)), key=lambda index: -len(parts[index])):
        if excess <= 0:
            break
        kept = max(_SHORTEST_PART, len(parts[index]) - excess)
        excess -= len(parts[index]) - kept
        parts[index] = shortened(parts[index], kept)
    return "; ".join(parts)


class MpslError(Exception):
    """Base of every error that a user can cause.

    Args:
        what: the fact that is wrong, as a short clause.
        got: what was found, shown with `repr` unless it is text already.
        expected: what would have been right.
        where: file, node, key or option.

    The message is one line of at most `LONGEST_MESSAGE` printable characters; long parts lose
    their middle.
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
        parts = [_text(what)]
        if got is not None:
            parts.append(f"got {_text(got)}")
        if expected is not None:
            parts.append(f"expected {_text(expected)}")
        if where is not None:
            parts.append(f"in {_text(where)}")
        super().__init__(_fitted(parts))


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
