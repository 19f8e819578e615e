"""The chain from Input to Output: every other graph is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np

from .graphs import chain, conv, f32, file_refusal, lif, plan, refusal, small


def test_a_recurrent_edge_is_refused_and_named(tmp_path: Path) -> None:
    graph = small()
    graph.edges.append(("n1", "n0"))
    nir.write(str(tmp_path / "recurrent.nir"), graph)
    message = file_refusal(tmp_path / "recurrent.nir")
    assert "recurrent edge" in message
    assert "'n1' → 'n0'" in message


def test_an_edge_to_itself_is_recurrent() -> None:
    graph = small()
    graph.edges.append(("n1", "n1"))
    assert "recurrent edge" in refusal(graph)


def test_several_inputs_are_refused() -> None:
    graph = small()
    graph.nodes["second"] = nir.Input(input_type={"input": np.array([2, 5, 5])})
    graph.edges.append(("second", "n0"))
    assert "number of Input nodes; got 2 (input, second)" in refusal(graph)


def test_a_graph_without_output_is_refused() -> None:
    graph = small()
    del graph.nodes["output"]
    graph.edges.pop()
    assert "number of Output nodes; got none" in refusal(graph)


def test_a_branch_is_refused() -> None:
    graph = small()
    graph.nodes["side"] = lif(4, 5, 5)
    graph.edges.append(("n0", "side"))
    message = refusal(graph)
    assert "branching" in message
    assert "'n0'" in message


def test_a_doubled_edge_is_refused() -> None:
    graph = small()
    graph.edges.append(("n0", "n1"))
    assert "branching" in refusal(graph)


def test_an_edge_to_nowhere_is_refused() -> None:
    graph = small()
    graph.edges.append(("n1", "n9"))
    assert "not there" in refusal(graph)


def test_a_node_that_nothing_reaches_is_refused() -> None:
    graph = small()
    graph.nodes["island"] = lif(4, 5, 5)
    message = refusal(graph)
    assert "not connected" in message
    assert "'island'" in message


def test_a_graph_without_neurons_is_refused() -> None:
    assert "no neurons" in refusal(chain((2, 5, 5), conv(), out=(4, 5, 5)))


def test_a_graph_that_ends_in_weights_is_refused() -> None:
    graph = chain((3,), lif(3), nir.Linear(weight=f32(2, 3)), out=(2,))
    assert "does not end in neurons" in refusal(graph)


def test_a_very_long_chain_is_no_problem_for_the_stack() -> None:
    nodes = [nir.Scale(scale=f32(3)) for _ in range(3000)]
    assert len(plan(chain((3,), *nodes, lif(3), out=(3,))).nodes) == 3001
