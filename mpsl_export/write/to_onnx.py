"""Writes a NIR graph as ONNX, node by node with `onnx.helper`, opset 17.

Two graphs (DESIGN §7): `step` takes x and every state and gives the output spikes and every next
state, for streams; `sequence` runs that same graph over T steps in one Scan. T and the batch are
dynamic in both. The order of operations is that of `mpsl_runtime.model.plan.Neuron`.

Values are named after the nodes of the NIR graph: `n02_lif.v` the state between steps (also `.j`,
the synaptic current of a CubaLIF), `n02_lif.membrane` U and `n02_lif.spikes` S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
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

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "sequence_model", "step_model", "step_path", "write_onnx"]

OPSET = 17
# The format version that came with opset 17: readers of that time refuse a newer one.
IR_VERSION = 8


@dataclass
class _Graph:
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


def step_model(plan: Plan) -> onnx.ModelProto:
    """The step graph: (x, every state) → (spikes, every next state).

    x is [B, C, H, W], a state `….v` has the shape of its population behind B, and comes back as
    `….v_next`. A model that is read out by membrane potential has one more output, `membrane`.

    Raises:
        ModelError: a node that ONNX export does not know, by name.
    """
    built = _build(plan)
    return _model(plan, _step_graph(plan, built, "step"))


def sequence_model(plan: Plan) -> onnx.ModelProto:
    """The sequence graph: x [T, B, C, H, W] → spikes [T, B, K], states starting from zero.

    A model that is read out by membrane potential has one more output, `membrane` [T, B, K].

    Raises:
        ModelError: a node that ONNX export does not know, by name.
    """
    from onnx import TensorProto, helper, numpy_helper

    # Names inside a body may not repeat those around it.
    built = _build(plan, suffix="_t")
    body = _step_graph(plan, built, "body", suffix="_t", states_first=True)
    outputs = _outputs(plan)
    constants: dict[str, NDArray[Any]] = {
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["x"], ["x.shape"], name="x.shape"),
        helper.make_node("Slice", ["x.shape", "one", "two"], ["batch"], name="batch"),
    ]
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    for name, shape in built.states.items():
        constants[f"{name}.sizes"] = np.array(shape, np.int64)
        nodes += [
            helper.make_node(
                "Concat",
                ["batch", f"{name}.sizes"],
                [f"{name}.shape"],
                axis=0,
                name=f"{name}.shape",
            ),
            helper.make_node(
                "ConstantOfShape",
                [f"{name}.shape"],
                [f"{name}.start"],
                value=zero,
                name=f"{name}.start",
            ),
        ]
    nodes.append(
        helper.make_node(
            "Scan",
            [*(f"{name}.start" for name in built.states), "x"],
            [*(f"{name}.end" for name in built.states), *outputs],
            name="steps",
            num_scan_inputs=1,
            body=body,
        )
    )
    graph = helper.make_graph(
        nodes,
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", *plan.input_shape])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["T", "B", *plan.output_shape])
            for name in outputs
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return _model(plan, graph)


def step_path(path: Path) -> Path:
    """Where the step graph lies beside a sequence graph: `model.onnx` → `model.step.onnx`."""
    return path.with_suffix(f".step{path.suffix}")


def write_onnx(plan: Plan, path: Path) -> tuple[Path, Path]:
    """Writes the sequence graph to `path` and the step graph beside it.

    Returns:
        Both paths; each file appears whole or not at all.

    Raises:
        ModelError: a node that ONNX export does not know, or a graph beyond 2 GB.
        OutputError: a file cannot be written.
    """
    written = path, step_path(path)
    models = sequence_model(plan), step_model(plan)
    for target, model in zip(written, models, strict=True):
        with replacing(target) as temporary:
            temporary.write_bytes(model.SerializeToString())
    return written


def _outputs(plan: Plan) -> list[str]:
    """Names of the outputs besides the states."""
    last = _last_neuron(plan)
    if last.kind == "integrating":
        return ["membrane"]
    if last.kind == "spiking" and plan.metadata and plan.metadata.readout == "membrane":
        return ["spikes", "membrane"]
    return ["spikes"]


def _last_neuron(plan: Plan) -> Neuron:
    return [node for node in plan.nodes if isinstance(node, Neuron)][-1]


def _build(plan: Plan, suffix: str = "") -> _Graph:
    """The nodes of one step; input and outputs are named with `suffix`."""
    graph = _Graph(value=f"x{suffix}")
    for node in plan.nodes:
        _add_node(graph, node, plan)
    outputs = _outputs(plan)
    graph.add("Identity", [graph.value], f"{outputs[0]}{suffix}")
    if len(outputs) > 1:
        graph.add("Identity", [f"{_last_neuron(plan).name}.membrane"], f"{outputs[1]}{suffix}")
    return graph


def _add_node(graph: _Graph, node: Node, plan: Plan) -> None:
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


def _add_pooling(graph: _Graph, node: Pooling) -> None:
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


def _add_neuron(graph: _Graph, node: Neuron) -> None:
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


def _step_graph(
    plan: Plan, built: _Graph, name: str, *, suffix: str = "", states_first: bool = False
) -> onnx.GraphProto:
    """The nodes as a graph. A Scan body wants the states first, callers want x first."""
    from onnx import TensorProto, helper, numpy_helper

    def info(value: str, shape: Shape) -> Any:
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, ["B", *shape])

    frame = [info(f"x{suffix}", plan.input_shape)]
    states = [info(state, shape) for state, shape in built.states.items()]
    nexts = [info(f"{state}_next", shape) for state, shape in built.states.items()]
    outputs = [info(f"{output}{suffix}", plan.output_shape) for output in _outputs(plan)]
    return helper.make_graph(
        built.nodes,
        name,
        states + frame if states_first else frame + states,
        nexts + outputs if states_first else outputs + nexts,
        [numpy_helper.from_array(values, key) for key, values in built.constants.items()],
    )


def _grid_properties(plan: Plan) -> dict[str, Any]:
    """Of an int8 model the exponent of each layer's grid, and its threshold, which lies on it."""
    found: dict[str, Any] = {}
    for node in plan.nodes:
        if isinstance(node, Convolution | Dense) and node.weight_grid is not None:
            found[f"weight_grid.{node.name}"] = node.weight_grid
        elif isinstance(node, Neuron) and plan.metadata and plan.metadata.weights == "int8":
            found[f"threshold.{node.name}"] = float(node.threshold.flat[0])
    return found


def _model(plan: Plan, graph: onnx.GraphProto) -> onnx.ModelProto:
    """The graph with version, metadata and a passed check."""
    from onnx import checker, helper

    model = helper.make_model(
        graph,
        producer_name="mpsl",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    if plan.metadata is not None:
        properties = {**plan.metadata.to_mapping(), **_grid_properties(plan)}
        helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, ValueError) as error:
        raise ModelError(
            "ONNX graph does not pass the check", got=error, where=plan.source
        ) from error
    return model
