"""What a file holds that its exporter would not have written, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Alteration", "array_alterations", "metadata_alterations", "shown"]

_LONGEST = 60


@dataclass(frozen=True)
class Alteration:
    """One difference between a file and what the exporter writes for the same network.

    Attributes:
        place: the node that it is in, or the part of the file.
        text: the difference, in words.
        runs: the file still has the operations and shapes of the network, so that running it shows
            what the difference does. A file of another form is not run.
    """

    place: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.place} {self.text}" if self.place else self.text


def shown(value: object) -> str:
    """A value for a message: printable, and cut where it is long."""
    text = str(value)
    cut = text[:_LONGEST] + "…" * (len(text) > _LONGEST)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def array_alterations(
    place: str, name: str, expected: NDArray[Any], got: NDArray[Any]
) -> Iterator[Alteration]:
    """One alteration when two arrays are not the same bit for bit, with the first value."""
    if expected.dtype != got.dtype:
        yield Alteration(place, f"{name} is {got.dtype} instead of {expected.dtype}", runs=False)
        return
    if expected.shape != got.shape:
        text = f"{name} has shape {list(got.shape)} instead of {list(expected.shape)}"
        yield Alteration(place, text, runs=False)
        return
    # As bits: −0.0 is not 0.0 here, and NaN is itself.
    kind = np.dtype(f"V{expected.dtype.itemsize}")
    one, other = (np.ascontiguousarray(a).reshape(-1).view(kind) for a in (expected, got))
    differing = np.flatnonzero(one != other)
    if not differing.size:
        return
    first = tuple(int(i) for i in np.unravel_index(int(differing[0]), expected.shape))
    yield Alteration(
        place,
        f"{name}{list(first) or ''} is {got[first]} instead of {expected[first]} "
        f"({differing.size} of {expected.size} values differ)",
        runs=True,
    )


def metadata_alterations(
    place: str, expected: Mapping[str, Any], got: Mapping[str, Any]
) -> Iterator[Alteration]:
    """One alteration for each entry that differs, is missing, or is one too many."""
    nothing = object()
    for key in {**expected, **got}:
        right, found = expected.get(key, nothing), got.get(key, nothing)
        if type(right) is type(found) and right == found:
            continue
        if found is nothing:
            text = f"metadata lacks {shown(key)}"
        elif right is nothing:
            text = f"metadata has {shown(key)} = {shown(found)} besides"
        else:
            text = f"metadata {shown(key)} is {shown(found)} instead of {shown(right)}"
        yield Alteration(place, text, runs=True)
