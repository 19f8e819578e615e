"""Where each node's output lies while a step runs: lists of spikes and arrays of values.

Spikes are a list of the neurons that fired. An image lies channel-last, [H, W, C], so that the
outputs of one place are next to each other; NIR counts channel-first. Lists and arrays of one
element size share room where no step needs both at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Shape

__all__ = ["POOLS", "Scratch", "Signal", "index_type"]

# The widest elements first, so that no padding comes between. Of one pool's elements only the sign
# differs: C lets both types look at the same place.
POOLS = (("float", "floats"), ("uint32_t", "words"), ("uint16_t", "halves"), ("uint8_t", "bytes"))
_POOL_OF = {
    "float": "float", "int32_t": "uint32_t", "uint32_t": "uint32_t", "int16_t": "uint16_t",
    "uint16_t": "uint16_t", "int8_t": "uint8_t", "uint8_t": "uint8_t",
}  # fmt: skip


@dataclass(frozen=True)
class Signal:
    """A node's output, as C sees it.

    Attributes:
        kind: `spikes`, a list of indices; `values`, an array; `events`, the array of the network's
            input, of which the caller's events name what is not 0.
        ctype: of an index or of a value.
        pointer, count: expressions; the count of a list.
        size: of the population.
        image: its shape [C, H, W] where it lies channel-last; None: in the order of NIR.
    """

    kind: Literal["spikes", "values", "events"]
    ctype: str
    pointer: str
    size: int
    count: str = ""
    image: Shape | None = None

    @property
    def order(self) -> NDArray[np.int64]:
        """The place in NIR's order of each element."""
        flat = np.arange(self.size, dtype=np.int64)
        if self.image is None:
            return flat
        return flat.reshape(self.image).transpose(1, 2, 0).reshape(-1)

    def ordered(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """`values`, one for each element in NIR's order, as they lie."""
        return values.reshape(-1)[self.order]


def index_type(size: int) -> str:
    """What counts to `size`."""
    return "uint16_t" if size <= 1 << 16 else "uint32_t"


@dataclass
class _Buffer:
    name: str
    ctype: str
    size: int
    first: int
    last: int
    offset: int = 0


@dataclass
class Scratch:
    """Room that is needed within a step. A node's number is the time at which it runs."""

    buffers: dict[str, _Buffer] = field(default_factory=dict)

    def take(self, name: str, ctype: str, size: int, now: int) -> str:
        """Room from `now` on; returns its name, that of a pointer."""
        self.buffers[name] = _Buffer(name, ctype, max(size, 1), now, now)
        return name

    def use(self, name: str, now: int) -> None:
        """It is read at `now`; of a name that is no buffer nothing is kept."""
        if name in self.buffers:
            self.buffers[name].last = max(self.buffers[name].last, now)

    def lay_out(self) -> dict[str, int]:
        """Places all buffers; the number of elements of each pool, by its member of the state."""
        sizes = {}
        for ctype, member in POOLS:
            placed: list[_Buffer] = []
            own = [b for b in self.buffers.values() if _POOL_OF[b.ctype] == ctype]
            for buffer in sorted(own, key=lambda b: -b.size):
                beside = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
                buffer.offset = _first_gap(beside, buffer.size)
                placed.append(buffer)
            if placed:
                sizes[member] = max(b.offset + b.size for b in placed)
        return sizes

    def pointers(self) -> list[str]:
        """The declarations of all, at the start of a step; after `lay_out`."""
        members = dict(POOLS)
        lines = []
        for b in self.buffers.values():
            pool = _POOL_OF[b.ctype]
            cast = "" if pool == b.ctype else f"({b.ctype} *)"
            at = f"state->scratch.{members[pool]}"
            at = f"{at} + {b.offset}" if b.offset else at
            lines.append(f"{b.ctype} *const {b.name} = {cast}{f'({at})' if cast else at};")
        return lines


def _first_gap(taken: list[_Buffer], size: int) -> int:
    at = 0
    for buffer in sorted(taken, key=lambda b: b.offset):
        if at + size <= buffer.offset:
            break
        at = max(at, buffer.offset + buffer.size)
    return at
