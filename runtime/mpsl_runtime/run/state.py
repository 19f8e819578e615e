"""A network between two steps as bytes, and back: from there it goes on bit for bit.

The layout, little-endian; its length follows from the plan alone:

    magic 8 bytes | version u32 | hash of the network 32 bytes | steps u64 | synops u64
    V float32, of all neurons in order | J float32, of those with a synapse
    S uint8, of all neurons: 1 where they fired | U float32, of the output's neurons
    what later steps see of this one, float32 | the output, where no population gives it, float32
    CRC-32 of all before u32

An engine and a reference read each other's. Nothing in it is code, and nothing is trusted.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.plan import Delay, Neuron, Plan

__all__ = ["NetworkState", "network_hash"]

Array = NDArray[np.float32]
_MAGIC = b"mpslstat"
_VERSION = 1
_HEADER = struct.Struct("<8sI32sQQ")
_CHECK = struct.Struct("<I")
_CHUNK = 1 << 18
# A state may be taken after each step, and a plan does not change.
_HASHES: WeakKeyDictionary[Plan, bytes] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class NetworkState:
    """What a network remembers.

    Attributes:
        steps, synops: since the last reset.
        V, S: of all populations in order, one after the other; J: of those with a synapse. No step
            to come depends on S, so of neurons that fire many times it says whether they fired.
        U: of the population that gives the output, at the last step before its reset; output: of
            the last step, where no population gives it.
        late: of a graph that is no chain: what `plan.late` were in the last step, values, then the
            spikes behind them; then of each Delay what arrives in the next step, in the one after
            it, …
    """

    steps: int
    synops: int
    V: Array
    J: Array
    S: NDArray[np.uint8]
    U: Array
    late: Array
    output: Array

    @classmethod
    def at_rest(cls, plan: Plan) -> NetworkState:
        """Zeros, to be filled."""
        arrays: dict[str, Any] = {name: np.zeros(count, kind) for name, kind, count in _parts(plan)}
        return cls(0, 0, **arrays)

    def to_bytes(self, plan: Plan) -> bytes:
        """The layout above.

        Raises:
            UsageError: it is that of several samples side by side.
        """
        for (name, _, count), values in zip(_parts(plan), self._arrays(), strict=True):
            if values.size != count:
                raise UsageError(
                    "only one sample has a state", got=f"{values.size} {name}", expected=count
                )
        header = _HEADER.pack(_MAGIC, _VERSION, network_hash(plan), self.steps, self.synops)
        parts = [
            np.ascontiguousarray(values, kind).tobytes()
            for (_, kind, _), values in zip(_parts(plan), self._arrays(), strict=True)
        ]
        content = b"".join([header, *parts])
        return content + _CHECK.pack(zlib.crc32(content))

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.V, self.J, self.S, self.U, self.late, self.output

    @classmethod
    def from_bytes(cls, plan: Plan, state: bytes) -> NetworkState:
        """Reads what `to_bytes` wrote.

        Raises:
            UsageError: not bytes. DataError: damaged, of another version, or of another network.
        """
        if not isinstance(state, bytes | bytearray | memoryview):
            raise UsageError("state is not bytes", got=type(state).__name__)
        content = bytes(state)
        if len(content) < _HEADER.size + _CHECK.size or content[:8] != _MAGIC:
            raise DataError("not the state of a network", got=f"{len(content)} bytes")
        _, version, network, steps, synops = _HEADER.unpack_from(content)
        if version != _VERSION:
            raise DataError("state of another version", got=version, expected=_VERSION)
        if network != network_hash(plan):
            raise DataError("state of another network", where=plan.source)
        size = _HEADER.size + _CHECK.size
        size += sum(np.dtype(kind).itemsize * count for _, kind, count in _parts(plan))
        if len(content) != size:
            raise DataError("state is damaged", got=f"{len(content)} bytes", expected=size)
        if _CHECK.unpack(content[-_CHECK.size :])[0] != zlib.crc32(content[: -_CHECK.size]):
            raise DataError("state is damaged", got="another checksum")
        arrays: dict[str, Any] = {}
        at = _HEADER.size
        for name, kind, count in _parts(plan):
            values = np.frombuffer(content, kind, count, at)
            arrays[name] = values.astype(values.dtype.newbyteorder("="))
            at += values.nbytes
        if arrays["S"].max(initial=0) > 1:
            raise DataError("state is damaged", got="spikes that are neither 0 nor 1")
        return cls(steps, synops, **arrays)


def network_hash(plan: Plan) -> bytes:
    """SHA-256 of all that decides what a network does: not of its file or metadata."""
    found = _HASHES.get(plan)
    if found is None:
        digest = hashlib.sha256()
        for part in _described((plan.input_shape, plan.nodes)):
            digest.update(part)
        found = _HASHES[plan] = digest.digest()
    return found


def _parts(plan: Plan) -> list[tuple[str, str, int]]:
    """(attribute, type, length) of the arrays in order."""
    neurons = [node for node in plan.nodes if isinstance(node, Neuron)]
    sizes = [math.prod(node.output_shape) for node in neurons]
    synaptic = [
        n for n, node in zip(sizes, neurons, strict=True) if node.synaptic_decay is not None
    ]
    late = sum(2 * math.prod(plan.nodes[index].output_shape) for index in plan.late)
    for node in plan.nodes:
        if isinstance(node, Delay):
            late += int(node.steps.max()) * math.prod(node.output_shape)
    outputs = math.prod(plan.output_shape)
    has_neurons = plan.output_neuron is not None
    return [
        ("V", "<f4", sum(sizes)),
        ("J", "<f4", sum(synaptic)),
        ("S", "|u1", sum(sizes)),
        ("U", "<f4", outputs if has_neurons else 0),
        ("late", "<f4", late),
        ("output", "<f4", 0 if has_neurons else outputs),
    ]


def _described(value: object) -> Iterator[bytes]:
    """A value in bytes that no other value has, the same on every machine."""
    if isinstance(value, np.ndarray):
        yield f"array {value.dtype.newbyteorder('<').str} {value.shape}:".encode()
        yield from _elements(value)
    elif is_dataclass(value):
        yield type(value).__name__.encode()
        for each in fields(value):
            found = getattr(value, each.name)
            # What is as it is by default is not said: a kind of node may come to know more.
            if not isinstance(found, np.ndarray) and found == each.default:
                continue
            yield f" {each.name}=".encode()
            yield from _described(found)
    elif isinstance(value, tuple):
        yield f"({len(value)}".encode()
        for item in value:
            yield from _described(item)
    elif isinstance(value, bool | str | None):
        yield f"{value!r};".encode("utf-8", "surrogatepass")
    elif isinstance(value, int | np.integer):
        yield f"{int(value)};".encode()
    elif isinstance(value, float | np.floating):
        yield f"{float(value).hex()};".encode()
    else:
        raise TypeError(f"{type(value).__name__} is not a part of a plan")


def _elements(array: NDArray[Any]) -> Iterator[bytes]:
    """Elements in order, some at a time: a view of one value may stand for millions."""
    if array.size > _CHUNK and array.ndim > 1:
        for row in array:
            yield from _elements(row)
        return
    flat = array if array.ndim == 1 else array.reshape(-1)
    for begin in range(0, flat.size, _CHUNK):
        part = flat[begin : begin + _CHUNK]
        yield part.astype(part.dtype.newbyteorder("<")).tobytes()
