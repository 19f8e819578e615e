"""Reads an ONNX file that may be anything, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError

__all__ = ["constants_of", "graphs_of", "read_model"]


def read_model(path: Path) -> Any:
    """An `onnx.ModelProto` from a file that may be anything.

    Raises:
        ModelError: absent, or no ONNX model.
    """
    import onnx

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError("cannot read model", got=error.strerror, where=path) from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors, whose base is theirs alone
        raise ModelError("file is no ONNX model", got=error, where=path) from error
    if not (model.graph.node and model.graph.input and model.graph.output):
        raise ModelError(
            "file is no ONNX model", got="a graph without nodes, inputs or outputs", where=path
        )
    return model


def graphs_of(model: Any) -> list[Any]:
    """The graph of a model, and the bodies of its Scans: the last is the step graph."""
    bodies = [
        attribute.g
        for node in model.graph.node
        if node.op_type == "Scan"
        for attribute in node.attribute
        if attribute.name == "body"
    ]
    return [model.graph, *bodies]


def constants_of(model: Any, path: Path) -> dict[str, NDArray[Any]]:
    """Every initialiser by name, of the graph and of the bodies of its Scans.

    Raises:
        ModelError: one that is damaged, or kept in another file.
    """
    from onnx import TensorProto, numpy_helper

    found: dict[str, NDArray[Any]] = {}
    for graph in graphs_of(model):
        for value in graph.initializer:
            where = f"{value.name} of {path}"
            if value.data_location == TensorProto.EXTERNAL:
                raise ModelError("data kept in another file is not read", where=where)
            try:
                found[value.name] = np.asarray(numpy_helper.to_array(value))
            except Exception as error:  # onnx answers damage with errors of every kind
                raise ModelError("damaged model file", got=error, where=where) from error
    return found
