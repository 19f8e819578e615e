"""The operations of one time step: each node of a plan as ONNX nodes.

Values are named after the nodes of the NIR graph: `n02_lif.v` the state between steps (also `.j`,
the synaptic current of a CubaLIF), `n02_lif.membrane` U and `n02_lif.spikes` S. The order of
operations is that of `mpsl_runtime.model.plan.Neuron`.

The weights of a layer on a grid are kept as int8 and its bias as int32, with the quantum that makes
them float32 again, which is exact: those nodes depend on no input, and stand apart (`prelude`).

All states start from 0. Of a loop the output of the step before is a state (`.late`), of a Delay
its ring (`.ring`); neurons that start elsewhere have one that says that they have begun (`.begun`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
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
from mpsl_runtime.model.quanta import integer_bias, integer_weights

__all__ = ["STATES", "StepGraph", "build_step", "output_names"]

STATES = (".v", ".j", ".late", ".ring", ".begun")
"""How the names of states end."""


@dataclass
class StepGraph:
    """A graph under construction, and the value that flows at this point.

    Attributes:
        packs: weights on a grid are kept as whole numbers.
        prelude, packed: nodes that depend on no input, and their constants.
        nodes, constants: of a step. states: by name, and their shapes.
    """

    value: str
    packs: bool = True
    prelude: list[Any] = field(default_factory=list)
    packed: dict[str, NDArray[Any]] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    states: dict[str, Shape] = field(default_factory=dict)

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One node; its output becomes the value that flows."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        self.value = output
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """An initialiser; one number where all numbers are equal, else with a batch axis."""
        if values.size and (values == values.flat[0]).all():
            values = np.asarray(values.flat[0])
        else:
            values = values[None]
        return self.array(name, values)

    def array(self, name: str, values: NDArray[Any]) -> str:
        """An initialiser, as it is."""
        self.constants[name] = values
        return name

    def weights(self, node: Convolution | Dense) -> list[str]:
        """Weight and bias of a node."""
        from onnx import helper

        name = node.name
        packed = _whole_numbers(node) if self.packs else None
        if packed is None:
            parts = {"weight": node.weight, "bias": node.bias}
            return [self.array(f"{name}.{part}", values) for part, values in parts.items()]
        weight, bias, quantum = packed
        self.packed[f"{name}.quantum"] = np.array(quantum, np.float32)
        for part, values in (("weight", weight), ("bias", bias)):
            whole, output = f"{name}.{part}_{values.dtype}", f"{name}.{part}"
            self.packed[whole] = values
            inputs = [whole, f"{name}.quantum"]
            self.prelude.append(helper.make_node("DequantizeLinear", inputs, [output], name=output))
        return [f"{name}.weight", f"{name}.bias"]


def output_names(plan: Plan) -> list[str]:
    """Names of the outputs besides the states."""
    last = plan.output_neuron
    if last is None or last.kind == "integrating":
        return ["membrane"]
    if last.kind == "spiking" and plan.metadata and plan.metadata.readout == "membrane":
        return ["spikes", "membrane"]
    return ["spikes"]


def build_step(plan: Plan, suffix: str = "", *, packs: bool = True) -> StepGraph:
    """The nodes of one step; input and outputs are named with `suffix`.

    Args:
        packs: keep weights on a grid as whole numbers. A program may be faster with float32.
    """
    graph = StepGraph(value=f"x{suffix}", packs=packs)
    values, shapes = {-1: graph.value}, {-1: plan.input_shape}
    for index, (node, sources) in enumerate(zip(plan.nodes, plan.wiring, strict=True)):
        for number, (i, delayed) in enumerate(sources):
            source = plan.nodes[i]
            value = f"{source.name}.late" if delayed else values[i]
            if (source.output_shape if delayed else shapes[i]) != node.input_shape:
                target = np.array([-1, *node.input_shape], np.int64)
                key = f"{node.name}.shape{number}"
                value = graph.add("Reshape", [value, graph.array(key, target)], f"{key}d")
            graph.value = (
                graph.add("Add", [graph.value, value], f"{node.name}.sum{number}")
                if number
                else value
            )
        _add_node(graph, node, plan)
        values[index], shapes[index] = graph.value, node.output_shape
    for index in plan.late:
        node = plan.nodes[index]
        graph.states[f"{node.name}.late"] = node.output_shape
        graph.add("Identity", [values[index]], f"{node.name}.late_next")
    outputs = output_names(plan)
    graph.add("Identity", [values[len(plan.nodes) - 1]], f"{outputs[0]}{suffix}")
    if len(outputs) > 1 and plan.output_neuron is not None:
        graph.add("Identity", [f"{plan.output_neuron.name}.membrane"], f"{outputs[1]}{suffix}")
    return graph


def _add_node(graph: StepGraph, node: Node, plan: Plan) -> None:
    name = node.name
    if isinstance(node, Convolution):
        (top, bottom), (left, right) = node.padding
        graph.add(
            "Conv",
            [graph.value, *graph.weights(node)],
            name,
            kernel_shape=list(node.weight.shape[2:]),
            strides=list(node.stride),
            pads=[top, left, bottom, right],
            dilations=list(node.dilation),
            group=node.groups,
        )
    elif isinstance(node, Dense):
        graph.add("Gemm", [graph.value, *graph.weights(node)], name, transB=1)
    elif isinstance(node, Pooling):
        _add_pooling(graph, node)
    elif isinstance(node, Flatten) and node.input_shape != node.output_shape:
        graph.add("Flatten", [graph.value], name, axis=1)
    elif isinstance(node, Flatten | Sum):
        graph.add("Identity", [graph.value], name)
    elif isinstance(node, Delay):
        _add_delay(graph, node)
    elif isinstance(node, Scaling):
        graph.add("Mul", [graph.value, graph.constant(f"{name}.scale", node.scale)], name)
    elif isinstance(node, Neuron):
        _add_neuron(graph, node)
    else:
        raise ModelError(
            "node has no ONNX form", got=type(node).__name__, where=f"{name} of {plan.source}"
        )


def _whole_numbers(
    node: Convolution | Dense,
) -> tuple[NDArray[np.int8], NDArray[np.int32], float] | None:
    """Weight and bias in quanta, and the quantum; None where they are not on a grid."""
    if node.weight_grid is None:
        return None
    try:
        weight, quantum = integer_weights(node)
        return weight, integer_bias(node), quantum
    except ModelError:  # a file says so and does not keep it: it runs, as floats
        return None


def _add_pooling(graph: StepGraph, node: Pooling) -> None:
    """A sum over windows. ONNX has only the average: times the area it is the same number when
    the area is a power of two; other windows are summed by a convolution with ones."""
    area = node.kernel[0] * node.kernel[1]
    pads = [*node.padding, *node.padding]
    window = {"kernel_shape": list(node.kernel), "strides": list(node.stride), "pads": pads}
    scale = np.float32(node.scale)
    if area & (area - 1) == 0:
        graph.add("AveragePool", [graph.value], f"{node.name}.sum", count_include_pad=1, **window)
        scale = np.float32(scale * area)
    else:
        channels = node.input_shape[0]
        ones = graph.array(f"{node.name}.ones", np.ones((channels, 1, *node.kernel), np.float32))
        graph.add("Conv", [graph.value, ones], f"{node.name}.sum", group=channels, **window)
    graph.add(
        "Mul", [graph.value, graph.constant(f"{node.name}.scale", np.asarray(scale))], node.name
    )


def _add_delay(graph: StepGraph, node: Delay) -> None:
    """Of the values [B, 1 + D, *shape], the latest first, each element takes one: the sum of all,
    but for that one times 0."""
    name, longest = node.name, int(node.steps.max())
    if not longest:
        graph.add("Identity", [graph.value], name)
        return
    graph.states[f"{name}.ring"] = (longest, *node.output_shape)
    axis = graph.array(f"{name}.axis", np.array([1], np.int64))
    now = graph.add("Unsqueeze", [graph.value, axis], f"{name}.now")
    past = graph.add("Concat", [now, f"{name}.ring"], f"{name}.past", axis=1)
    bounds = [
        graph.array(f"{name}.{key}", np.array([at], np.int64))
        for key, at in (("from", 0), ("to", longest))
    ]
    graph.add("Slice", [past, *bounds, axis], f"{name}.ring_next")
    age = np.arange(longest + 1).reshape(-1, *[1] * node.steps.ndim)
    chosen = graph.array(f"{name}.chosen", (age == node.steps).astype(np.float32)[None])
    masked = graph.add("Mul", [past, chosen], f"{name}.masked")
    graph.add("ReduceSum", [masked, axis], name, keepdims=0)


def _add_neuron(graph: StepGraph, node: Neuron) -> None:
    """One step of `mpsl_runtime.model.plan.Neuron`, operation by operation."""
    name, current = node.name, graph.value
    if node.kind == "threshold":
        threshold = graph.constant(f"{name}.threshold", node.threshold)
        fired = graph.add("GreaterOrEqual", [current, threshold], f"{name}.fired")
        graph.add("Cast", [fired], f"{name}.spikes", to=1)
        return
    if node.synaptic_decay is not None and node.synaptic_gain is not None:
        graph.states[f"{name}.j"] = node.output_shape
        decay = graph.constant(f"{name}.synaptic_decay", node.synaptic_decay)
        gain = graph.constant(f"{name}.synaptic_gain", node.synaptic_gain)
        kept = graph.add("Mul", [f"{name}.j", decay], f"{name}.j_kept")
        gained = graph.add("Mul", [current, gain], f"{name}.gained")
        current = graph.add("Sum", [kept, gained], f"{name}.j_next")
    if node.has_input_map:
        gain = graph.constant(f"{name}.gain", node.gain)
        leak = graph.constant(f"{name}.leak", node.leak)
        scaled = graph.add("Mul", [current, gain], f"{name}.scaled")
        current = graph.add("Add", [scaled, leak], f"{name}.current")
    graph.states[f"{name}.v"] = node.output_shape
    decay = graph.constant(f"{name}.decay", node.decay)
    V = f"{name}.v" if node.initial is None else _started(graph, node)
    kept = graph.add("Mul", [V, decay], f"{name}.v_kept")
    is_late = node.kind == "spiking" and node.resets_late
    gathered = f"{name}.gathered" if is_late else f"{name}.membrane"
    # Not Add: ONNX Runtime makes one operation of a Conv and an Add behind it, which adds the
    # products to V one by one and so rounds otherwise.
    membrane = graph.add("Sum", [kept, current], gathered)
    if node.kind == "integrating":
        graph.add("Identity", [membrane], f"{name}.v_next")
        return
    if is_late:
        _add_spikes(graph, node, V, membrane, f"{name}.late_", f"{name}.membrane")
        membrane = f"{name}.membrane"
        graph.add("Identity", [membrane], f"{name}.v_next")
        graph.value = _add_count(graph, node, _add_fired(graph, node, membrane, f"{name}."))
    else:
        graph.value = _add_spikes(graph, node, membrane, membrane, f"{name}.", f"{name}.v_next")


def _add_spikes(graph: StepGraph, node: Neuron, level: str, U: str, prefix: str, after: str) -> str:
    """The spikes that fall at `level`, and what they leave of U, as `after`."""
    fired = _add_fired(graph, node, level, prefix)
    if node.reset in ("subtract", "subtract-undecayed"):
        spikes = _add_count(graph, node, fired)
        drop = graph.add("Mul", [spikes, _taken(graph, node)], f"{prefix}drop")
        graph.add("Sub", [U, drop], after)
        return spikes
    value = graph.constant(f"{node.name}.reset_value", node.reset_value)
    graph.add("Where", [fired.name, value, U], after)
    return _add_count(graph, node, fired)


@dataclass(frozen=True)
class _Fired:
    """Which neurons reach their threshold: the value's name, at which U, how others are named."""

    name: str
    level: str
    prefix: str


def _add_fired(graph: StepGraph, node: Neuron, level: str, prefix: str) -> _Fired:
    threshold = graph.constant(f"{node.name}.threshold", node.threshold)
    return _Fired(graph.add("GreaterOrEqual", [level, threshold], f"{prefix}fired"), level, prefix)


def _add_count(graph: StepGraph, node: Neuron, fired: _Fired) -> str:
    """How often each neuron fires."""
    prefix = fired.prefix
    if not node.many:
        return graph.add("Cast", [fired.name], f"{prefix}spikes", to=1)
    ratio = graph.add("Div", [fired.level, _taken(graph, node)], f"{prefix}ratio")
    whole = graph.add("Floor", [ratio], f"{prefix}whole")
    none = graph.array(f"{node.name}.none", np.zeros((), np.float32))
    return graph.add("Where", [fired.name, whole, none], f"{prefix}spikes")


def _taken(graph: StepGraph, node: Neuron) -> str:
    """What one spike takes from U."""
    if node.drop is None:
        return graph.constant(f"{node.name}.threshold", node.threshold)
    return graph.constant(f"{node.name}.drop_of_spike", node.drop)


def _started(graph: StepGraph, node: Neuron) -> str:
    """V, and in the first step what it starts from."""
    name = node.name
    graph.states[f"{name}.begun"] = (1,) * len(node.output_shape)
    one = graph.array(f"{name}.one", np.ones((), np.float32))
    initial = graph.constant(f"{name}.initial", np.asarray(node.initial))
    zero = graph.array(f"{name}.zero", np.zeros((), np.float32))
    begun = graph.add("Greater", [f"{name}.begun", zero], f"{name}.has_begun")
    graph.add("Max", [f"{name}.begun", one], f"{name}.begun_next")
    return graph.add("Where", [begun, f"{name}.v", initial], f"{name}.v_now")
