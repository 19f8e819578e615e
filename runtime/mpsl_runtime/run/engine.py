"""The event-driven engine: work grows with the spikes (ENGINE.md).

The same interface and the same numbers as `reference.Reference`, computed in C++. Sums of weights
that are multiples of a power of two are equal bit for bit; other weights are added in another
order, so that a membrane potential may differ in its last bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.grid import LayerGrid, is_int8, layer_grids
from mpsl_runtime.model.input_bound import InputBound
from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.run.checks import (
    checked,
    checked_addresses,
    checked_frames,
    checked_weight,
    in_one_piece,
)
from mpsl_runtime.run.engine_memory import check_engine
from mpsl_runtime.run.memory import check_memory, check_output, limit_or_default
from mpsl_runtime.run.native_network import native_network, passed_on
from mpsl_runtime.run.state import NetworkState

__all__ = ["Engine"]

Array = NDArray[np.float32]
_MOST_THREADS = 1024


class Engine:
    """Runs a plan, one step at a time.

    The environment variable `MPSL_ISA` (`baseline`, `v3`, `v4`, `vnni`) chooses the instruction
    set; by default it is the best that the processor has. Where so much fires that lists of spikes
    cost more than they save, dense loops take a layer's step: above a share of firing neurons that
    is measured while the engine is made for int8 weights, whose sums are the same both ways, and
    fixed for float32 ones, whose rounding a clock must not decide; `MPSL_CROSSOVER` (0 … 1) sets
    it.

    An int8 model refuses input that its proof does not cover (DataError, `input_bound`). Its layers
    behind spikes are summed in whole numbers, from weights of one byte; one whose proof fails runs
    as a float32 model.

    Attributes:
        plan: what it runs.
    """

    def __init__(self, plan: Plan, *, threads: int = 1, memory_limit: int | None = None) -> None:
        """Packs the weights.

        Args:
            plan: what to run.
            threads: that share the output channels of a layer, in blocks of 64; a layer of one
                block is one thread's work. The same bits from any number. They sleep between
                steps, and end with the engine.
            memory_limit: bytes that the model may take, with all engines forked from this one;
                None: 2 GiB, or what `memory.memory_limited` says. What it may take is known before
                anything is taken.

        Raises:
            ModelError: the model may take more, or its steps take minutes.
            UsageError: `threads` is not 1 … 1024, or the system refuses them; or `MPSL_ISA` names
                an instruction set that is not known or not there, or `MPSL_CROSSOVER` no share.
        """
        if not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS:
            raise UsageError(
                "number of threads", got=threads, expected=f"1 … {_MOST_THREADS}", where="threads"
            )
        self.plan = plan
        self._threads = threads
        self._limit = limit_or_default(memory_limit)
        self._bound = InputBound(plan.metadata)
        grids = self._grids()
        self._family: WeakSet[Engine] = WeakSet([self])
        self._network = _made(lambda: native_network(plan, threads, grids), plan.source)
        neurons = [node for node in plan.nodes if isinstance(node, Neuron)]
        # Index among all populations, and shape, of those in `plan.spiking`.
        self._spiking = [
            (i, node.output_shape) for i, node in enumerate(neurons) if node.kind != "integrating"
        ]
        # Of the population whose output is that of the network; None where another node's is.
        self._last = next((i for i, node in enumerate(neurons) if node is plan.output_neuron), None)
        if self._last is not None:
            self._network.keep_membrane(self._last)
        self._output = np.zeros(math.prod(plan.output_shape), np.float32)
        self._neurons = sum(math.prod(node.output_shape) for node in neurons)
        self._outputs = math.prod(plan.output_shape)
        self._inputs = math.prod(plan.input_shape)

    @property
    def isa(self) -> str:
        """The instruction set that is used: `baseline`, `v3`, `v4` or `vnni`."""
        return self._network.isa

    @property
    def memory_bytes(self) -> int:
        """Bytes held for weights, state and lists."""
        return self._network.bytes

    @property
    def shared_bytes(self) -> int:
        """Of these, what all engines that were forked from one another hold together: weights, and
        all else that never changes."""
        return self._network.shared_bytes

    @property
    def crossovers(self) -> tuple[float, ...]:
        """For each population: the share of firing neurons before it above which dense loops read
        them; 1 where there are none (behind events; narrow, grouped and fully connected layers)."""
        return tuple(self._network.crossovers)

    @property
    def synops(self) -> int:
        """Synaptic operations since the last reset: for each spike (or input that is not zero)
        the weights that it reaches, counted through pooling."""
        return self._network.synops

    @property
    def fired(self) -> tuple[int, ...]:
        """Of each of `plan.spiking`: how many neurons fired in the last step."""
        counts = self._network.fired()
        return tuple(counts[index] for index, _ in self._spiking)

    @property
    def steps(self) -> int:
        """Steps since the last reset."""
        return self._network.steps

    def state(self) -> bytes:
        """What `restore` goes on from: V, J, S, U and the counters, see `run.state`."""
        held = NetworkState.at_rest(self.plan)
        steps, synops = self._network.state(
            self._last or 0, held.V, held.J, held.S, held.U, held.late
        )
        output = held.output if self._last is not None else self._output
        return replace(held, steps=steps, synops=synops, output=output).to_bytes(self.plan)

    def restore(self, state: bytes) -> None:
        """Goes on where `state` was taken, from any engine or reference of the same network: bit
        for bit, with any number of threads and any instruction set.

        Raises:
            DataError: the state is damaged, or that of another network; nothing has changed.
        """
        given = NetworkState.from_bytes(self.plan, state)
        self._network.restore(
            self._last or 0, given.V, given.J, given.S, given.U, given.late,
            given.steps, given.synops,
        )  # fmt: skip
        if self._last is None:
            self._output = given.output

    def fork(self) -> Engine:
        """Another engine of the same network, at rest, which shares its weights.

        Raises:
            ModelError: all of them together would take more than the limit.
            UsageError: the system refuses more threads, or memory.
        """
        copies = len(self._family) + 1
        check_memory(self._memory, self._limit, self.plan.source, copies=copies)
        engine = copy.copy(self)
        engine._network = _made(self._network.fork, self.plan.source)
        engine._output = np.zeros(self._outputs, np.float32)
        self._family.add(engine)
        return engine

    def keep_membranes(self) -> None:
        """U of every spiking population is kept from now on, for `population`."""
        for index, _ in self._spiking:
            self._network.keep_membrane(index)

    def population(self, index: int) -> tuple[Array, Array]:
        """U before its reset, and S as 0 and 1, of `plan.spiking[index]` in the last step; float32
        [*shape]. Needs `keep_membranes` before that step."""
        number, shape = self._spiking[index]
        U, S = np.empty(shape, np.float32), np.empty(shape, np.uint8)
        self._network.membrane(number, U)
        self._network.spikes(number, S)
        return U, S.astype(np.float32)

    def replace_weight(self, name: str, weight: Array) -> None:
        """Another weight for a node, from the next step on; `plan` keeps the first one. Engines
        that were forked before keep theirs.

        Args:
            name: of a convolution or a fully connected node. weight: float32, of its shape.

        Raises:
            UsageError: no such node, an int8 model, a weight of another shape or not finite.
        """
        index, array = checked_weight(self.plan, name, weight)
        following = self.plan.nodes[index + 1 : index + 2]
        if not (following and isinstance(following[0], Neuron) and passed_on(self.plan)[index]):
            raise UsageError("weights have no neurons of their own behind them",
                             where=f"{name} of {self.plan.source}")  # fmt: skip
        before = sum(isinstance(node, Neuron) for node in self.plan.nodes[:index])
        try:
            self._network.replace_weights(before, in_one_piece(array))
        except ValueError as error:
            raise UsageError(str(error), where=f"{name} of {self.plan.source}") from error

    def reset(self) -> None:
        """Sets every V to its start and the counter to 0."""
        self._network.reset()
        self._output = np.zeros(self._outputs, np.float32)

    def step(self, frame: Array) -> Array:
        """Advances one step.

        Args:
            frame: float32 [*input_shape], finite.

        Returns:
            float32 [K]: spikes of the last population, or its U where it does not fire.

        Raises:
            UsageError: the frame has another shape or is not finite; the state is as before.
        """
        array = np.asarray(frame)
        if array.dtype != np.float32 or array.shape != self.plan.input_shape:
            array = checked(array, self.plan.input_shape)
        self._bound.check(array)
        output = np.empty(self._outputs, np.float32)
        try:
            self._network.step(in_one_piece(array), output)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self._output = output
        return output

    def step_sparse(self, address: NDArray[np.int32], value: Array) -> Array:
        """Advances one step on the inputs that are not zero.

        Args:
            address: int32 [n], flat index into the input; value: float32 [n], finite. In any
                order; values of one address add up.

        Raises:
            UsageError: an address outside the input, or a value that is not finite; the state is
                as before.
        """
        address, value = checked_addresses(address, value, self._inputs)
        self._bound.check(value)
        output = np.empty(self._outputs, np.float32)
        self._network.step_sparse(in_one_piece(address), in_one_piece(value), output)
        self._output = output
        return output

    def run(self, frames: Array) -> Array:
        """Resets, then advances through frames [T, *input_shape] -> float32 [T, K].

        Frames that are one frame, broadcast over T, are recognised: their current is computed
        once.
        """
        array = self._sequence(frames)
        steps = len(array)
        constant = steps > 1 and array.strides[0] == 0
        self._bound.check(array[:1] if constant else array)
        check_output(steps * self._outputs, 4, self._limit)
        output = np.empty((steps, self._outputs), np.float32)
        self._network.run(in_one_piece(array[0] if constant else array), steps, constant, output)
        self._output = output[-1] if steps else np.zeros(self._outputs, np.float32)
        return output

    def record(self, frames: Array) -> list[NDArray[np.bool_]]:
        """Runs frames [T, *input_shape]; the spikes of each of `plan.spiking`: bool [T, *shape]."""
        array = self._sequence(frames)
        check_output(len(array) * self._neurons, 1, self._limit)
        spikes = [np.zeros((len(array), *shape), np.uint8) for _, shape in self._spiking]
        self.reset()
        for t, frame in enumerate(array):
            self.step(frame)
            for (index, _), recorded in zip(self._spiking, spikes, strict=True):
                self._network.spikes(index, recorded[t])
        return [recorded.view(np.bool_) for recorded in spikes]

    def record_membrane(self, frames: Array) -> list[Array]:
        """Runs frames [T, *input_shape]; U of each of `plan.spiking`, before its reset.

        Returns:
            float32 [T, *shape] for each; a Threshold, which has no U, gives zeros.
        """
        array = self._sequence(frames)
        check_output(len(array) * self._neurons, 4, self._limit)
        membranes = [np.zeros((len(array), *shape), np.float32) for _, shape in self._spiking]
        for index, _ in self._spiking:
            self._network.keep_membrane(index)
        self.reset()
        for t, frame in enumerate(array):
            self.step(frame)
            for (index, _), recorded in zip(self._spiking, membranes, strict=True):
                self._network.membrane(index, recorded[t])
        return membranes

    @property
    def membrane(self) -> Array:
        """U of the last population at the last step, before its reset: float32 [K].

        Where the output is that of another node, its values.
        """
        if self._last is None:
            return self._output.copy()
        output = np.empty(self._outputs, np.float32)
        self._network.membrane(self._last, output)
        return output

    def _grids(self) -> dict[str, LayerGrid]:
        """The layers of an int8 model whose sums are proven exact, by name; else none. Refuses a
        model that is too large."""
        plan, threads, limit = self.plan, self._threads, self._limit
        int8 = is_int8(plan)
        self._memory = check_engine(plan, threads=threads, int8=int8, limit=limit)
        if not int8:
            return {}
        try:
            return {grid.name: grid for grid in layer_grids(plan)}
        except ModelError:
            self._memory = check_engine(plan, threads=threads, limit=limit)
            return {}

    def _sequence(self, frames: Array) -> Array:
        """frames [T, *input_shape], checked."""
        return checked_frames(frames, self.plan)


def _made(make: Callable[[], _native.Network], source: str) -> _native.Network:
    """A network, or the one line that says why not."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(str(error), where=source) from error
    except MemoryError:
        raise UsageError("not enough memory for this model", where=source) from None
