"""Writes a NIR graph as ONNX, opset 17: the operations of `onnx_nodes` as two graphs (DESIGN §7).

`step` takes x and every state and gives the output spikes and every next state, for streams;
`sequence` runs that same graph over T steps in one Scan. T and the batch are dynamic in both, but
that the batch of `step` may be fixed, for runtimes that take no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.alteration import Alteration
from mpsl_export.write.format import BackendKind, ExportFormat, Network, grid_properties
from mpsl_export.write.marks import marked_as, marks_of
from mpsl_export.write.onnx_nodes import StepGraph, build_step, output_names
from mpsl_export.write.onnx_seal import SEAL, add_properties, seal
from mpsl_runtime.atomic import replacing, replacing_together
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Plan, Shape
from mpsl_runtime.model.provenance import PROVENANCE_KEYS
from mpsl_runtime.run.probe import PROBE_KEYS

if TYPE_CHECKING:
    import onnx

    from mpsl_export.verify.backends import Backend

__all__ = [
    "FORMAT",
    "OPSET",
    "OnnxFormat",
    "open_shapes",
    "sequence_model",
    "step_model",
    "step_path",
    "write_onnx",
]

OPSET = 17
# The format version that came with opset 17: readers of that time refuse a newer one.
IR_VERSION = 8
LARGEST_BATCH = 65_536


def step_model(plan: Plan, *, packs: bool = True, batch: int | None = None) -> onnx.ModelProto:
    """The step graph: (x, every state) → (spikes, every next state).

    x is [B, C, H, W], a state `….v` has the shape of its population behind B, and comes back as
    `….v_next`. A model that is read out by membrane potential has one more output, `membrane`.

    Args:
        packs: see `onnx_nodes.build_step`.
        batch: B, where it is to be fixed; then every shape is known, as TensorRT and runtimes of
            edge devices want it.

    Raises:
        ModelError: a node that ONNX export does not know, by name.
    """
    built = build_step(plan, packs=packs)
    built.nodes[:0], built.constants = built.prelude, built.packed | built.constants
    model = _model(plan, _step_graph(plan, built, "step", batch=batch or "B"))
    if batch is not None:
        unknown = open_shapes(model)
        if unknown:
            raise ModelError("shape is not fixed by the batch", got=unknown[0], where=plan.source)
    return model


def open_shapes(model: onnx.ModelProto) -> list[str]:
    """Values of a graph of which ONNX's shape inference does not know every size."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    known = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    names = [*known, *(output for node in graph.node for output in node.output)]
    return [
        name
        for name in dict.fromkeys(names)
        if name not in known
        or not known[name].type.tensor_type.HasField("shape")
        or not all(dim.HasField("dim_value") for dim in known[name].type.tensor_type.shape.dim)
    ]


def sequence_model(plan: Plan) -> onnx.ModelProto:
    """The sequence graph: x [T, B, C, H, W] → spikes [T, B, K], states starting from zero.

    A model that is read out by membrane potential has one more output, `membrane` [T, B, K].

    Raises:
        ModelError: a node that ONNX export does not know, by name.
    """
    from onnx import TensorProto, helper, numpy_helper

    # Names inside a body may not repeat those around it.
    built = build_step(plan, suffix="_t")
    body = _step_graph(plan, built, "body", suffix="_t", states_first=True)
    outputs = output_names(plan)
    nodes, constants = _start_states(built)
    # Once, not in every step: a body sees the values around it.
    nodes, constants = built.prelude + nodes, built.packed | constants
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
    """Writes the sequence graph to `path` and the step graph beside it, both in one step.

    Raises:
        ModelError: a node that ONNX export does not know, or a graph beyond 2 GB.
        OutputError: a file cannot be written.
    """
    files = _files(plan, path, {})
    with replacing_together(path.parent, [*files]) as stage:
        for name, content in files.items():
            (stage / name).write_bytes(content)
    return path, step_path(path)


class OnnxFormat(ExportFormat):
    """`.onnx`: the sequence graph, and the step graph in a `.step.onnx` beside it."""

    name = "onnx"
    suffix = ".onnx"

    def __init__(self, batch: int | None = None) -> None:
        self._batch = batch

    def with_options(self, **options: Any) -> OnnxFormat:
        """See `ExportFormat.with_options`: `batch`, of the step graph."""
        batch = options.pop("batch", self._batch)
        super().with_options(**options)
        return OnnxFormat(batch)

    @property
    def backends(self) -> Sequence[BackendKind]:
        """ONNX Runtime."""
        return (BackendKind("onnx", _open_onnx_runtime, needs="onnxruntime"),)

    def files(self, network: Network, name: str) -> dict[str, bytes]:
        """See `ExportFormat.files`."""
        return _files(network.plan, Path(name), marks_of(network), self._batch)

    def alterations(self, path: Path, network: Network) -> list[Alteration]:
        """See `ExportFormat.alterations`. A file with one input is a sequence."""
        from mpsl_export.write.onnx_alterations import onnx_alterations
        from mpsl_export.write.onnx_file import read_model

        got = read_model(path)
        said = {entry.key: entry.value for entry in got.metadata_props}
        if len(got.graph.input) == 1:
            expected = sequence_model(network.plan)
        else:
            expected = step_model(network.plan, batch=_batch_of(got))
        add_properties(expected, marks_of(marked_as(network, said, str(path))))
        if SEAL in said:
            seal(expected)
        return onnx_alterations(expected, got, path)

    def metadata(self, path: Path) -> Mapping[str, Any]:
        """See `ExportFormat.metadata`."""
        from mpsl_export.write.onnx_file import read_model

        return {entry.key: entry.value for entry in read_model(path).metadata_props}

    def stamp(self, path: Path, verified: str) -> None:
        """See `ExportFormat.stamp`."""
        from mpsl_export.write.onnx_file import read_model

        model = read_model(path)
        said = {entry.key: entry.value for entry in model.metadata_props}
        if said.pop(SEAL, None) is None:
            return
        del model.metadata_props[:]
        # In the order in which the exporter writes them.
        marks = {key: said[key] for key in (*PROVENANCE_KEYS, *PROBE_KEYS) if key in said}
        add_properties(model, {key: said[key] for key in said if key not in marks})
        order = (*PROVENANCE_KEYS, *PROBE_KEYS)
        marks["verified"] = verified
        add_properties(model, {key: marks[key] for key in order if key in marks})
        seal(model)
        content = model.SerializeToString()
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def shapes(self, path: Path) -> tuple[Shape, Shape]:
        """See `ExportFormat.shapes`."""
        from mpsl_export.write.onnx_file import read_model

        graph = read_model(path).graph
        values = {value.name: value for value in (*graph.input, *graph.output)}
        if "x" not in values or not graph.output:
            raise ModelError(
                "ONNX model is not of the form that mpsl writes",
                got=", ".join(values)[:200],
                expected="x and states → spikes and next states",
                where=path,
            )
        batch_axes = 2 if len(graph.input) == 1 else 1
        last = values.get("spikes", graph.output[0])
        return _sizes(values["x"], batch_axes), _sizes(last, batch_axes)


FORMAT = OnnxFormat()


def _open_onnx_runtime(path: Path) -> Backend:
    from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime

    return OnnxRuntime(path)


def _sizes(value: Any, batch_axes: int) -> Shape:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[batch_axes:]


def _batch_of(model: onnx.ModelProto) -> int | None:
    """The batch of a step graph, where it is fixed."""
    sizes = (value.type.tensor_type.shape.dim for value in model.graph.input if value.name == "x")
    first = next((dim[0].dim_value for dim in sizes if len(dim)), 0)
    return first if 0 < first <= LARGEST_BATCH else None


def _files(
    plan: Plan, path: Path, marks: Mapping[str, Any], batch: int | None = None
) -> dict[str, bytes]:
    """Both graphs by file name, with `marks` in their metadata, sealed."""
    models = {
        path.name: sequence_model(plan),
        step_path(path).name: step_model(plan, batch=batch),
    }
    for model in models.values():
        add_properties(model, marks)
        seal(model)
    return {name: model.SerializeToString() for name, model in models.items()}


def _start_states(built: StepGraph) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Nodes that make every state zero for a batch as large as that of x, and their constants."""
    from onnx import helper, numpy_helper

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
        sizes, start = f"{name}.shape", f"{name}.start"
        nodes += [
            helper.make_node("Concat", ["batch", f"{name}.sizes"], [sizes], axis=0, name=sizes),
            helper.make_node("ConstantOfShape", [sizes], [start], value=zero, name=start),
        ]
    return nodes, constants


def _step_graph(
    plan: Plan,
    built: StepGraph,
    name: str,
    *,
    suffix: str = "",
    states_first: bool = False,
    batch: int | str = "B",
) -> onnx.GraphProto:
    """The nodes as a graph. A Scan body wants the states first, callers want x first."""
    from onnx import TensorProto, helper, numpy_helper

    def info(value: str, shape: Shape) -> Any:
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, [batch, *shape])

    frame = [info(f"x{suffix}", plan.input_shape)]
    states = [info(state, shape) for state, shape in built.states.items()]
    nexts = [info(f"{state}_next", shape) for state, shape in built.states.items()]
    outputs = [info(f"{output}{suffix}", plan.output_shape) for output in output_names(plan)]
    return helper.make_graph(
        built.nodes,
        name,
        states + frame if states_first else frame + states,
        nexts + outputs if states_first else outputs + nexts,
        [numpy_helper.from_array(values, key) for key, values in built.constants.items()],
    )


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
        properties = {**plan.metadata.to_mapping(), **grid_properties(plan)}
        helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, ValueError) as error:
        raise ModelError(
            "ONNX graph does not pass the check", got=error, where=plan.source
        ) from error
    return model
