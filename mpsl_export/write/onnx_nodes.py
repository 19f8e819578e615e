"""The operations of one time step: each node of a plan as ONNX nodes.

Values are named after the nodes of the NIR graph: `n02_lif.v` the state between steps (also `.j`,
the synaptic current of a CubaLIF), `n02_lif.membrane` U and `n02_lif.spikes` S. The order of
operations is that of `mpsl_runtime.model.plan.Neuron`.
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
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
    Shape,
)

__all__ = ["StepGraph", "build_step", "output_names"]


@dataclass
class StepGraph:
    """A graph under construction, and the value that flows at this point."""

    value: str
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


def output_names(plan: Plan) -> list[str]:
    """Names of the outputs besides the states."""
    last = _last_neuron(plan)
    if last.kind == "integrating":
        return ["membrane"]
    if last.kind == "spiking" and plan.metadata and plan.metadata.readout == "membrane":
        return ["spikes", "membrane"]
    return ["spikes"]


def _last_neuron(plan: Plan) -> Neuron:
    return [node for node in plan.nodes if isinstance(node, Neuron)][-1]


def build_step(plan: Plan, suffix: str = "") -> StepGraph:
    """The nodes of one step; input and outputs are named with `suffix`."""
    graph = StepGraph(value=f"x{suffix}")
    for node in plan.nodes:
        _add_node(graph, node, plan)
    outputs = output_names(plan)
    graph.add("Identity", [graph.value], f"{outputs[0]}{suffix}")
    if len(outputs) > 1:
        graph.add("Identity", [f"{_last_neuron(plan).name}.membrane"], f"{outputs[1]}{suffix}")
    return graph


def _add_node(graph: StepGraph, node: Node, plan: Plan) -> None:
    name = node.name
    if isinstance(node, Convolution):
        (top, bottom), (left, right) = node.padding
        graph.add(
            "Conv",
            [
                graph.value,
                graph.array(f"{name}.weight", node.weight),
                graph.array(f"{name}.bias", node.bias),
            ],
            name,
            kernel_shape=list(node.weight.shape[2:]),
            strides=list(node.stride),
            pads=[top, left, bottom, right],
            dilations=list(node.dilation),
            group=node.groups,
        )
    elif isinstance(node, Dense):
        weight = graph.array(f"{name}.weight", node.weight)
        bias = graph.array(f"{name}.bias", node.bias)
        graph.add("Gemm", [graph.value, weight, bias], name, transB=1)
    elif isinstance(node, Pooling):
        _add_pooling(graph, node)
    elif isinstance(node, Flatten):
        graph.add("Flatten", [graph.value], name, axis=1)
    elif isinstance(node, Scaling):
        graph.add("Mul", [graph.value, graph.constant(f"{name}.scale", node.scale)], name)
    elif isinstance(node, Neuron):
        _add_neuron(graph, node)
    else:
        raise ModelError(
            "node has no ONNX form", got=type(node).__name__, where=f"{name} of {plan.source}"
        )


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


def _add_neuron(graph: StepGraph, node: Neuron) -> None:
    """One step of `mpsl_runtime.model.plan.Neuron`, operation by operation."""
    name, current = node.name, graph.value
    threshold = graph.constant(f"{name}.threshold", node.threshold)
    if node.kind == "threshold":
        fired = graph.add("GreaterOrEqual", [current, threshold], f"{name}.fired")
        graph.add("Cast", [fired], f"{name}.spikes", to=1)
        return
    if node.synaptic_decay is not None and node.synaptic_gain is not None:
        graph.states[f"{name}.j"] = node.output_shape
        decay = graph.constant(f"{name}.synaptic_decay", node.synaptic_decay)
        gain = graph.constant(f"{name}.synaptic_gain", node.synaptic_gain)
        kept = graph.add("Mul", [f"{name}.j", decay], f"{name}.j_kept")
        gained = graph.add("Mul", [current, gain], f"{name}.gained")
        current = graph.add("Add", [kept, gained], f"{name}.j_next")
    if node.has_input_map:
        gain = graph.constant(f"{name}.gain", node.gain)
        leak = graph.constant(f"{name}.leak", node.leak)
        scaled = graph.add("Mul", [current, gain], f"{name}.scaled")
        current = graph.add("Add", [scaled, leak], f"{name}.current")
    graph.states[f"{name}.v"] = node.output_shape
    decay = graph.constant(f"{name}.decay", node.decay)
    kept = graph.add("Mul", [f"{name}.v", decay], f"{name}.v_kept")
    membrane = graph.add("Add", [kept, current], f"{name}.membrane")
    if node.kind == "integrating":
        graph.add("Identity", [membrane], f"{name}.v_next")
        return
    fired = graph.add("GreaterOrEqual", [membrane, threshold], f"{name}.fired")
    if node.reset == "subtract":
        spikes = graph.add("Cast", [fired], f"{name}.spikes", to=1)
        drop = graph.add("Mul", [spikes, threshold], f"{name}.drop")
        graph.add("Sub", [membrane, drop], f"{name}.v_next")
    else:
        value = graph.constant(f"{name}.reset_value", node.reset_value)
        graph.add("Where", [fired, value, membrane], f"{name}.v_next")
        spikes = graph.add("Cast", [fired], f"{name}.spikes", to=1)
    graph.value = spikes
