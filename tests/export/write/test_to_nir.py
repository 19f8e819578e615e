"""The NIR file is DESIGN §6, and comes back from the disk as it went."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.merge import merge
from mpsl_export.write.to_nir import graph_of, rounded_layers, write_nir
from mpsl_runtime.errors import OutputError, RunError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata
from mpsl_runtime.model.plan import Neuron


@pytest.fixture
def written(event_run: Any, tmp_path: Path) -> Path:
    """The event model on disk."""
    path = tmp_path / "model.nir"
    write_nir(graph_of(read_checkpoint(event_run.path)), path)
    return path


def test_nodes_sort_in_the_order_of_the_graph(written: Path) -> None:
    graph = nir.read(written)
    names = list(graph.nodes)
    assert names == sorted(names)
    assert names == [
        "input", "n01_conv", "n02_lif", "n03_sumpool", "n04_conv", "n05_lif", "n06_sumpool",
        "n07_flatten", "n08_affine", "n09_lif", "n10_affine", "n11_lif", "output",
    ]  # fmt: skip
    assert sorted(graph.edges) == list(pairwise(names))


def test_weights_come_back_bit_for_bit(event_run: Any, written: Path) -> None:
    layers = read_checkpoint(event_run.path).layers
    nodes = [n for n in nir.read(written).nodes.values() if isinstance(n, nir.Conv2d | nir.Affine)]
    for layer, node in zip(layers, nodes, strict=True):
        assert node.weight.dtype == node.bias.dtype == np.float32
        assert np.array_equal(node.weight, merge(layer).weight)
        assert np.array_equal(node.bias, merge(layer).bias)


def test_neurons_are_written_in_the_encoding(event_run: Any, written: Path) -> None:
    layers = read_checkpoint(event_run.path).layers
    neurons = [n for n in nir.read(written).nodes.values() if isinstance(n, nir.LIF)]
    for layer, node in zip(layers, neurons, strict=True):
        assert node.v_threshold.shape == layer.neurons
        assert {a.dtype for a in (node.tau, node.r, node.v_leak, node.v_reset)} == {
            np.dtype(np.float32)
        }
        below = np.nextafter(np.float32((1 - layer.decay) * layer.threshold), np.float32(0))
        assert (node.v_threshold == below).all()
        assert (node.r == 1).all()
        assert (node.tau == np.float32(1e-4 / 0.25)).all()
        assert not node.v_leak.any()
        assert not node.v_reset.any()
        metadata = NeuronMetadata.from_mapping(node.metadata, "test")
        assert (metadata.reset, metadata.threshold, metadata.decay) == ("subtract", 0.3, 0.75)


def test_the_plan_has_the_neuron_of_training(written: Path) -> None:
    neurons = [node for node in load_plan(written).nodes if isinstance(node, Neuron)]
    assert len(neurons) == 4
    for neuron in neurons:
        assert (neuron.threshold == np.float32(0.3)).all()
        assert (neuron.decay == np.float32(0.75)).all()
        assert neuron.reset == "subtract"
        assert not neuron.has_input_map


def test_the_graph_says_what_nir_cannot(event_run: Any, written: Path) -> None:
    found = ModelMetadata.from_mapping(nir.read(written).metadata, "test")
    assert found == read_checkpoint(event_run.path).model


def test_pools_are_sums_and_convolutions_have_shapes(written: Path) -> None:
    nodes = nir.read(written).nodes
    assert isinstance(nodes["n03_sumpool"], nir.SumPool2d)
    assert list(nodes["n03_sumpool"].kernel_size) == [2, 2]
    assert list(nodes["n04_conv"].input_shape) == [8, 8]
    assert (nodes["n07_flatten"].start_dim, nodes["n07_flatten"].end_dim) == (0, -1)
    assert list(nodes["output"].output_type["output"]) == [8]


def test_every_value_is_a_number_or_text(written: Path) -> None:
    kinds = []
    with h5py.File(written) as file:
        file.visititems(
            lambda name, item: kinds.append(item.dtype.kind) if hasattr(item, "dtype") else None
        )
    assert len(kinds) > 50
    assert set(kinds) <= set("fiuO")


def test_stride_and_reset_to_zero_come_back(image_run: Any, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(image_run.path)
    write_nir(graph_of(checkpoint), tmp_path / "m.nir")
    plan = load_plan(tmp_path / "m.nir")
    assert plan.nodes[0].stride == (2, 2)  # type: ignore[union-attr]
    assert plan.spiking[0].reset == "value"
    assert not plan.spiking[0].reset_value.any()
    assert (plan.spiking[0].threshold == np.float32(0.5)).all()
    assert rounded_layers(checkpoint) == ["L01"]


def test_layers_that_do_not_follow_from_each_other_are_refused(
    event_run: Any, copied: Callable[[Any], Any]
) -> None:
    run = copied(event_run)
    run.description["layers"][2]["pool_before"] = 1
    run.write(run.path)
    with pytest.raises(RunError, match=r"does not fit.*\[768\].*\[192\].*L02"):
        graph_of(read_checkpoint(run.path))
    run = copied(event_run)
    run.description["layers"][0]["neurons"] = [8, 16, 16]
    run.write(run.path)
    with pytest.raises(RunError, match="population has the wrong shape"):
        graph_of(read_checkpoint(run.path))


def test_an_output_that_cannot_be_written_leaves_nothing(event_run: Any, tmp_path: Path) -> None:
    graph = graph_of(read_checkpoint(event_run.path))
    with pytest.raises(OutputError):
        write_nir(graph, tmp_path / "absent" / "m.nir")
    (tmp_path / "m.nir").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_nir(graph, tmp_path / "m.nir")
    assert [path.name for path in tmp_path.iterdir()] == ["m.nir"]
