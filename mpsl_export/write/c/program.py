"""Walks a plan and says what each node becomes: functions, constants, members of the state, and the
line of `step` that calls them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.names import identifiers
from mpsl_export.write.c.signals import Scratch, Signal, index_type
from mpsl_export.write.c.text import array, number, type_of
from mpsl_export.write.c.widths import Membrane
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.grid import LayerGrid, layer_grids
from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Neuron, Node, Plan, Pooling, Shape

__all__ = ["Member", "Program", "grids_of", "proven"]


@dataclass(frozen=True)
class Member:
    """An array of the state; `count` 0 is a single value. `note`: for the reader."""

    ctype: str
    name: str
    count: int
    note: str


@dataclass
class Program:
    """A program under construction.

    Attributes:
        plan: what it runs. prefix: of every name that is not local.
        grids: of an int8 plan that is proven exact the layers in whole numbers, by name; else
            empty, and everything is float32.
        name: of each node in C.
        parts: functions and constants, in order. body: lines of `step`. members: of the state.
        resets: lines of `reset`, behind the one that sets all to 0.
        signals: what each node that has run hands on, by index; −1 is the input.
        late: the same for the values of the step before.
        membranes: of populations that are summed in place, by index.
        horizon: steps after a reset for which integer membranes are proven wide enough; 0: all.
    """

    plan: Plan
    prefix: str
    grids: dict[str, LayerGrid]
    name: dict[str, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    scratch: Scratch = field(default_factory=Scratch)
    signals: dict[int, Signal] = field(default_factory=dict)
    late: dict[int, Signal] = field(default_factory=dict)
    membranes: dict[int, Membrane] = field(default_factory=dict)
    horizon: int = 0

    @classmethod
    def of(cls, plan: Plan, prefix: str) -> Program:
        """A program of which nothing is written yet."""
        names = identifiers(node.name for node in plan.nodes)
        return cls(plan, prefix, grids_of(plan), names)

    @property
    def is_int8(self) -> bool:
        """Sums are whole numbers."""
        return bool(self.grids)

    @property
    def end(self) -> int:
        """The time at which the last node has run."""
        return len(self.plan.nodes)

    def function(self, index: int, suffix: str = "") -> str:
        """The name of a node's function."""
        return f"{self.prefix}_{self.name[self.plan.nodes[index].name]}{suffix}"

    def local(self, index: int) -> str:
        """The name of a node within `step`, and in the state."""
        return "input" if index < 0 else self.name[self.plan.nodes[index].name]

    def constant(self, ctype: str, name: str, values: NDArray[Any]) -> str:
        """An array in flash; returns its name."""
        self.parts.append(array(ctype, name, values) + "\n")
        return name

    def member(self, ctype: str, name: str, count: int, note: str) -> str:
        """An array of the state, or for 0 a value; returns an expression for it."""
        self.members.append(Member(ctype, name, count, note))
        return f"state->{name}"

    def parameter(self, name: str, values: NDArray[Any], image: Shape | None) -> str:
        """One number for each neuron, as they lie: a literal where all are alike, an entry for each
        channel where that is enough, else an array; as an expression of `i` and `c`."""
        values = np.ascontiguousarray(values.reshape(-1))
        if (values == values[0]).all():
            return number(values[0])
        ctype = "float"
        if values.dtype.kind != "f":
            ctype = type_of(int(values.min()), int(values.max()))
        if image is not None and image[0] < values.size:
            rows = values.reshape(-1, image[0])
            if (rows == rows[0]).all():
                return f"{self.constant(ctype, name, rows[0])}[c]"
        return f"{self.constant(ctype, name, values)}[i]"

    def use(self, signal: Signal, now: int) -> Signal:
        """Marks a signal as read at `now`."""
        self.scratch.use(signal.pointer, now)
        return signal

    def list_of_spikes(self, index: int, like: Signal | None, size: int) -> Signal:
        """A list for the spikes of a node."""
        name, ctype = self.local(index), index_type(size)
        self.scratch.take(name, ctype, size, index)
        image = like.image if like is not None else None
        return Signal("spikes", ctype, name, size, count=f"{name}_n", image=image)

    def array_of_values(
        self, index: int, ctype: str, size: int, image: Shape | None, suffix: str = ""
    ) -> Signal:
        """An array for the values of a node."""
        name = self.local(index) + suffix
        self.scratch.take(name, ctype, size, index)
        return Signal("values", ctype, name, size, image=image)

    def error(self, what: str, node: Node) -> ModelError:
        """A node that cannot be said in C."""
        kind = type(node).__name__
        return ModelError(what, got=kind, where=f"node {node.name!r} of {self.plan.source}")

    def event_reader(self) -> int | None:
        """The node with weights that alone sees the input, and needs no more than its events."""
        index, wiring = -1, self.plan.wiring
        if -1 in self.plan.late:
            return None
        while True:
            readers = [i for i, row in enumerate(wiring) if any(s == index for s, _ in row)]
            if len(readers) != 1 or wiring[readers[0]] != ((index, False),):
                return None
            index = readers[0]
            if isinstance(self.plan.nodes[index], Convolution | Dense):
                return index
            if not isinstance(self.plan.nodes[index], Flatten):
                return None


def proven(plan: Plan) -> dict[str, LayerGrid]:
    """The layers of an int8 plan by name, if it is proven exact."""
    try:
        return {grid.name: grid for grid in layer_grids(plan)}
    except ModelError:
        return {}


def grids_of(plan: Plan) -> dict[str, LayerGrid]:
    """The layers of an int8 plan whose sums are proven exact, by name; of another plan none.

    Sums in whole numbers are for layers one behind the other, each population right behind weights:
    only a current is a whole number there. What else is proven sums whole numbers in float32.
    """
    if not plan.is_chain:
        return {}
    for before, node in zip((None, *plan.nodes), (*plan.nodes, None), strict=True):
        if isinstance(before, Convolution | Dense) != isinstance(node, Neuron):
            return {}
        if not isinstance(node, Convolution | Dense | Flatten | Pooling | Neuron | None):
            return {}
    return proven(plan)
