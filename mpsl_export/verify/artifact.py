"""Holds the content of an exported file against what the run's banks merge to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpsl_export.verify.compare import array_differences, metadata_differences, plan_differences
from mpsl_export.write.onnx_file import constants_of, graphs_of, read_model
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.plan import Plan

__all__ = ["artifact_differences", "check_shapes"]


def artifact_differences(model: Path, plan: Plan) -> list[str]:
    """One line for each thing that differs, bit for bit; empty for an honest export.

    Args:
        model: a `.nir` or `.onnx` file. plan: of the merge of the run's banks.
    """
    if model.suffix == ".nir":
        from mpsl_runtime.model.graph import load_plan

        return plan_differences(plan, load_plan(model))
    from mpsl_export.write.to_onnx import sequence_model, step_model

    got = read_model(model)
    expected = sequence_model(plan) if len(got.graph.input) == 1 else step_model(plan)
    properties = {entry.key: entry.value for entry in got.metadata_props}
    return metadata_differences(plan.metadata, properties) + _onnx_differences(expected, got, model)


def check_shapes(model: Path, plan: Plan) -> None:
    """Raises RunError when a model takes another input, or gives other classes, than the run."""
    if model.suffix == ".nir":
        from mpsl_runtime.model.graph import load_plan

        found = load_plan(model)
        shapes = [*found.input_shape], [*found.output_shape]
    else:
        graph = read_model(model).graph
        values = {value.name: value for value in (*graph.input, *graph.output)}
        batch_axes = 2 if len(graph.input) == 1 else 1
        shapes = _sizes(values["x"], batch_axes), _sizes(values["spikes"], batch_axes)
    expected = [*plan.input_shape], [*plan.output_shape]
    if shapes != expected:
        raise RunError(
            "model does not fit the run",
            got=f"{shapes[0]} → {shapes[1]}",
            expected=f"{expected[0]} → {expected[1]}",
            where=model,
        )


def _sizes(value: Any, batch_axes: int) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim][batch_axes:]


def _onnx_differences(expected: Any, got: Any, path: Path) -> list[str]:
    """Operations first, then constants, in the graph and in the body of its Scan."""
    operations = [_operations(model) for model in (expected, got)]
    if operations[0] != operations[1]:
        differing = [
            f"{b} instead of {a}" for a, b in zip(*operations, strict=False) if a != b
        ] or [f"{len(operations[1])} operations instead of {len(operations[0])}"]
        return [f"operation {differing[0]}"]
    constants = [constants_of(model, path) for model in (expected, got)]
    if constants[0].keys() != constants[1].keys():
        return ["the names of the constants differ"]
    return [
        line
        for name, values in constants[0].items()
        for line in array_differences(name, values, constants[1][name])
    ]


def _operations(model: Any) -> list[str]:
    """Each operation with its values and attributes; the body of a Scan comes by itself."""
    from onnx import helper

    return [
        f"{node.op_type}({', '.join(node.input)}) → {', '.join(node.output)} "
        + str(
            sorted(
                str(helper.get_attribute_value(a)) + a.name
                for a in node.attribute
                if a.name != "body"
            )
        )
        for part in graphs_of(model)
        for node in part.node
    ]
