"""What the engine takes for a plan, node by node: the sizes of runtime/src, without the memory.

Every number is an upper bound, on every processor: dense loops are counted where any of them has
some, lists at their fullest, and the membrane that only `record_membrane` keeps. A test holds it
against what the engine says of itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
)
from mpsl_runtime.run.memory import (
    NodeMemory,
    check_memory,
    check_work,
    limit_or_default,
    plan_bytes,
)
from mpsl_runtime.run.native_network import extents, passed_on
from mpsl_runtime.run.packed_sizes import (
    FLOAT_NARROWEST,
    INT8_NARROWEST,
    LINE,
    Layout,
    blocks_at_once,
    blocks_of_task,
    buffer_bytes,
    packed_bytes,
    padded_image,
    reached_bytes,
)

__all__ = ["check_engine", "engine_memory"]

_SLAB_CHANNELS, _ROW_CHANNELS, _LIST_SLACK = 128, 512, 64  # kernels.hpp
_ACTIVE, _PIXEL_SPIKES, _ACTIVE_ROW, _LIST = 12, 12, 8, 24  # sizes of structs


def check_engine(
    plan: Plan, *, threads: int = 1, int8: bool = False, limit: int | None = None
) -> tuple[NodeMemory, ...]:
    """`engine_memory` of a model that an engine may be made of.

    Args:
        plan, threads, int8: as there.
        limit: bytes, see `memory.limit_or_default`.

    Raises:
        ModelError: it would take more than the limit, or its steps take minutes.
    """
    check_work(plan)
    rows = engine_memory(plan, threads=threads, int8=int8)
    check_memory(rows, limit_or_default(limit), plan.source)
    return rows


def engine_memory(plan: Plan, *, threads: int = 1, int8: bool = False) -> tuple[NodeMemory, ...]:
    """What `engine.Engine` takes.

    Args:
        plan: what it runs.
        threads: of the engine.
        int8: weights are packed as whole numbers where they can be (`grid.layer_grids`).
    """
    return _Network(plan, threads, int8).rows()


@dataclass(eq=False)
class _Signal:
    """What signal.hpp holds between two nodes; `forms`: bits, values, activity, active."""

    owner: str
    extent: tuple[int, int, int]
    forms: set[str]

    @property
    def size(self) -> int:
        return math.prod(self.extent)

    @property
    def is_bits(self) -> bool:
        return "bits" in self.forms and "written values" not in self.forms

    def read_values(self) -> None:
        """As values; spikes become them by way of a list."""
        self.forms |= {"values"} if "written values" in self.forms else {"values", "active"}

    @property
    def bytes(self) -> int:
        channels, rows, columns = self.extent
        found = buffer_bytes(8 * rows * columns * -(-channels // 64)) if "bits" in self.forms else 0
        found += buffer_bytes(4 * self.size) if "values" in self.forms else 0
        found += buffer_bytes(4 * self.size) if "activity" in self.forms else 0
        return found + (_ACTIVE * self.size if "active" in self.forms else 0)


@dataclass(frozen=True)
class _Connection:
    """A connection that waits for the neurons behind it."""

    name: str
    layout: Layout
    at_once: int  # blocks
    memory: NodeMemory


@dataclass
class _Network:
    """Follows network.cpp: which stages become of the nodes, and what each of them takes."""

    plan: Plan
    threads: int
    int8: bool
    found: list[NodeMemory] = field(default_factory=list)
    signals: list[_Signal] = field(default_factory=list)
    pending: _Connection | None = None
    pooled: str | None = None  # the pool that waits to become part of the next weights
    first: bool = True  # no population yet
    tip: _Signal = field(init=False)  # what the next node sees

    def rows(self) -> tuple[NodeMemory, ...]:
        channels, rows, columns = (*self.plan.input_shape, 1, 1)[:3]
        self.tip = self._signal("input", (channels, rows, columns), "active")
        self.found.append(NodeMemory("input", current=buffer_bytes(4 * self.tip.size)))
        if self.plan.is_chain:
            for node in self.plan.nodes:
                self._add(node)
        else:
            self._add_branches()
        neurons = [node for node in self.plan.nodes if isinstance(node, Neuron)]
        if self.plan.output_neuron is not neurons[-1]:
            self._materialise()
            self.tip.read_values()
        held = [NodeMemory(node.name, weights=self._weights(node)) for node in self.plan.nodes]
        signals = [NodeMemory(signal.owner, signal=signal.bytes) for signal in self.signals]
        together: dict[str, NodeMemory] = {}
        for row in (*held, *self.found, *signals):
            together[row.name] = _added(together.get(row.name, NodeMemory(row.name)), row)
        return tuple(together.values())

    def _weights(self, node: Node) -> int:
        # Of what is one number for a channel, all numbers while they are packed.
        copies = sum(
            value.nbytes
            for value in vars(node).values()
            if isinstance(value, np.ndarray) and any(value.strides) and 0 in value.strides
        )
        if self.int8 and isinstance(node, Convolution | Dense):
            # As whole numbers, and what it takes to find them.
            copies += 14 * node.weight.size
        return plan_bytes(node) + copies

    def _signal(self, owner: str, extent: tuple[int, int, int], *forms: str) -> _Signal:
        signal = _Signal(owner, extent, set(forms))
        self.signals.append(signal)
        return signal

    def _seen(self) -> tuple[int, int, int]:
        channels, rows, columns = self.tip.extent
        return (channels, rows // 2, columns // 2) if self.pooled else (channels, rows, columns)

    def _add(self, node: Node) -> None:
        if isinstance(node, Convolution):
            if self.pending or node.groups != 1:
                self._materialise()
            self.pending = self._convolution(node)
            self.pooled = None
        elif isinstance(node, Dense):
            if self.pending:
                self._materialise()
            self.pending = self._dense(node)
            self.pooled = None
        elif isinstance(node, Pooling):
            self._materialise()
            halves = (node.kernel, node.stride, node.padding) == ((2, 2), (2, 2), (0, 0))
            if halves and self.tip.is_bits and math.frexp(node.scale)[0] == 0.5:
                self.pooled = node.name
            else:
                rows, columns = node.output_shape[1:]
                self.found.append(NodeMemory(node.name, lists=buffer_bytes(8 * columns)))
                self._values(node.name, (self.tip.extent[0], rows, columns))
        elif isinstance(node, Scaling):
            self._materialise()
            self._values(node.name, self.tip.extent)
            self.found.append(NodeMemory(node.name, packed=buffer_bytes(4 * self.tip.size)))
        elif isinstance(node, Delay):
            self._materialise()
            self.tip.forms.add("active")
            self._delay(node)
        elif isinstance(node, Neuron):
            self._neurons(node)

    def _add_branches(self) -> None:
        """As `native_network` has it: signals that several nodes see, or see late."""
        found, alone = extents(self.plan), passed_on(self.plan)
        late = {
            i: self._signal(self.plan.nodes[i].name, found[i], "bits", "values", "active")
            for i in self.plan.late
        }
        numbers = {-1: self.tip}
        for index, (node, sources) in enumerate(
            zip(self.plan.nodes, self.plan.wiring, strict=True)
        ):
            if sources != ((index - 1, False),):
                self._materialise()
                seen = [late[i] if delayed else numbers[i] for i, delayed in sources]
                self.tip = seen[0]
                if len(seen) > 1:
                    for signal in seen:
                        signal.forms.add("active")
                    channels, rows, columns = (*node.input_shape, 1, 1)[:3]
                    self._values(node.name, (channels, rows, columns))
            self._add(node)
            if not alone[index]:
                self._materialise()
                self.tip.forms.add("active")  # by a late one too
                numbers[index] = self.tip

    def _values(self, name: str, extent: tuple[int, int, int]) -> None:
        """A stage whose output is values, with the spikes behind them."""
        self.tip.read_values()
        self.tip = self._signal(name, extent, "values", "written values", "activity")

    def _materialise(self) -> None:
        if self.pending:
            connection, self.pending = self.pending, None
            self.found += [connection.memory, self._desks(connection)]
            extent = connection.layout.extent
            self.tip = self._signal(connection.name, extent, "values", "written values")
        if self.pooled:
            name, extent, self.pooled = self.pooled, self._seen(), None
            self.found.append(NodeMemory(name, lists=buffer_bytes(8 * extent[2])))
            self._values(name, extent)

    def _desks(self, connection: _Connection) -> NodeMemory:
        layout, at_once = connection.layout, connection.at_once
        goes = -(-layout.blocks // at_once)
        own = -(-4 * layout.block_size * at_once // LINE) * LINE
        return NodeMemory(
            connection.name,
            current=buffer_bytes(own * min(goes * layout.extent[1], self.threads)),
        )

    def _delay(self, node: Delay) -> None:
        """A list that grows by doubling for each step to come."""
        extent, size = self.tip.extent, self.tip.size
        ring = (int(node.steps.max()) + 1) * (_LIST + 2 * _ACTIVE * size)
        self.found.append(NodeMemory(node.name, packed=buffer_bytes(4 * size), lists=ring))
        self.tip = self._signal(node.name, extent, "active")

    def _neurons(self, node: Neuron) -> None:
        if self.pending:
            connection, self.pending = self.pending, None
        else:
            self._materialise()
            self.tip.read_values()
            layout = Layout(self.tip.extent)
            own = NodeMemory(node.name, packed=buffer_bytes(4 * layout.width * layout.blocks))
            connection = _Connection(node.name, layout, 1, own)
        layout = connection.layout
        one = buffer_bytes(4 * layout.size)
        # V, U, J, and how often each fired; parameters, and what V starts from.
        changing = 2 + (node.synaptic_decay is not None) + node.many
        fixed = (node.initial is not None) + _parameters(node)
        state = NodeMemory(node.name, state=changing * one, packed=fixed * one)
        if self.first:
            state = replace(state, current=buffer_bytes(4 * layout.size))
            self.first = False
        self.found += [connection.memory, self._desks(connection), state]
        forms = {"bits"} if node.is_binary else {"bits", "values", "written values"}
        forms |= {"activity"} if node.many else set()
        self.tip = self._signal(node.name, layout.extent, *forms)

    def _dense(self, node: Dense) -> _Connection:
        inputs, out = math.prod(self._seen()), node.output_shape[0]
        whole = self.int8 and self.tip.is_bits
        layout = Layout((out, 1, 1), INT8_NARROWEST if whole else FLOAT_NARROWEST)
        if not self.pooled:
            self.tip.forms.add("active")
        memory = NodeMemory(
            node.name,
            packed=buffer_bytes((1 if whole else 4) * inputs * layout.size)
            + buffer_bytes(4 * layout.size),
            lists=_ACTIVE_ROW * inputs,
        )
        at_once = blocks_of_task(inputs, layout, self.threads)
        return _Connection(node.name, layout, at_once, memory)

    def _convolution(self, node: Convolution) -> _Connection:
        filters, rows, columns = node.output_shape
        is_events = not self.tip.is_bits or node.groups != 1
        whole = self.int8 and not is_events
        narrowest = INT8_NARROWEST if whole else FLOAT_NARROWEST
        layout = Layout((filters, rows, columns), narrowest)
        at_once = blocks_at_once(layout.blocks) if whole else 1
        seen, taps = self._seen(), math.prod(node.weight.shape[2:])
        packed = buffer_bytes(4 * layout.width * layout.blocks) + packed_bytes(
            node, layout, whole, at_once
        )
        dense, lists = 0, buffer_bytes(4 * seen[1] * seen[2])
        if is_events:
            self.tip.forms.add("active")
            lists += reached_bytes(node, layout)
        else:
            chunk = _ROW_CHANNELS if whole else _SLAB_CHANNELS
            lists += buffer_bytes(_PIXEL_SPIKES * -(-seen[0] // chunk) * seen[1] * seen[2])
            twice = 2 if self.pooled else 1
            lists += buffer_bytes(2 * (math.prod(seen) * twice + _LIST_SLACK))
            if layout.width == 64:
                channels = -(-self.tip.extent[0] // 64) * 64
                image = padded_image(node) * channels
                dense = buffer_bytes(image) + buffer_bytes(4 * taps)
                dense += 0 if whole else buffer_bytes(4 * image)
                fours = -(-seen[0] // 4)
                packed += layout.blocks * buffer_bytes(taps * fours * 256) if whole else 0
        memory = NodeMemory(node.name, packed=packed, dense=dense, lists=lists)
        return _Connection(node.name, layout, at_once, memory)


def _added(a: NodeMemory, b: NodeMemory) -> NodeMemory:
    sums = {name: amount + getattr(b, name) for name, amount in a.parts()}
    return NodeMemory(a.name, **sums)


def _parameters(node: Neuron) -> int:
    """Arrays of a population's size for its parameters; none where all neurons are alike."""
    synapse = 2 if node.synaptic_decay is not None else 0
    alike = node.kind == "spiking" and not (node.has_input_map or synapse or node.many)
    if alike and _is_one(node.decay) and _is_one(node.threshold) and node.threshold.flat[0] > 0:
        subtracts = node.reset in ("subtract", "subtract-undecayed")
        if _is_one(node.taken if subtracts else node.reset_value):
            return 0
    return 3 + (node.drop is not None) + (2 if node.has_input_map else 0) + synapse


def _is_one(array: NDArray[np.float32]) -> bool:
    first = array.flat[0]
    return not any(array.strides) or bool((array == first).all())
