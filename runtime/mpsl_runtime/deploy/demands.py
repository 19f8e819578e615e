"""What a network asks of a chip: its layers, in the terms in which chips state their limits.

A layer is one weighted node, the neurons behind it and the pooling behind those. A fully connected
layer behind a flattened image is a convolution as large as that image: chips with kernels store it
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Neuron, Plan, Pooling
from mpsl_runtime.run.reference import fanout

__all__ = ["MEASURES", "Demands", "Layer", "Measure", "demands_of"]

Value = int | str
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One weighted node and what follows it.

    Attributes:
        name: of the weighted node. is_dense: fully connected.
        channels: of its input. filters: of its output.
        kernel, stride, padding: (rows, columns); padding the larger side.
        map_shape: rows and columns of its output, before pooling; (1, 1) of a fully connected one.
        inputs: elements of its input. weights: that are stored; biases: one a filter.
        weight_bits: 8 of an int8 layer, else 32.
        synapses: connections, each counted once for every pair of neurons.
        fan_in, fan_out: connections of one neuron behind it, and of one element before it; largest.
        pools: sides of the sum pooling behind its neurons. feeds: weighted layers behind it.
        neurons: how many; model: IF, LIF, CubaLIF, LI, CubaLI, I or threshold, and `none`.
        is_first, is_last: nothing weighted before it, or behind it.
    """

    name: str
    is_dense: bool
    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    map_shape: tuple[int, int]
    inputs: int
    weights: int
    biases: int
    weight_bits: int
    synapses: int
    fan_in: int
    fan_out: int
    pools: tuple[int, ...]
    feeds: int
    neurons: int
    model: str
    is_first: bool
    is_last: bool

    @property
    def stored_bytes(self) -> int:
        """Weights at their bits, biases and potentials at four bytes each."""
        return -(-self.weights * self.weight_bits // 8) + 4 * (self.biases + self.neurons)


@dataclass(frozen=True)
class Demands:
    """A whole network: the shape of one step's input, and its layers in order."""

    input_shape: Shape
    layers: tuple[Layer, ...]

    @property
    def neurons(self) -> int:
        """Of all populations behind weights."""
        return sum(layer.neurons for layer in self.layers)


def demands_of(plan: Plan, *, weight_bits: int | None = None) -> Demands:
    """The layers of a network.

    Args:
        weight_bits: as if every layer were stored with so many; None: as it is.
    """
    graph = _Graph(plan)
    weighted = [i for i, n in enumerate(plan.nodes) if isinstance(n, Convolution | Dense)]
    behind = {i: graph.weighted_behind(i) for i in weighted}
    fed = {j for found in behind.values() for j in found}
    layers = tuple(
        _layer(plan, graph, i, behind[i], is_first=i not in fed, bits=weight_bits) for i in weighted
    )
    return Demands(plan.input_shape, layers)


class _Graph:
    """Who sees whom in a plan."""

    def __init__(self, plan: Plan) -> None:
        self.nodes = plan.nodes
        self.sources = [[index for index, _ in sources] for sources in plan.wiring]
        self.consumers: dict[int, list[int]] = {}
        for i, sources in enumerate(self.sources):
            for source in sources:
                self.consumers.setdefault(source, []).append(i)

    def walk(self, start: int, stop: Callable[[int], bool]) -> Iterator[int]:
        """Every node behind `start`, each once, not going on behind those where `stop` says so."""
        waiting, seen = list(self.consumers.get(start, [])), set[int]()
        while waiting:
            index = waiting.pop(0)
            if index not in seen:
                seen.add(index)
                yield index
                if not stop(index):
                    waiting += self.consumers.get(index, [])

    def is_weighted(self, index: int) -> bool:
        """Whether a node has weights."""
        return isinstance(self.nodes[index], Convolution | Dense)

    def weighted_behind(self, start: int) -> list[int]:
        """The weighted nodes that the output of `start` reaches without passing another one."""
        return [i for i in self.walk(start, self.is_weighted) if self.is_weighted(i)]

    def shape_before(self, index: int) -> Shape:
        """The input of a node before it was flattened."""
        node = self.nodes[index]
        sources = self.sources[index]
        while len(sources) == 1 and sources[0] >= 0:
            before = self.nodes[sources[0]]
            if not isinstance(before, Flatten):
                break
            node, sources = before, self.sources[sources[0]]
        return node.input_shape


def _layer(
    plan: Plan, graph: _Graph, index: int, behind: list[int], *, is_first: bool, bits: int | None
) -> Layer:
    node = plan.nodes[index]
    if not isinstance(node, Convolution | Dense):
        raise TypeError(f"{type(node).__name__} has no weights")
    between = [
        plan.nodes[i] for i in graph.walk(index, graph.is_weighted) if not graph.is_weighted(i)
    ]
    neuron = next((n for n in between if isinstance(n, Neuron)), None)
    pools = tuple(max(n.kernel) for n in between if isinstance(n, Pooling))
    shape = graph.shape_before(index)
    reach = fanout(node)
    is_dense = isinstance(node, Dense)
    image = shape if len(shape) == 3 else (math.prod(shape), 1, 1)
    if isinstance(node, Convolution):
        kernel, stride = (node.weight.shape[2], node.weight.shape[3]), node.stride
        padding = (max(node.padding[0]), max(node.padding[1]))
        map_shape = (node.output_shape[1], node.output_shape[2])
    else:
        kernel, stride, padding, map_shape = (image[1], image[2]), (1, 1), (0, 0), (1, 1)
    stored = 8 if node.weight_grid is not None else 32
    return Layer(
        name=node.name,
        is_dense=is_dense,
        channels=image[0],
        filters=node.weight.shape[0],
        kernel=kernel,
        stride=stride,
        padding=padding,
        map_shape=map_shape,
        inputs=math.prod(node.input_shape),
        weights=node.weight.size,
        biases=node.bias.size,
        weight_bits=bits or stored,
        synapses=int(reach.sum()),
        fan_in=math.prod(node.weight.shape[1:]),
        fan_out=int(reach.max()),
        pools=pools,
        feeds=len(behind),
        neurons=0 if neuron is None else math.prod(neuron.output_shape),
        model="none" if neuron is None else _model(neuron),
        is_first=is_first,
        is_last=not behind,
    )


def _model(neuron: Neuron) -> str:
    """The neuron's name in NIR."""
    if neuron.kind == "threshold":
        return "threshold"
    fires = neuron.kind == "spiking"
    if neuron.synaptic_decay is not None:
        return "CubaLIF" if fires else "CubaLI"
    if np.all(neuron.decay == 1):
        return "IF" if fires else "I"
    return "LIF" if fires else "LI"


@dataclass(frozen=True)
class Measure:
    """One quantity that a chip may limit.

    Attributes:
        words: what it is called. unit: behind its values, may be empty.
        values: of a network: (where, value), `where` a layer's name or empty for the whole network.
    """

    words: str
    unit: str
    values: Callable[[Demands], list[tuple[str, Value]]]


def _each(value: Callable[[Layer], Value | None]) -> Callable[[Demands], list[tuple[str, Value]]]:
    """A measure of each layer that has it."""

    def values(demands: Demands) -> list[tuple[str, Value]]:
        found = [(layer.name, value(layer)) for layer in demands.layers]
        return [(name, value) for name, value in found if value is not None]

    return values


def _many(
    value: Callable[[Layer], tuple[int, ...]],
) -> Callable[[Demands], list[tuple[str, Value]]]:
    """A measure that a layer has several times, such as the stride of rows and of columns."""
    return lambda demands: [
        (layer.name, one) for layer in demands.layers for one in sorted(set(value(layer)))
    ]


def _whole(value: Callable[[Demands], int]) -> Callable[[Demands], list[tuple[str, Value]]]:
    """A measure of the whole network."""
    return lambda demands: [("", value(demands))]


MEASURES: dict[str, Measure] = {
    "inputs": Measure("inputs", "", _whole(lambda d: math.prod(d.input_shape))),
    "input_channels": Measure(
        "input channels", "", _whole(lambda d: d.input_shape[0] if len(d.input_shape) == 3 else 1)
    ),
    "input_side": Measure("input side", "pixels", _whole(lambda d: max(d.input_shape[-2:]))),
    "outputs": Measure(
        "output neurons",
        "",
        _whole(lambda d: sum(n.neurons or n.filters for n in d.layers if n.is_last)),
    ),
    "neurons": Measure("neurons", "", _whole(lambda d: d.neurons)),
    "hidden_neurons": Measure(
        "hidden neurons", "", _whole(lambda d: sum(n.neurons for n in d.layers if not n.is_last))
    ),
    "weights": Measure("weights", "", _whole(lambda d: sum(n.weights for n in d.layers))),
    "synapses": Measure("synapses", "", _whole(lambda d: sum(n.synapses for n in d.layers))),
    "weight_bits": Measure("weight", "bits", _each(lambda n: n.weight_bits)),
    "biases": Measure("biases", "", _each(lambda n: n.biases)),
    "channels": Measure("channels", "", _each(lambda n: n.filters)),
    "kernel": Measure("kernel side", "pixels", _each(lambda n: max(n.kernel))),
    "stride": Measure("stride", "", _many(lambda n: n.stride)),
    "padding": Measure("padding", "", _many(lambda n: n.padding)),
    "pool": Measure("sum pool", "", _many(lambda n: n.pools)),
    "map_side": Measure("output map side", "pixels", _each(lambda n: max(n.map_shape))),
    "layers_fed": Measure("layers fed", "", _each(lambda n: n.feeds)),
    "fan_in": Measure("inputs of a neuron", "", _each(lambda n: n.fan_in)),
    "fan_out": Measure(
        "targets of a neuron", "", _each(lambda n: None if n.is_first else n.fan_out)
    ),
    "dense_inputs": Measure(
        "inputs of a dense layer", "", _each(lambda n: n.inputs if n.is_dense else None)
    ),
    "neuron_model": Measure("neuron", "", _each(lambda n: n.model)),
    # Ours fires once at most; a framework that sends floor(v/θ) would need more.
    "spikes_a_step": Measure("spikes of a neuron in a step", "", _each(lambda n: 1)),
}
