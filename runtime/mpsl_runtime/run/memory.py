"""One budget for a model: what it will take is computed from its plan, before it is taken.

A file of a few kilobytes may describe gigabytes of neurons, or a step that takes days. Such a model
is refused in one line; `engine_memory.py` and `reference_memory` say what each node takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.plan import Convolution, Delay, Dense, Neuron, Node, Plan, Pooling

__all__ = [
    "DEFAULT_LIMIT",
    "LARGEST_SIZE",
    "MOST_OPERATIONS",
    "NodeMemory",
    "check_memory",
    "check_output",
    "check_work",
    "limit_or_default",
    "memory_limited",
    "memory_text",
    "parse_memory",
    "plan_bytes",
    "reached_pairs",
    "reference_memory",
]

DEFAULT_LIMIT = 2 << 30
"""Bytes that a model may take where nobody says another number."""

MOST_OPERATIONS = 10**12
"""Additions of one step in which everything fires: some 20 s. A VGG-16 on 224x224 has 1.5·10^10."""

LARGEST_SIZE = 1 << 30
"""Rows or columns of a map with its padding, and every step through it."""

_LIMIT: ContextVar[int] = ContextVar("memory limit", default=DEFAULT_LIMIT)
_CHUNK = 1 << 20  # taps that are looked at together
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TEXT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True)
class NodeMemory:
    """Bytes that one node takes at most.

    Attributes:
        name: of the node; `input` for what belongs to none.
        weights: its arrays as they were read, and their copies as whole numbers.
        packed: weights, in the order of the loops that read them, and all else that never changes.
        dense: for the dense loops, the padded image of the input.
        lists: what its spikes or events reach.
        state: of its neurons.
        signal: its output, in the forms in which the next node wants it.
        current: of each thread, and that of a constant input.
    """

    name: str
    weights: int = 0
    packed: int = 0
    dense: int = 0
    lists: int = 0
    state: int = 0
    signal: int = 0
    current: int = 0

    @property
    def bytes(self) -> int:
        """The sum."""
        return sum(amount for _, amount in self.parts())

    def parts(self) -> list[tuple[str, int]]:
        """(attribute, bytes) of all but the name."""
        names = [field.name for field in fields(self) if field.name != "name"]
        return [(name, int(getattr(self, name))) for name in names]


def parse_memory(text: str, where: str = "--memory-limit") -> int:
    """Bytes of a number such as `512MiB`, `4G` or `1.5 GB`; units are powers of 1024.

    Raises:
        UsageError: it is none, or nothing.
    """
    found = _TEXT.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if not found or size < 1:
        raise UsageError(
            "not an amount of memory", got=repr(text), expected="for example 512MiB", where=where
        )
    return size


def memory_text(size: int) -> str:
    """Bytes for people: 37.2 GiB."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            amount = size / factor
            return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"
    return f"{size} bytes"


@contextmanager
def memory_limited(limit: int) -> Iterator[None]:
    """Models that are made within, without a limit of their own, may take so many bytes."""
    token = _LIMIT.set(limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def limit_or_default(limit: int | None) -> int:
    """The limit that is given, else that of `memory_limited` around, else `DEFAULT_LIMIT`.

    Raises:
        UsageError: it is no number of bytes.
    """
    if limit is None:
        return _LIMIT.get()
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UsageError("memory limit", got=repr(limit), expected="bytes ≥ 1")
    return limit


def check_memory(rows: Sequence[NodeMemory], limit: int, source: str, *, copies: int = 1) -> None:
    """Refuses a model that takes more than `limit` bytes.

    Args:
        rows: what it takes.
        copies: that run side by side; they share the weights, as they were read and packed.

    Raises:
        ModelError: it does; the node that takes most is named.
    """
    shared = sum(row.weights + row.packed for row in rows)
    total = shared + copies * (sum(row.bytes for row in rows) - shared)
    if total <= limit:
        return
    most = max(rows, key=lambda row: row.bytes)
    part, size = max(most.parts(), key=lambda pair: pair[1])
    raise ModelError(
        "model takes too much memory" if copies == 1 else f"{copies} copies take too much memory",
        got=f"up to {memory_text(total)}, of which {part} of node {most.name!r} "
        f"{memory_text(size)}",
        expected=f"≤ {memory_text(limit)} (--memory-limit)",
        where=source,
    )


def check_output(values: int, size: int, limit: int) -> None:
    """Refuses to fill an array of `values` values of `size` bytes that is larger than the limit.

    Raises:
        UsageError: it is.
    """
    if values * size > limit:
        raise UsageError(
            "output of so many steps takes too much memory",
            got=memory_text(values * size),
            expected=f"≤ {memory_text(limit)} (--memory-limit), fewer steps at a time",
        )


def check_work(plan: Plan) -> None:
    """Refuses a model whose sizes are absurd, or whose steps take minutes.

    Raises:
        ModelError: a number is beyond `LARGEST_SIZE`, or a step in which everything fires has more
            than `MOST_OPERATIONS`.
    """
    for node in plan.nodes:
        _check_sizes(node, plan.source)
    work = [(operations(node), node.name) for node in plan.nodes]
    total = sum(amount for amount, _ in work)
    if total > MOST_OPERATIONS:
        amount, name = max(work)
        raise ModelError(
            "a step of this model takes too long",
            got=f"up to {total:.2g} operations, of which node {name!r} {amount:.2g}",
            expected=f"≤ {MOST_OPERATIONS:.0e}",
            where=plan.source,
        )


def _check_sizes(node: Node, source: str) -> None:
    sizes: list[int] = [*node.input_shape, *node.output_shape]
    if isinstance(node, Convolution):
        sizes += [*node.weight.shape, *node.stride, *node.dilation]
        sizes += [
            size + sum(pad) for size, pad in zip(node.input_shape[1:], node.padding, strict=True)
        ]
    elif isinstance(node, Pooling):
        sizes += [*node.kernel, *node.stride]
        sizes += [
            size + 2 * pad for size, pad in zip(node.input_shape[1:], node.padding, strict=True)
        ]
    if max(sizes) > LARGEST_SIZE:
        raise ModelError(
            "kernel, stride, padding or dilation is too large",
            got=max(sizes),
            expected=f"≤ {LARGEST_SIZE}, padding included",
            where=f"node {node.name!r} of {source}",
        )


def operations(node: Node) -> int:
    """Additions of a step in which every input of the node is active."""
    if isinstance(node, Dense):
        return int(node.weight.size)
    if isinstance(node, Convolution):
        pairs = math.prod(reached_pairs(node, axis) for axis in (0, 1))
        return pairs * int(math.prod(node.weight.shape[:2]))
    if isinstance(node, Pooling):
        return node.input_shape[0] * math.prod(_window_pairs(node, axis) for axis in (0, 1))
    return math.prod(node.output_shape)


def reached_pairs(node: Convolution, axis: int) -> int:
    """Pairs of (kernel tap, output) along rows (0) or columns (1) whose input is no padding."""
    size, outputs = node.input_shape[1 + axis], node.output_shape[1 + axis]
    stride, dilation, before = node.stride[axis], node.dilation[axis], node.padding[axis][0]
    pairs = 0
    for first in range(0, node.weight.shape[2 + axis], _CHUNK):
        taps = np.arange(first, min(first + _CHUNK, node.weight.shape[2 + axis]), dtype=np.int64)
        offset = taps * dilation - before
        begin = np.clip(-(offset // stride), 0, outputs)
        end = np.clip((size - 1 - offset) // stride + 1, 0, outputs)
        pairs += int(np.maximum(end - begin, 0).sum())
    return pairs


def _window_pairs(node: Pooling, axis: int) -> int:
    """Pairs of (output, input) along rows (0) or columns (1) of a pool."""
    size, outputs = node.input_shape[1 + axis], node.output_shape[1 + axis]
    stride, before, taps = node.stride[axis], node.padding[axis], node.kernel[axis]
    ends = _clipped_sum(size + before, stride, outputs, taps)
    return ends - _clipped_sum(before, stride, outputs, taps)


def _clipped_sum(first: int, step: int, count: int, most: int) -> int:
    """Σ of first − i·step for i < count, each clipped to 0 … most."""
    at_most = min(max((first - most) // step + 1, 0), count)
    above_zero = min(max((first - 1) // step + 1, 0), count)
    falling = max(above_zero - at_most, 0)
    terms = falling * first - step * (at_most + above_zero - 1) * falling // 2
    return at_most * most + terms


def plan_bytes(node: Node) -> int:
    """Bytes of a node's arrays; one value for all neurons is one value."""
    return sum(_held(value) for value in vars(node).values() if isinstance(value, np.ndarray))


def _held(array: NDArray[np.generic]) -> int:
    shape = zip(array.shape, array.strides, strict=True)
    return int(array.itemsize) * math.prod(int(size) for size, stride in shape if stride)


def reference_memory(plan: Plan, batch: int = 1) -> tuple[NodeMemory, ...]:
    """What `reference.Reference` takes for `batch` samples side by side.

    `current` is what a node needs while it is computed, and is counted for the one that needs most.
    """
    rows, needed = [], []
    for index, node in enumerate(plan.nodes):
        inputs, outputs = math.prod(node.input_shape), math.prod(node.output_shape)
        passing = 4 * batch * (4 * inputs + 7 * outputs) + 24 * inputs
        state = 16 * batch * outputs if isinstance(node, Neuron) else 0
        if isinstance(node, Convolution):
            channels, *sizes = node.input_shape
            padded = channels * math.prod(size + 1 for size in sizes)
            seen = channels * math.prod(node.output_shape[1:])  # by one tap
            passing += 4 * batch * (padded + 2 * seen)
        elif isinstance(node, Delay):
            state = 8 * batch * outputs * (int(node.steps.max()) + 1)  # before and after a step
            passing += 32 * batch * outputs
        rows.append(
            NodeMemory(
                node.name,
                weights=plan_bytes(node),
                lists=8 * inputs if isinstance(node, Convolution | Dense) else 0,
                state=state,
                # Values and activity; twice where a later step sees them.
                signal=8 * batch * outputs * (2 if index in plan.late else 1),
            )
        )
        needed.append((passing, node.name))
    most, name = max(needed)
    return (*rows, NodeMemory(name, current=most))
