"""Damage to an ONNX file, as protobuf can say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import TensorProto, helper

from .mutation import Random

Change = Callable[[Any, Random], None]
_TEXTS = ["", "x", "\x1b[31m", "ai.onnx", "evil.domain", "a/../b", "Σ", "\u202e", "n" * 70_000]
_NUMBERS = [0, -1, 1, 2, 7, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 40]


def _one(values: Any, random: Random) -> Any:
    values = list(values)
    return values[int(random.integers(len(values)))]


def _graph(model: Any, random: Random) -> Any:
    """The graph, or the body of its Scan."""
    bodies = [a.g for node in model.graph.node for a in node.attribute if a.name == "body"]
    return _one([model.graph, *bodies], random)


def operation(model: Any, random: Random) -> None:
    node = _one(_graph(model, random).node, random)
    kinds = ["Add", "Sub", "Mul", "MatMul", "Identity", "Loop", "If", "Scan", "Conv", "Custom"]
    node.op_type = _one([*kinds, *_TEXTS[:4]], random)


def domain(model: Any, random: Random) -> None:
    _one(_graph(model, random).node, random).domain = _one(_TEXTS, random)


def wires(model: Any, random: Random) -> None:
    """A node reads or writes another value: a cycle, nothing, one that is there twice."""
    graph = _graph(model, random)
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    node = _one(graph.node, random)
    side = node.input if random.random() < 0.5 and node.input else node.output
    if random.random() < 0.2:
        side.append(_one(names, random))
    elif side:
        side[int(random.integers(len(side)))] = _one([*names, "none", ""], random)


def attribute(model: Any, random: Random) -> None:
    nodes = [node for node in _graph(model, random).node if node.attribute]
    if not nodes:
        return
    found = _one(_one(nodes, random).attribute, random)
    name = found.name
    values = [_one(_NUMBERS, random), [_one(_NUMBERS, random)] * 3, 0.5, "text", [1 << 40] * 4]
    found.CopyFrom(helper.make_attribute(name, _one(values, random)))


def shape_of_a_weight(model: Any, random: Random) -> None:
    found = [value for value in _graph(model, random).initializer if value.dims]
    if found:
        value = _one(found, random)
        value.dims[int(random.integers(len(value.dims)))] = _one(_NUMBERS, random)


def numbers_of_a_weight(model: Any, random: Random) -> None:
    found = [value for value in _graph(model, random).initializer if value.raw_data]
    if not found:
        return
    value = _one(found, random)
    content = bytearray(value.raw_data)
    content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    value.raw_data = bytes(content[: int(_one([len(content), len(content) // 2], random))])


def type_of_a_weight(model: Any, random: Random) -> None:
    found = _graph(model, random).initializer
    if found:
        _one(found, random).data_type = int(_one([0, 2, 6, 8, 10, 11, 14, 99], random))


def weight_elsewhere(model: Any, random: Random) -> None:
    found = _graph(model, random).initializer
    if found:
        value = _one(found, random)
        value.ClearField("raw_data")
        value.data_location = TensorProto.EXTERNAL
        entry = value.external_data.add()
        entry.key, entry.value = "location", _one(["/etc/passwd", "../../x", "w.bin"], random)


def metadata(model: Any, random: Random) -> None:
    if not model.metadata_props or random.random() < 0.2:
        entry = model.metadata_props.add()
        entry.key, entry.value = _one(_TEXTS, random), _one(_TEXTS, random)
        return
    entry = _one(model.metadata_props, random)
    numbers = ["nan", "1e400", "9" * 5000, "-1", "0", "{", "[" * 9000]
    entry.value = _one([*_TEXTS, *numbers], random)


def terminals(model: Any, random: Random) -> None:
    graph = _graph(model, random)
    values = _one([graph.input, graph.output], random)
    way = int(random.integers(4))
    if way == 0 and values:
        del values[int(random.integers(len(values)))]
    elif way == 1:
        values.add().CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1 << 40]))
    elif values:
        value = _one(values, random)
        if way == 2:
            value.name = _one(_TEXTS, random)
        else:
            dims = [int(n) for n in random.choice([-1, 0, 1, 1 << 40], int(random.integers(0, 6)))]
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))


def versions(model: Any, random: Random) -> None:
    if random.random() < 0.5:
        model.ir_version = int(_one([0, 1, 3, 99, (1 << 62)], random))
    else:
        model.opset_import[0].version = int(_one([0, -1, 1, 7, 99, 1 << 60], random))


def more(model: Any, random: Random) -> None:
    """A local function, a second domain, a node, a graph, a text."""
    way = int(random.integers(4))
    if way == 0:
        node = _one(model.graph.node, random)
        body = [helper.make_node("Neg", ["a"], ["b"])]
        opset = [helper.make_opsetid("", 17)]
        function = helper.make_function("evil", node.op_type, ["a"], ["b"], body, opset)
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("evil", 1))
        if random.random() < 0.5:
            node.domain = "evil"
    elif way == 1:
        nodes = model.graph.node
        nodes.add().CopyFrom(_one(list(nodes), random))
    elif way == 2:
        del model.graph.node[int(random.integers(len(model.graph.node)))]
    else:
        model.graph.doc_string = _one(_TEXTS, random)
        model.producer_name = _one(_TEXTS, random)


def nested(model: Any, random: Random) -> None:
    """If within If within If."""
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    graph = helper.make_graph([], "deep", [], [])
    for _ in range(int(_one([3, 40, 90], random))):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "deep", [], [], [condition])
        if graph.ByteSize() > 1 << 22:
            break
    model.graph.node.extend(graph.node)


CHANGES: list[Change] = [
    operation, domain, wires, wires, attribute, attribute, shape_of_a_weight, numbers_of_a_weight,
    type_of_a_weight, weight_elsewhere, metadata, metadata, terminals, versions, more, more, nested,
]  # fmt: skip


def change(content: bytes, random: Random) -> tuple[bytes, str]:
    """A changed model and what was changed first."""
    model = onnx.load_model_from_string(content)
    first = _one(CHANGES, random)
    first(model, random)
    for _ in range(int(random.choice([0, 0, 0, 1, 3]))):
        _one(CHANGES, random)(model, random)
    return model.SerializeToString(), str(first.__name__)
