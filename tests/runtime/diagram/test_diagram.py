"""`mpsl inspect --plot`: every connection is drawn as it is, with the rates that were counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.diagram import blocks
from mpsl_runtime.diagram.blocks import Diagram, Edge, diagram_of
from mpsl_runtime.diagram.rates import Rates, rates_of_card, rates_on
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.zoo import find_model

Mpsl = Callable[..., tuple[int, str, str]]


def linear(out: int, inputs: int) -> nir.NIRNode:
    weight = np.random.default_rng(out + inputs).normal(0, 1, (out, inputs))
    return nir.Linear(weight.astype(np.float32))


def neurons(number: int) -> nir.NIRNode:
    ones = np.ones(number, np.float32)
    return nir.LIF(tau=2e-4 * ones, r=ones, v_leak=0 * ones, v_threshold=ones / 2, v_reset=0 * ones)


def graph(edges: list[tuple[str, str]]) -> Plan:
    """12 inputs, layers a, b, c of 16 neurons, d of 5; r and f are weights of loops."""
    nodes: dict[str, Any] = {
        "input": nir.Input({"input": np.array([12])}),
        "a": linear(16, 12), "la": neurons(16), "b": linear(16, 16), "lb": neurons(16),
        "c": linear(16, 16), "lc": neurons(16), "d": linear(5, 16), "ld": neurons(5),
        "r": linear(16, 16), "f": linear(16, 16),
        "output": nir.Output({"output": np.array([5])}),
    }  # fmt: skip
    chain = ["input", "a", "la", "b", "lb", "c", "lc", "d", "ld", "output"]
    edges = [*pairwise(chain), *edges]
    used = {name for edge in edges for name in edge}
    found = nir.NIRGraph(nodes={k: v for k, v in nodes.items() if k in used}, edges=edges)
    return plan_of(found, source="graph.nir", dt_s=1e-4)


def connections(diagram: Diagram) -> set[tuple[str, str, bool]]:
    """By the places of the blocks: `column/row`."""
    names = [f"{block.column}/{block.row:g}" for block in diagram.blocks]
    return {(names[edge.tail], names[edge.head], edge.delayed) for edge in diagram.edges}


def test_a_chain_is_a_row_of_layers() -> None:
    diagram = diagram_of(graph([]))
    assert [block.title for block in diagram.blocks] == ["input", *["full"] * 4, "output"]
    assert [block.column for block in diagram.blocks] == [0, 1, 2, 3, 4, 5]
    assert {block.row for block in diagram.blocks} == {0}
    assert [block.neuron for block in diagram.blocks] == [None, 0, 1, 2, 3, None]
    assert diagram.edges == tuple(Edge(k, k + 1, False) for k in range(5))
    assert diagram.blocks[1].lines == ("16", "192 weights", "16 neurons")


def test_a_branch_and_the_loops_are_drawn_as_they_are() -> None:
    diagram = diagram_of(graph([("la", "c"), ("lb", "r"), ("r", "lb"), ("lc", "f"), ("f", "la")]))
    late = [block for block in diagram.blocks if block.is_late]
    assert len(late) == 2
    assert {(block.column, block.row) for block in late} == {(1, 2.0), (3, 1.0)}
    found = connections(diagram)
    # The chain: input, a, la, b, lb, c·lc, d·ld, output.
    assert {(f"{k}/0", f"{k + 1}/0", False) for k in range(7)} <= found
    assert ("2/0", "5/0", False) in found  # la → c
    assert {("4/0", "3/1", True), ("3/1", "4/0", False)} <= found  # lb → r → lb
    assert {("5/0", "1/2", True), ("1/2", "2/0", False)} <= found  # lc → f → la
    assert len(found) == 12


def test_the_sizes_of_a_model_of_the_zoo_stand_in_its_blocks() -> None:
    diagram = diagram_of(load_plan(find_model("nmnist8-small")))
    texts = [(block.title, *block.lines) for block in diagram.blocks]
    assert texts[0] == ("input", "2x34x34")
    assert texts[1] == ("conv 3x3, stride 2", "12x17x17", "216 weights", "3,468 neurons")
    assert texts[-1] == ("output", "8")
    assert any(title.endswith(" 2x2") for title, *_ in texts)


def test_a_network_of_too_many_blocks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_BLOCKS", 5)
    with pytest.raises(UsageError, match="network is too large for a picture; got 4 blocks"):
        diagram_of(graph([]))


def test_rates_are_those_of_the_spikes_that_are_recorded() -> None:
    plan = graph([("lb", "r"), ("r", "lb")])
    samples = [np.random.default_rng(k).random((20, 12)).astype(np.float32) for k in range(3)]
    rates = rates_on(plan, samples, "three samples")
    recorded = [Engine(plan).record(sample) for sample in samples]
    means = [float(np.mean([sample[layer].mean() for sample in recorded])) for layer in range(4)]
    assert rates.values == pytest.approx(means)
    assert sum(rates.values) > 0
    with pytest.raises(DataError, match="no sample"):
        rates_on(plan, [], "nothing")


def copied(tmp_path: Path, change: Callable[[Any], Any] = lambda card: card) -> tuple[Plan, Path]:
    source = find_model("nmnist8-small")
    card = source.parent / "report.json"
    if not card.is_file():
        pytest.skip("an installed model has no card beside it")
    model = tmp_path / "model.nir"
    model.write_bytes(source.read_bytes())
    (tmp_path / "report.json").write_text(json.dumps(change(json.loads(card.read_text("utf-8")))))
    return load_plan(model), model


def test_the_card_of_a_model_gives_its_rates(tmp_path: Path) -> None:
    plan, model = copied(tmp_path)
    rates = rates_of_card(plan, model)
    card = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert rates is not None
    assert list(rates.values) == [layer["firing_rate"] for layer in card["layers"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda card: {**card, "recipe_hash": "of another model"},
        lambda card: {**card, "layers": card["layers"][:-1]},
        lambda card: {**card, "layers": "none"},
        lambda card: {
            **card,
            "layers": [{**layer, "firing_rate": 7.0} for layer in card["layers"]],
        },
        lambda card: {**card, "layers": [{**layer, "neurons": 1} for layer in card["layers"]]},
        lambda card: [card],
        lambda card: None,
    ],
)
def test_a_card_that_does_not_fit_is_left_alone(change: Any, tmp_path: Path) -> None:
    assert rates_of_card(*copied(tmp_path, change)) is None


def test_no_card_or_a_damaged_one_gives_no_rates(tmp_path: Path) -> None:
    plan, model = copied(tmp_path)
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "report.json").write_bytes(content)
        assert rates_of_card(plan, model) is None
    (tmp_path / "report.json").unlink()
    assert rates_of_card(plan, model) is None


def test_a_picture_shows_sizes_rates_and_names_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    from mpsl_runtime.diagram.drawing import save_diagram

    diagram = diagram_of(graph([("lb", "r"), ("r", "lb"), ("la", "c")]))
    rates = Rates((0.25, 0.0004, 0.0, 1.0), "on made-up data")
    save_diagram(tmp_path / "a.svg", diagram, "$x^$ \ufdd0", rates)
    svg = (tmp_path / "a.svg").read_text("utf-8")
    for text in ("25.0%", "&lt; 0.1%", "0.0%", "100.0%", "192 weights", "a step later", "$x^$"):
        assert text in svg or text.replace("&lt;", "<") in svg
    save_diagram(tmp_path / "b.png", diagram, "no rates", None)
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_the_verb_draws_a_model_and_refuses_what_it_cannot(
    model_file: Path, tmp_path: Path, mpsl: Mpsl
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    picture = tmp_path / "net.png"
    code, out, err = mpsl("inspect", model_file, "--plot", picture, "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "nir"
    assert err == f"picture: {picture}\n"
    assert picture.stat().st_size > 5_000
    for words, what in (
        ((tmp_path, "--plot", picture), "--plot looks at a NIR file"),
        ((model_file, "--plot", tmp_path / "a.gif"), "unknown picture format"),
        ((model_file, "--plot", tmp_path / "no" / "a.png"), "cannot write output"),
    ):
        code, out, err = mpsl("inspect", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert what in err
