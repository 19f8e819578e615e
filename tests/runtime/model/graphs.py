"""Small graphs for the tests of reading NIR, and the one line with which they are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import encode_neuron, load_plan, plan_of
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.neurons import neuron_node

DT_S = 1e-4


def f32(*shape: int, value: float = 1.0) -> np.ndarray[Any, Any]:
    return np.full(shape, value, np.float32)


def conv(filters: int = 4, channels: int = 2, **changes: Any) -> nir.Conv2d:
    kernel = changes.pop("kernel", (3, 3))
    options: dict[str, Any] = {
        "input_shape": None,
        "weight": f32(filters, channels, *kernel, value=0.5),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "bias": f32(filters, value=0),
    }
    return nir.Conv2d(**{**options, **changes})


def lif(*shape: int, **changes: Any) -> nir.LIF:
    return nir.LIF(**{**encode_neuron(1.0, 0.75, shape, DT_S), **changes})


def ours(
    *shape: int,
    threshold: float = 1.0,
    decay: float = 0.75,
    reset: str = "subtract",
    **changes: Any,
) -> nir.LIF | nir.IF:
    metadata = NeuronMetadata(reset, "reset-decay-add-fire", decay, threshold, DT_S)  # type: ignore[arg-type]
    node = neuron_node(metadata, shape)
    for name, value in changes.items():
        setattr(node, name, value)
    return node


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode, out: tuple[int, ...]) -> nir.NIRGraph:
    """Input, the nodes as n0, n1, …, Output."""
    named = {"input": nir.Input(input_type={"input": np.array(shape)})}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = nir.Output(output_type={"output": np.array(out)})
    return nir.NIRGraph(nodes=named, edges=list(pairwise(named)), type_check=False)


def small() -> nir.NIRGraph:
    return chain((2, 5, 5), conv(input_shape=(5, 5)), lif(4, 5, 5), out=(4, 5, 5))


def plan(graph: nir.NIRGraph, dt_s: float | None = DT_S) -> Any:
    return plan_of(graph, source="model.nir", dt_s=dt_s)


def refusal(graph: nir.NIRGraph, dt_s: float | None = DT_S) -> str:
    with pytest.raises(ModelError) as caught:
        plan(graph, dt_s)
    return one_line(caught.value)


def file_refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_plan(path, dt_s=DT_S)
    assert str(path) in str(caught.value)
    return one_line(caught.value)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)
