"""A plan -> the network of the native module, node by node.

A chain is given as it runs: weights wait for the neurons behind them, pools for the weights. A
network with branches also has numbers for the signals that several nodes see, or that one sees a
step later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.model.grid import LayerGrid
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Shape,
    Sum,
)
from mpsl_runtime.run.checks import in_one_piece

__all__ = ["extents", "native_network", "passed_on"]

Array = NDArray[np.float32]
Extent = tuple[int, int, int]


def native_network(plan: Plan, threads: int, grids: Mapping[str, LayerGrid]) -> _native.Network:
    """The finished network.

    Args:
        plan: what it runs. threads: that share a step.
        grids: of the layers that are summed in whole numbers, by name.

    Raises:
        ValueError, MemoryError: as the native module does.
    """
    network = _native.Network(*_extent(plan.input_shape), threads)
    if plan.is_chain:
        for node in plan.nodes:
            _add(network, node, grids.get(node.name))
    else:
        _add_branches(network, plan, grids)
    network.finish()
    return network


def _add_branches(network: _native.Network, plan: Plan, grids: Mapping[str, LayerGrid]) -> None:
    found = extents(plan)
    numbers = {-1: 0}
    alone = passed_on(plan)
    late = {
        index: network.add_late(found[index], _spikes(plan.nodes[index])) for index in plan.late
    }
    for index, (node, sources) in enumerate(zip(plan.nodes, plan.wiring, strict=True)):
        if sources != ((index - 1, False),):
            seen = [late[i] if delayed else numbers[i] for i, delayed in sources]
            network.see(seen, _extent(node.input_shape))
        _add(network, node, grids.get(node.name))
        if not alone[index]:
            numbers[index] = network.mark()
    for index, number in late.items():
        network.follow(number, numbers[index])


def passed_on(plan: Plan) -> tuple[bool, ...]:
    """For each node whether its output is seen by the next node alone, and by it in this step, as
    in a chain: then it needs no number. The last node's output is the network's."""
    seen_by: list[list[int]] = [[] for _ in plan.nodes]
    for index, row in enumerate(plan.wiring):
        for i, _ in row:
            if i >= 0:
                seen_by[i].append(index)
    return tuple(
        not heads or (heads == [index + 1] and plan.wiring[index + 1] == ((index, False),))
        for index, heads in enumerate(seen_by)
    )


def extents(plan: Plan) -> tuple[Extent, ...]:
    """The form in which the native module holds each node's output: flattening changes none."""
    found: dict[int, Extent] = {-1: _extent(plan.input_shape)}
    for index, (node, sources) in enumerate(zip(plan.nodes, plan.wiring, strict=True)):
        if isinstance(node, Convolution | Dense | Pooling):
            found[index] = _extent(node.output_shape)
        elif len(sources) > 1 or sources[0][0] not in found:
            found[index] = _extent(node.input_shape)
        else:
            found[index] = found[sources[0][0]]
    return tuple(found[i] for i in range(len(plan.nodes)))


def _extent(shape: Shape) -> Extent:
    channels, rows, columns = (*shape, 1, 1)[:3]
    return channels, rows, columns


def _spikes(node: Node) -> bool:
    """Whether the native module holds a node's output as bits."""
    return isinstance(node, Neuron) and node.is_binary


def _add(network: _native.Network, node: Node, grid: LayerGrid | None) -> None:
    if isinstance(node, Convolution):
        _add_convolution(network, node, grid)
    elif isinstance(node, Dense):
        bias = in_one_piece(node.bias)
        if grid is None:
            network.add_dense(in_one_piece(node.weight), bias)
        else:
            network.add_int8_dense(in_one_piece(grid.weight), grid.weight_quantum, bias)
    elif isinstance(node, Pooling):
        network.add_pooling(node.kernel, node.stride, node.padding, node.scale)
    elif isinstance(node, Scaling):
        network.add_scaling(_values(node.scale))
    elif isinstance(node, Neuron):
        _add_neurons(network, node)
    elif isinstance(node, Delay):
        network.add_delay(in_one_piece(node.steps.astype(np.int32)))
    elif not isinstance(node, Flatten | Sum):  # the order in memory is that of the flat vector
        raise TypeError(f"{type(node).__name__} is not a node of a plan")


def _add_convolution(network: _native.Network, node: Convolution, grid: LayerGrid | None) -> None:
    (top, bottom), (left, right) = node.padding
    bias = in_one_piece(node.bias)
    shape = (node.stride, (top, bottom, left, right), node.dilation, node.groups)
    if grid is None:
        network.add_convolution(in_one_piece(node.weight), bias, *shape)
    else:
        weight = in_one_piece(grid.weight)
        network.add_int8_convolution(weight, grid.weight_quantum, bias, *shape)


def _add_neurons(network: _native.Network, node: Neuron) -> None:
    network.add_neurons(
        kind=node.kind,
        reset=node.reset,
        decay=_values(node.decay),
        threshold=_values(node.threshold),
        reset_value=_values(node.reset_value),
        gain=_values(node.gain) if node.has_input_map else None,
        leak=_values(node.leak) if node.has_input_map else None,
        synaptic_decay=None if node.synaptic_decay is None else _values(node.synaptic_decay),
        synaptic_gain=None if node.synaptic_gain is None else _values(node.synaptic_gain),
        initial=None if node.initial is None else _values(node.initial),
        drop=None if node.drop is None else _values(node.drop),
        many=node.many,
    )


def _values(array: Array) -> Array:
    """One value where the array is a view of one."""
    return in_one_piece(array if any(array.strides) else array[(slice(1),) * array.ndim])
