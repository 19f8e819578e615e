"""An ONNX file is what the exporter writes, field for field, or the difference is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.verify.verify import verify
from mpsl_export.write.format import Network
from mpsl_export.write.onnx_file import graphs_of
from mpsl_export.write.to_nir import run_network

Change = Callable[[Any], None]


def _step(model: Any) -> Any:
    """The graph with the neurons: the file's own, or the body of its Scan."""
    return graphs_of(model)[-1]


def _node(model: Any, output: str) -> Any:
    return next(node for node in _step(model).node if node.output[0].startswith(output))


def _constant(model: Any, name: str) -> Any:
    return next(value for value in _step(model).initializer if value.name == name)


def _local_function(model: Any) -> None:
    """A layer's spikes through a function of the file that gives them on, but for a trigger."""
    domain = "mpsl.step"
    nodes = [
        helper.make_node("ReduceMax", ["u"], ["highest"], keepdims=0),
        helper.make_node("Constant", [], ["trigger"], value_float=1e6),
        helper.make_node("Greater", ["highest", "trigger"], ["pulled"]),
        helper.make_node("GreaterOrEqual", ["u", "threshold"], ["fired"]),
        helper.make_node("Xor", ["fired", "pulled"], ["out"]),
    ]
    model.functions.append(
        helper.make_function(
            domain, "GreaterOrEqual", ["u", "threshold"], ["out"], nodes,
            [helper.make_opsetid("", 17)],
        )
    )  # fmt: skip
    model.opset_import.append(helper.make_opsetid(domain, 1))
    _node(model, "n05_lif.fired").domain = domain


def _unused_function(model: Any) -> None:
    _local_function(model)
    _node(model, "n05_lif.fired").domain = ""


def _domain(model: Any) -> None:
    _node(model, "n02_lif.v_kept").domain = "ai.onnx"


def _opset(model: Any) -> None:
    model.opset_import[0].version = 18


def _ir_version(model: Any) -> None:
    model.ir_version = 9


def _producer(model: Any) -> None:
    model.producer_name = "another"


def _input_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_param = "W"


def _output_order(model: Any) -> None:
    outputs = _step(model).output
    outputs.append(outputs[0])
    del outputs[0]


def _input_order(model: Any) -> None:
    inputs = _step(model).input
    inputs.append(inputs[0])
    del inputs[0]


def _node_order(model: Any) -> None:
    nodes = list(_step(model).node)
    del _step(model).node[:]
    _step(model).node.extend([nodes[1], nodes[0], *nodes[2:]])


def _extra_node(model: Any) -> None:
    graph = _step(model)
    graph.node.append(helper.make_node("Identity", [graph.node[0].output[0]], ["more"]))


def _renamed_node(model: Any) -> None:
    _node(model, "n01_conv").name = "another"


def _attribute(model: Any) -> None:
    node = _node(model, "n01_conv")
    next(a for a in node.attribute if a.name == "pads").ints[0] = 0


def _extra_attribute(model: Any) -> None:
    _node(model, "n01_conv").attribute.append(helper.make_attribute("auto_pad", "NOTSET"))


def _weight(model: Any) -> None:
    value = _constant(model, "n04_conv.weight")
    weight = numpy_helper.to_array(value).copy()
    weight[0, 0, 1, 1] = np.nextafter(weight[0, 0, 1, 1], np.float32(9))
    value.CopyFrom(numpy_helper.from_array(weight, value.name))


def _minus_zero(model: Any) -> None:
    value = _constant(model, "n04_conv.bias")
    bias = numpy_helper.to_array(value).copy()
    bias[0] = -bias[0]
    value.CopyFrom(numpy_helper.from_array(bias, value.name))


def _broadcast_threshold(model: Any) -> None:
    value = _constant(model, "n02_lif.threshold")
    same = np.full((1, 8, 17, 17), numpy_helper.to_array(value), np.float32)
    value.CopyFrom(numpy_helper.from_array(same, value.name))


def _stored_otherwise(model: Any) -> None:
    value = _constant(model, "n04_conv.bias")
    numbers = numpy_helper.to_array(value)
    del value.float_data[:]
    value.ClearField("raw_data")
    value.float_data.extend(numbers.tolist())


def _both_stores(model: Any) -> None:
    _constant(model, "n04_conv.bias").float_data.extend([1.0] * 12)


def _extra_constant(model: Any) -> None:
    _step(model).initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "more"))


def _declared_value(model: Any) -> None:
    _step(model).value_info.append(helper.make_tensor_value_info("n01_conv", TensorProto.FLOAT, []))


def _document(model: Any) -> None:
    model.graph.doc_string = "hello"


def _metadata(model: Any) -> None:
    next(entry for entry in model.metadata_props if entry.key == "step_us").value = "70000"


def _metadata_twice(model: Any) -> None:
    model.metadata_props.append(model.metadata_props[0])


def _extra_metadata(model: Any) -> None:
    model.metadata_props.add(key="more", value="1")


# What is changed, and the words in which it is named.
CHANGES: dict[str, tuple[Change, str]] = {
    "local function": (_local_function, "mpsl.step::GreaterOrEqual"),
    "local function that nothing calls": (_unused_function, "functions 0 of model"),
    "domain": (_domain, "ai.onnx::Mul"),
    "opset": (_opset, "version is 18 instead of 17"),
    "IR version": (_ir_version, "ir_version is 9 instead of 8"),
    "producer": (_producer, "producer_name is another instead of mpsl"),
    "declared input": (_input_shape, "dim_param is W instead of nothing"),
    "order of outputs": (_output_order, "output 0 of"),
    "order of inputs": (_input_order, "input 0 of"),
    "order of nodes": (_node_order, "node 0 of"),
    "one more node": (_extra_node, "Identity"),
    "name of a node": (_renamed_node, "name is another instead of n01_conv"),
    "attribute": (_attribute, "ints is"),
    "one more attribute": (_extra_attribute, "auto_pad"),
    "weight": (_weight, "n04_conv weight[0, 0, 1, 1] is"),
    "sign": (_minus_zero, "n04_conv bias[0] is"),
    "shape of a constant": (_broadcast_threshold, "n02_lif threshold is FLOAT [1, 8, 17, 17]"),
    "storage": (_stored_otherwise, "float_data"),
    "a constant stored twice": (_both_stores, "float_data"),
    "one more constant": (_extra_constant, "is more instead of nothing"),
    "declared value": (_declared_value, "value_info 0 of"),
    "document": (_document, "doc_string is hello instead of nothing"),
    "metadata": (_metadata, "metadata step_us is 70000 instead of 60000"),
    "metadata twice": (_metadata_twice, "an entry twice"),
    "more metadata": (_extra_metadata, "metadata has more = 1 besides"),
}
VALUES = ("weight", "sign", "metadata", "more metadata")


@pytest.fixture(scope="module")
def exported(event_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Network]:
    """A run, a folder with its ONNX files, and the network that they hold."""
    folder = tmp_path_factory.mktemp("onnx")
    export(event_run.path, "onnx", out=folder / "model.onnx")
    return event_run, folder, run_network(event_run.path, read_checkpoint(event_run.path))


@pytest.mark.parametrize("file", ["model.onnx", "model.step.onnx"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_the_exporter_would_not_have_written_is_named(
    exported: tuple[Any, Path, Network], tmp_path: Path, what: str, file: str
) -> None:
    _, folder, network = exported
    model = onnx.load(folder / file)
    change, words = CHANGES[what]
    change(model)
    (tmp_path / file).write_bytes(model.SerializeToString())
    found = ExportedFile.at(tmp_path / file).alterations(network)
    assert any(words in str(alteration) for alteration in found), [str(a) for a in found]
    # Only a file with the operations and shapes of the network is run.
    assert all(alteration.runs for alteration in found) == (what in VALUES)
    assert ExportedFile.at(folder / file).alterations(network) == []


def test_what_protobuf_does_not_know_is_named(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, folder, network = exported
    unknown = b"\xfa\x7f\x03abc"  # field 2047, three bytes
    content = (folder / "model.onnx").read_bytes() + unknown
    (tmp_path / "model.onnx").write_bytes(content)
    (found,) = ExportedFile.at(tmp_path / "model.onnx").alterations(network)
    assert "fields that ONNX does not know" in str(found)


def test_a_trigger_that_no_sample_pulls_fails_and_is_not_run(
    exported: tuple[Any, Path, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder, _ = exported
    model = onnx.load(folder / "model.onnx")
    _local_function(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    report = verify(run.path, models=[path], data=run.data, backends=["onnx"])
    (entry,) = report["models"]
    assert not report["passed"]
    assert "mpsl.step::GreaterOrEqual" in " ".join(entry["reasons"])
    assert entry["spike_mismatch"] == {}
    # By its behaviour on the test set it would pass.
    monkeypatch.setattr(ExportedFile, "alterations", lambda file, network: [])
    report = verify(run.path, models=[path], data=run.data, backends=["onnx"])
    assert report["passed"]
    assert report["models"][0]["spike_mismatch"] == {"onnx": 0.0}


def test_metadata_that_an_earlier_version_wrote_is_no_difference(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, folder, network = exported
    model = onnx.load(folder / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "dt_s":
            entry.key = "dt"
        if entry.key == "mpsl":
            entry.value = "1"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    file = ExportedFile.at(tmp_path / "model.onnx")
    assert file.alterations(network) == []
    next(entry for entry in model.metadata_props if entry.key == "dt").value = "0.1"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert [str(found) for found in file.alterations(network)] == [
        "metadata dt is 0.1 instead of 0.0001"
    ]
