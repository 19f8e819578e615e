"""From Input to Output: branches and loops in order, and what is no network in one clear line."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import nir
import numpy as np
import pytest

from mpsl_runtime.model.plan import Dense, Plan, Source, Sum

from .graphs import chain, conv, f32, file_refusal, lif, plan, refusal, small


def sources(result: Plan) -> dict[str, tuple[Source, ...]]:
    return {node.name: node.sources for node in result.nodes}


def loop(*edges: tuple[str, str], **nodes: nir.NIRNode) -> nir.NIRGraph:
    """Input [3] → what the edges say → Output [3]."""
    named = {"input": nir.Input({"input": np.array([3])}), **nodes}
    named["output"] = nir.Output({"output": np.array([3])})
    return nir.NIRGraph(named, list(edges), type_check=False)


def linear() -> nir.Linear:
    return nir.Linear(f32(3, 3))


def test_a_chain_has_no_sources_but_the_node_before() -> None:
    result = plan(small())
    assert result.is_chain
    assert result.wiring == (((-1, False),), ((0, False),))


def test_what_is_late_in_a_loop_are_the_spikes() -> None:
    graph = loop(
        ("input", "fc"), ("fc", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "output"),
        fc=linear(), lif=lif(3), rec=linear(),
    )  # fmt: skip
    result = plan(graph)
    assert result.nodes[-1].name == "lif"
    assert sources(result)["rec"] == (Source("lif", delayed=True),)
    assert set(sources(result)["lif"]) == {Source("fc"), Source("rec")}


def test_an_edge_to_itself_brings_the_spikes_of_the_step_before() -> None:
    graph = loop(("input", "lif"), ("lif", "lif"), ("lif", "output"), lif=lif(3))
    assert sources(plan(graph)) == {"lif": (Source(None), Source("lif", delayed=True))}


def test_a_loop_around_two_populations_is_late_at_its_end() -> None:
    graph = loop(
        ("input", "a"), ("a", "fc"), ("fc", "b"), ("b", "back"), ("back", "a"), ("b", "output"),
        a=lif(3), fc=linear(), b=lif(3), back=linear(),
    )  # fmt: skip
    found = sources(plan(graph))
    assert found["back"] == (Source("b", delayed=True),)
    assert found["a"] == (Source(None), Source("back"))
    assert not any(source.delayed for name in ("fc", "b") for source in found[name])


def test_a_loop_without_neurons_is_late_where_it_closes() -> None:
    graph = loop(
        ("input", "a"), ("a", "b"), ("b", "a"), ("b", "lif"), ("lif", "output"),
        a=linear(), b=linear(), lif=lif(3),
    )  # fmt: skip
    assert sources(plan(graph))["a"] == (Source(None), Source("b", delayed=True))


def test_a_residual_edge_is_one_source_more() -> None:
    graph = loop(
        ("input", "a"), ("a", "fc"), ("fc", "b"), ("a", "b"), ("b", "output"),
        a=lif(3), fc=linear(), b=lif(3),
    )  # fmt: skip
    assert sources(plan(graph))["b"] == (Source("a"), Source("fc"))


def test_an_output_of_two_nodes_is_their_sum() -> None:
    graph = loop(
        ("input", "a"), ("input", "b"), ("a", "output"), ("b", "output"), a=lif(3), b=lif(3)
    )
    result = plan(graph)
    assert isinstance(result.nodes[-1], Sum)
    assert result.readout == "membrane"
    assert result.output_neuron is None


def test_sources_of_different_shapes_are_refused() -> None:
    graph = loop(
        ("input", "a"), ("a", "wide"), ("wide", "b"), ("a", "b"), ("b", "output"),
        a=lif(3), wide=nir.Linear(f32(5, 3)), b=lif(3),
    )  # fmt: skip
    message = refusal(graph)
    assert "node 'b'" in message


def test_a_graph_inside_a_graph_is_flat(tmp_path: Path) -> None:
    inner = chain((3,), linear(), lif(3), out=(3,))
    graph = loop(("input", "block"), ("block", "block2"), ("block2", "output"),
                 block=inner, block2=inner)  # fmt: skip
    nir.write(str(tmp_path / "nested.nir"), graph)
    result = plan(nir.read(str(tmp_path / "nested.nir"), type_check=False))
    assert [n.name for n in result.nodes] == ["block.n0", "block.n1", "block2.n0", "block2.n1"]
    assert result.is_chain


def test_a_block_that_hands_its_input_on_gives_it_twice() -> None:
    inner = chain((3,), linear(), out=(3,))
    inner.edges.append(("input", "output"))
    graph = loop(("input", "a"), ("a", "block"), ("block", "b"), ("a", "b"), ("b", "output"),
                 a=lif(3), block=inner, b=lif(3))  # fmt: skip
    assert sources(plan(graph))["b"] == (Source("a"), Source("a"), Source("block.n0"))


def test_a_block_around_itself_sees_its_spikes_of_the_step_before() -> None:
    inner = chain((3,), linear(), lif(3), out=(3,))
    graph = loop(("input", "block"), ("block", "block"), ("block", "output"), block=inner)
    found = sources(plan(graph))
    assert found["block.n0"] == (Source(None), Source("block.n1", delayed=True))


def test_a_block_of_nothing_around_itself_is_refused() -> None:
    inner = chain((3,), out=(3,))
    graph = loop(("input", "block"), ("block", "block"), ("block", "lif"), ("lif", "output"),
                 block=inner, lif=lif(3))  # fmt: skip
    assert "hand their input on to themselves" in refusal(graph)


def test_thousands_of_blocks_that_hand_on_take_no_time() -> None:
    empty, names = chain((3,), out=(3,)), [f"b{i}" for i in range(4000)]
    path = ["input", *names, "lif", "output"]
    graph = loop(*itertools.pairwise(path), **dict.fromkeys(names, empty), lif=lif(3))
    begin = time.process_time()
    assert [node.name for node in plan(graph).nodes] == ["lif"]
    assert time.process_time() - begin < 5


def test_edges_that_blocks_multiply_are_bounded() -> None:
    empty = chain((3,), out=(3,))
    layers = [[f"b{i}_{j}" for j in range(16)] for i in range(8)]
    edges = [("input", name) for name in layers[0]] + [(name, "lif") for name in layers[-1]]
    for here, there in itertools.pairwise(layers):
        edges += itertools.product(here, there)
    blocks = dict.fromkeys(itertools.chain(*layers), empty)
    graph = loop(*edges, ("lif", "output"), **blocks, lif=lif(3))
    assert "too many edges" in refusal(graph)


def test_graphs_nested_without_end_are_refused() -> None:
    graph = chain((3,), lif(3), out=(3,))
    for _ in range(40):
        graph = loop(("input", "block"), ("block", "output"), block=graph)
    assert "nested too deeply" in refusal(graph)


@pytest.mark.parametrize("edge", [("lif", "input"), ("output", "lif")])
def test_an_edge_into_the_input_or_out_of_the_output_is_refused(edge: tuple[str, str]) -> None:
    graph = loop(("input", "lif"), ("lif", "output"), edge, lif=lif(3))
    assert "edge into an Input or out of an Output" in refusal(graph)


def test_several_inputs_are_refused() -> None:
    graph = small()
    graph.nodes["second"] = nir.Input(input_type={"input": np.array([2, 5, 5])})
    graph.edges.append(("second", "n0"))
    assert "number of Input nodes; got 2 (input, second)" in refusal(graph)


def test_a_missing_output_is_the_leaf() -> None:
    graph = small()
    del graph.nodes["output"]
    graph.edges.pop()
    result = plan(graph)
    assert result.nodes[-1].name == "n1"
    assert result.notes == ("no Output: it is 'n1'",)


def test_a_missing_input_is_the_root() -> None:
    graph = small()
    del graph.nodes["input"]
    graph.edges.remove(("input", "n0"))
    result = plan(graph)
    assert result.input_shape == (2, 5, 5)
    assert result.notes == ("no Input: it feeds 'n0'",)


def test_an_input_that_cannot_be_told_is_missed() -> None:
    graph = chain((2, 5, 5), conv(), lif(4, 5, 5), out=(4, 5, 5))
    del graph.nodes["input"]
    graph.edges.remove(("input", "n0"))
    assert "number of Input nodes; got none" in refusal(graph)


def test_a_dead_end_is_left_out_and_said() -> None:
    graph = small()
    graph.nodes["side"] = lif(4, 5, 5)
    graph.edges.append(("n0", "side"))
    result = plan(graph)
    assert result.is_chain
    assert result.notes == ("the output does not see 'side'",)


def test_a_doubled_edge_is_refused() -> None:
    graph = small()
    graph.edges.append(("n0", "n1"))
    assert "edge is there twice; got 'n0' → 'n1'" in refusal(graph)


def test_an_edge_to_nowhere_is_refused() -> None:
    graph = small()
    graph.edges.append(("n1", "n9"))
    assert "not there" in refusal(graph)


def test_a_node_without_edges_is_left_out_and_said() -> None:
    graph = small()
    graph.nodes["island"] = lif(4, 5, 5)
    assert plan(graph).notes == ("the output does not see 'island'",)


def test_a_root_that_the_input_does_not_reach_is_refused() -> None:
    graph = small()
    graph.nodes["island"] = lif(4, 5, 5)
    graph.edges.append(("island", "n1"))
    message = refusal(graph)
    assert "not connected" in message
    assert "'island'" in message


def test_an_output_that_nothing_reaches_is_refused() -> None:
    graph = small()
    graph.edges.remove(("n1", "output"))
    assert "not connected" in refusal(graph)


def test_a_graph_without_neurons_is_refused() -> None:
    assert "no neurons" in refusal(chain((2, 5, 5), conv(), out=(4, 5, 5)))


def test_a_graph_may_end_in_weights_whose_sums_are_the_scores() -> None:
    result = plan(chain((3,), lif(3), nir.Linear(weight=f32(2, 3)), out=(2,)))
    assert isinstance(result.nodes[-1], Dense)
    assert result.readout == "membrane"


def test_a_graph_that_ends_in_a_scale_is_refused() -> None:
    graph = chain((3,), lif(3), nir.Scale(f32(3)), out=(3,))
    assert "does not end in neurons" in refusal(graph)


def test_names_with_a_slash_are_refused_by_name(tmp_path: Path) -> None:
    graph = loop(("input", "a/b"), ("a/b", "output"), **{"a/b": lif(3)})
    nir.write(str(tmp_path / "slash.nir"), graph)
    message = file_refusal(tmp_path / "slash.nir")
    assert "name of a node has a '/', which nests in HDF5; got 'a/b'" in message


def test_a_very_long_chain_is_no_problem_for_the_stack() -> None:
    nodes = [nir.Scale(scale=f32(3)) for _ in range(3000)]
    assert len(plan(chain((3,), *nodes, lif(3), out=(3,))).nodes) == 3001
