"""snn-mlir's own check accepts every file of the zoo."""

from __future__ import annotations

from pathlib import Path

import nir
import pytest
import snn_mlir

from mpsl_runtime.model.graph import load_graph

MODELS = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/model.nir"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_the_compiler_accepts_a_model_of_the_zoo(path: Path) -> None:
    report = snn_mlir.check(path)
    assert report.findings == []
    assert report.ok
    assert set(report.order) == set(load_graph(path).nodes)


def test_it_looks_for_the_terminals_by_their_names(tmp_path: Path) -> None:
    graph = load_graph(MODELS[-1])
    graph.nodes = {"n00_input" if n == "input" else n: node for n, node in graph.nodes.items()}
    graph.edges = [("n00_input" if a == "input" else a, b) for a, b in graph.edges]
    nir.write(tmp_path / "model.nir", graph)
    report = snn_mlir.check(tmp_path / "model.nir")
    assert not report.ok
    assert {finding.kind for finding in report.errors} == {"missing_terminal"}
