"""What we write: terminals by nir's own names, the same bytes for the same graph."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.nir_writer import graph_bytes, write_graph


def graph(*names: str) -> Any:
    """Input, a convolution, its neurons, and an Output, by these names."""
    weight = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)
    one = np.ones((2, 2, 2), np.float32)
    nodes = [
        nir.Input({"input": np.array([2, 4, 4])}),
        nir.Conv2d((4, 4), weight, (1, 1), (0, 0), (1, 1), 1, np.zeros(2, np.float32)),
        nir.IF(r=one, v_threshold=one, v_reset=0 * one),
        nir.Output({"output": np.array([2, 2, 2])}),
    ]
    metadata = {"kernel": np.array([3, 3]), "note": "x", "names": {"deep": 1.5}}
    return nir.NIRGraph(
        dict(zip(names, nodes, strict=True)), list(pairwise(names)), metadata=metadata
    )


def test_terminals_get_their_names_and_nothing_else_does(tmp_path: Path) -> None:
    given = graph("a", "conv", "if", "z")
    write_graph(given, tmp_path / "model.nir")
    assert list(given.nodes) == ["a", "conv", "if", "z"]
    found = nir.read(tmp_path / "model.nir")
    assert sorted(found.nodes) == ["conv", "if", "input", "output"]
    assert set(found.edges) == {("input", "conv"), ("conv", "if"), ("if", "output")}
    assert [node.name for node in load_plan(tmp_path / "model.nir", dt_s=1.0).nodes] == [
        "conv", "if",
    ]  # fmt: skip


def test_a_terminal_whose_name_another_node_has_keeps_its_own(tmp_path: Path) -> None:
    write_graph(graph("a", "output", "if", "z"), tmp_path / "model.nir")
    found = nir.read(tmp_path / "model.nir")
    assert sorted(found.nodes) == ["if", "input", "output", "z"]
    assert set(found.edges) == {("input", "output"), ("output", "if"), ("if", "z")}
    assert isinstance(found.nodes["output"], nir.Conv2d)


def test_a_graph_from_a_file_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    content = graph_bytes(graph("input", "conv", "if", "output"))
    (tmp_path / "model.nir").write_bytes(content)
    assert graph_bytes(load_graph(tmp_path / "model.nir")) == content
    nir.write(tmp_path / "other.nir", graph("a", "conv", "if", "z"))
    assert graph_bytes(load_graph(tmp_path / "other.nir")) == content


def test_trained_weights_lie_in_one_piece_and_one_value_for_all_neurons_takes_little(
    tmp_path: Path,
) -> None:
    """What is inflated is most of the time from a file to the first step."""
    given, random = graph("input", "conv", "if", "output"), np.random.default_rng(0)
    trained = random.normal(size=(64, 2, 3, 3)).astype(np.float32)
    alike = np.full((64, 20, 20), 0.25, np.float32)
    given.nodes["conv"].weight = trained
    given.nodes["if"].r = given.nodes["if"].v_threshold = given.nodes["if"].v_reset = alike
    write_graph(given, tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir") as file:
        nodes = file["node/nodes"]
        assert nodes["conv/weight"].compression is None
        assert nodes["conv/weight"].id.get_offset() is not None  # contiguous
        assert nodes["if/r"].compression == "gzip"
        assert nodes["if/r"].id.get_storage_size() < alike.nbytes / 50
    unchecked = nir.read(tmp_path / "model.nir", type_check=False)
    for found in (load_graph(tmp_path / "model.nir"), unchecked):
        assert np.array_equal(found.nodes["conv"].weight, trained)
        assert np.array_equal(found.nodes["if"].r, alike)


def test_whole_numbers_keep_their_type_and_shape(tmp_path: Path) -> None:
    write_graph(graph("input", "conv", "if", "output"), tmp_path / "model.nir")
    found = nir.read(tmp_path / "model.nir")
    for value, right in (
        (found.nodes["conv"].stride, [1, 1]),
        (found.nodes["input"].input_type["input"], [2, 4, 4]),
        (found.metadata["kernel"], [3, 3]),
    ):
        assert value.dtype == np.int64
        assert value.tolist() == right
    assert found.metadata["note"] == "x"
    assert found.metadata["names"] == {"deep": 1.5}
