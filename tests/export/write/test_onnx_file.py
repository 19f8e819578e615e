"""Reading an ONNX file of a stranger: what cannot be a model of ours is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from mpsl_export.inspection import inspect_onnx
from mpsl_export.write.onnx_file import read_model
from mpsl_runtime.errors import ModelError


def model(change: Callable[[object], None]) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [other])
    change(graph)
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


@pytest.mark.parametrize("field", ["node", "input", "output"])
def test_a_graph_that_lacks_its_nodes_or_terminals_is_one_line(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(model(lambda graph: None))
    assert inspect_onnx(path) is not None
    path.write_bytes(model(lambda graph: graph.ClearField(field)))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no ONNX model; got a graph without nodes, inputs or"):
        read_model(path)
