"""What a run folder or an ONNX file holds, for `mpsl inspect`.

Both functions join through the entry-point group `mpsl.inspectors`; the keys of a description are
those of `mpsl_runtime.inspection`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["inspect_onnx", "inspect_run"]


def inspect_run(path: Path) -> dict[str, Any] | None:
    """The banks of a run folder, layer by layer; None when `path` is no folder.

    Raises:
        RunError: the folder holds no complete run.
    """
    if not path.is_dir():
        return None
    from mpsl_export.checkpoint import read_checkpoint
    from mpsl_export.evaluation import read_evaluation
    from mpsl_export.merge import parameter_counts
    from mpsl_runtime.run_folder import RunFolder

    checkpoint, folder = read_checkpoint(path), RunFolder(path)
    counts = parameter_counts(checkpoint)
    layers = [
        {
            "name": layer.name,
            "type": layer.kind,
            "weight_shape": list(layer.banks[0].shape),
            "output_shape": list(layer.neurons),
            "mechanisms": ", ".join(layer.mechanisms),
            "coefficients": [
                float(value)
                for value in layer.coefficients.reshape(len(layer.banks), -1).mean(axis=1)
            ],
            "batchnorm": layer.norm is not None,
            "decay": layer.decay,
            "threshold": layer.threshold,
            "reset": layer.reset,
        }
        for layer in checkpoint.layers
    ]
    described: dict[str, Any] = {
        "kind": "run",
        "file": str(path),
        "bytes": sum(part.stat().st_size for part in path.iterdir() if part.is_file()),
        "parameters": counts.banks,
        "parameters_merged": counts.merged,
        "input_shape": list(checkpoint.input_shape),
        "output_shape": list(checkpoint.layers[-1].neurons),
        "steps": checkpoint.model.steps,
        "step_us": checkpoint.model.step_us,
        "exported": ", ".join(part.name for part in folder.exports()),
        "layers": layers,
        "metadata": checkpoint.model.to_mapping(),
    }
    if folder.evaluation.is_file():
        evaluation = read_evaluation(path)
        described["samples"] = len(evaluation.ids)
        described["accuracy"] = float((evaluation.predictions == evaluation.labels).mean())
    return described


def inspect_onnx(path: Path) -> dict[str, Any] | None:
    """The operations of an ONNX file, by node of the NIR graph; None when `path` is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    if path.is_dir() or path.suffix.lower() != ".onnx":
        return None
    from mpsl_export.write.onnx_file import constants_of, graphs_of, read_model
    from mpsl_export.write.onnx_seal import is_broken
    from mpsl_runtime.model.provenance import PROVENANCE_KEYS, provenance_of

    model = read_model(path)
    graphs, constants = graphs_of(model), constants_of(model, path)
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    weights = [values_ for name, values_ in constants.items() if _is_parameter(name)]
    said = {entry.key: entry.value for entry in model.metadata_props}
    broken, provenance = is_broken(model), provenance_of(said, str(path))
    origin: dict[str, Any] = {"provenance": provenance} if provenance else {}
    if broken is not None:
        origin["seal"] = "broken" if broken else "whole"
    return {
        "kind": "onnx",
        "file": str(path),
        "bytes": path.stat().st_size,
        "form": "sequence" if len(graphs) > 1 else "step",
        "opset": max((entry.version for entry in model.opset_import), default=None),
        "parameters": sum(int(values_.size) for values_ in weights),
        "input_shape": _shape(model.graph.input[0]),
        "output_shape": _shape(values.get("spikes", model.graph.output[0])),
        **origin,
        "layers": _rows(graphs[-1], constants),
        "metadata": {key: value for key, value in said.items() if key not in PROVENANCE_KEYS},
    }


def _is_parameter(name: str) -> bool:
    return name.endswith((".weight", ".bias", ".weight_int8", ".bias_int32"))


def _rows(graph: Any, constants: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """One row for all operations whose values are named after one node."""
    groups: dict[str, list[str]] = {}
    values = {output for node in graph.node for output in node.output}
    for node in graph.node:
        if (
            node.output
            and node.op_type != "DequantizeLinear"
            and (node.op_type != "Identity" or "." in node.output[0])
        ):
            groups.setdefault(node.output[0].split(".")[0], []).append(node.op_type)
    rows = []
    for name, operations in groups.items():
        own = {key: value for key, value in constants.items() if key.startswith(f"{name}.")}
        weight = own.get(f"{name}.weight", own.get(f"{name}.weight_int8"))
        threshold = own.get(f"{name}.threshold")
        decay = own.get(f"{name}.decay")
        is_late = f"{name}.late_fired" in values
        if f"{name}.reset_value" in own:
            reset = "lost" if is_late else "value"
        else:
            reset = "subtract-undecayed" if is_late else "subtract"
        rows.append(
            {
                "name": name,
                "type": "LIF" if "GreaterOrEqual" in operations else operations[0],
                "operations": len(operations),
                "parameters": sum(int(own[key].size) for key in own if _is_parameter(key)),
                "weight_shape": None if weight is None else list(weight.shape),
                "weight_type": None if weight is None else str(weight.dtype),
                "reset": None if threshold is None else reset,
                "decay": None if decay is None else _range(decay),
                "threshold": None if threshold is None else _range(threshold),
            }
        )
    return rows


def _range(values: NDArray[Any]) -> float | list[float]:
    low, high = float(np.min(values)), float(np.max(values))
    return low if low == high else [low, high]


def _shape(value: Any) -> list[Any]:
    """Sizes, and the names of the dynamic axes."""
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
