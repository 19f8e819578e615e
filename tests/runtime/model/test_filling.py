"""What a file does not say: given, inferred, or named as missing, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.dialects import DIALECTS, StepRule
from mpsl_runtime.model.filling import Filled, Filling, fill, load_filled
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.run.reference import Reference

from .graphs import chain, conv, f32, lif, ours, small
from .test_signs import as_norse_writes, as_snntorch_writes, as_spikingjelly_writes, full


def network(*neurons: nir.NIRNode) -> nir.NIRGraph:
    """[3] → neurons, one behind the other."""
    return chain((3,), *neurons, out=(3,))


def filled(graph: nir.NIRGraph, *, timed: bool = False, **given: Any) -> Filled:
    return fill(graph, "file.nir", Filling(**given), timed=timed)


def refusal(graph: nir.NIRGraph, **given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        filled(graph, **given)
    return str(caught.value)


def test_all_that_is_missing_is_named_at_once() -> None:
    said = refusal(small(), timed=True)
    for option in ("--from nir|snntorch|norse", "--dt-s S", "--steps T", "--step-us N"):
        assert option in said
    assert "file.nir" in said
    said = refusal(small(), timed=True, dialect="nir", steps=3)
    assert "--step-us N" in said
    assert "--dt-s S" in said
    assert "--from" not in said
    assert "--steps" not in said
    assert "--step-us" not in refusal(small())  # nobody wants to run it on events


def test_a_dialect_is_taken_from_numbers_that_one_exporter_writes() -> None:
    found = filled(network(as_snntorch_writes()))
    assert found.plan.spiking[0].reset == "subtract-undecayed"
    assert found.lines[0].startswith("--from snntorch")
    assert found.lines[1].startswith("--dt-s 0.0001: tau/r")
    assert found.plan.metadata is not None
    assert found.plan.metadata.imported_from == "snntorch"
    assert found.plan.metadata.imported_inferred == "; ".join(found.lines)


def test_a_dialect_that_is_given_is_taken_at_its_word() -> None:
    found = filled(network(as_snntorch_writes()), dialect="nir")
    assert found.plan.spiking[0].reset == "value"
    assert "'lava'; expected nir, snntorch" in refusal(network(as_norse_writes()), dialect="lava")


def test_a_step_that_numbers_contradict_is_said() -> None:
    lines = filled(network(as_snntorch_writes()), dt_s=2e-4).lines
    assert any("--dt-s 0.0002 is given, but tau/r or 1/r is 0.0001" in line for line in lines)


@pytest.mark.parametrize(
    ("word", "leaky", "synaptic", "recurrent"),
    [
        (None, "subtract-undecayed", "subtract-undecayed", "subtract-undecayed"),
        ("subtract", "subtract-undecayed", "subtract-undecayed", "subtract-undecayed"),
        ("value", "value", "lost", "lost"),
        ("lost", "lost", "lost", "lost"),
    ],
)
def test_snntorch_resets_each_kind_of_neuron_in_its_own_way(
    word: Any, leaky: str, synaptic: str, recurrent: str
) -> None:
    node = as_snntorch_writes()
    tau = node.tau
    cuba = nir.CubaLIF(tau, tau, node.r, 0 * tau, 1 + 0 * tau, w_in=node.r)
    graph = network(node, cuba, as_snntorch_writes())
    graph.nodes["back"] = nir.Linear(np.eye(3, dtype=np.float32))
    graph.edges += [("n2", "back"), ("back", "n2")]
    plan = filled(graph, dialect="snntorch", reset=word).plan
    assert [neuron.reset for neuron in plan.spiking] == [leaky, synaptic, recurrent]


def exp_leak() -> nir.LI:
    """As sinabs writes it."""
    return nir.LI(tau=full(20), r=full(1), v_leak=full(0))


def test_what_each_framework_does_becomes_of_its_name() -> None:
    def neuron(dialect: str, node: nir.NIRNode, **given: Any) -> Any:
        return filled(network(node), dialect=dialect, **given).plan.spiking[0]

    jelly = neuron("spikingjelly", as_spikingjelly_writes())
    np.testing.assert_array_equal(jelly.threshold, 1)  # ≥
    np.testing.assert_allclose(jelly.initial, -0.3)
    norse = neuron("norse", as_norse_writes())
    assert (norse.threshold > 1).all()
    np.testing.assert_allclose(norse.decay, 0.8, rtol=1e-6)
    sinabs = neuron("sinabs", lif(3, tau=full(20), r=full(1)))
    assert sinabs.many
    np.testing.assert_allclose(sinabs.decay, np.exp(-1 / 20), rtol=1e-7)
    np.testing.assert_array_equal(sinabs.gain, 1 - sinabs.decay)
    raw = neuron("sinabs", lif(3, tau=full(20), r=full(1)), norm_input="no")
    assert not raw.has_input_map
    # Its ExpLeak takes the input as it is, unless asked to norm it.
    for norm, given in ((False, {}), (True, {"norm_input": "yes"})):
        leaking = next(iter(filled(network(exp_leak()), dialect="sinabs", **given).plan.nodes))
        assert leaking.has_input_map is norm
    # Of a threshold that must be exceeded, the threshold itself is subtracted.
    snn = neuron("snntorch", as_snntorch_writes())
    np.testing.assert_array_equal(snn.taken, 1)
    assert (snn.threshold > 1).all()


def test_an_if_of_norse_and_sinabs_adds_its_input_whatever_the_step_of_others() -> None:
    node = nir.IF(full(1), full(1), full(0))
    for dialect in ("norse", "sinabs"):
        plan = filled(network(as_norse_writes(), node), dialect=dialect).plan
        np.testing.assert_array_equal(plan.spiking[1].gain, 1)


def test_what_was_filled_in_is_there_in_the_file(tmp_path: Path) -> None:
    graph = chain((2, 4, 6), conv(input_shape=(4, 6)), lif(4, 4, 6), out=(4, 4, 6))
    found = filled(
        graph, timed=True, dialect="sinabs", steps=5, step_us=100, coding="binary",
        downsample=2, crop="3,1,12,8", classes="x," * 95 + "y", start="leak",
    )  # fmt: skip
    write_graph(found.graph, tmp_path / "a.nir")
    again = load_filled(tmp_path / "a.nir", Filling(), timed=True)
    assert again.lines == ()
    metadata = again.plan.metadata
    assert metadata is not None
    assert metadata == found.plan.metadata
    assert (metadata.sensor_width, metadata.sensor_height) == (15, 9)
    binning = again.plan.binning()
    assert binning is not None
    assert (binning.coding, binning.shape) == ("binary", (2, 4, 6))
    assert metadata.imported_given == (
        "--from sinabs --start leak --steps 5 --step-us 100 --coding binary "
        "--downsample 2 --crop 3,1,12,8 --classes " + "x," * 95 + "y"
    )
    given = np.random.default_rng(0).random((5, 2, 4, 6)).astype(np.float32) * 3
    expected = Reference(found.plan).run(given)
    assert expected.max() > 1
    np.testing.assert_array_equal(Reference(again.plan).run(given), expected)


def test_nested_graphs_are_filled_in_too(tmp_path: Path) -> None:
    inner = network(as_snntorch_writes())
    nodes = {"input": inner.nodes["input"], "b": inner, "output": inner.nodes["output"]}
    graph = nir.NIRGraph(nodes, [("input", "b"), ("b", "output")], type_check=False)
    found = filled(graph)
    write_graph(found.graph, tmp_path / "a.nir")
    again = load_filled(tmp_path / "a.nir", Filling(), timed=True)
    assert again.plan.spiking[0].reset == "subtract-undecayed"
    assert "dialect" not in inner.nodes["n0"].metadata  # arguments stay as they are


def test_a_model_that_says_all_by_itself_takes_none_of_these() -> None:
    metadata = filled(network(as_snntorch_writes())).graph.metadata
    graph = network(ours(3))
    graph.metadata = metadata
    assert filled(graph).plan.spiking[0].V_th == 1
    said = refusal(graph, reset="lost", dt_s=1e-3)
    assert "model says itself how it steps; got --reset, --dt-s" in said


def test_every_word_of_a_step_makes_a_dialect_needless() -> None:
    words = {"reset": "value", "fires": ">", "spikes": "one", "leak": "euler", "start": "zero"}
    plan = filled(network(lif(3, r=f32(3, value=2))), dt_s=1e-4, **words).plan
    assert plan.spiking[0].reset == "value"


@pytest.mark.parametrize("value", ["1x", "axb", "1,2", "123456x2", "-1x4"])
def test_a_sensor_that_is_none_is_refused(value: str) -> None:
    said = refusal(small(), timed=True, dialect="nir", dt_s=1e-4, steps=1, step_us=1, sensor=value)
    assert "expected WxH" in said
    assert "--sensor" in said


def test_several_spikes_of_a_threshold_of_zero_are_refused() -> None:
    graph = network(as_norse_writes())
    graph.nodes["n0"].v_threshold = np.float32(0)
    with pytest.raises(ModelError, match="need a threshold"):
        filled(graph, dialect="sinabs", dt_s=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fires", "=", "'fires' is not known"),
        ("reset", 3, "'reset' has the wrong type"),
        ("dt_s", -1.0, "'dt_s' is out of range"),
        ("dt_s", np.nan, "'dt_s' is out of range"),
        ("start", None, "metadata lacks 'start'"),
    ],
)
def test_a_rule_that_cannot_be_is_one_line(key: str, value: Any, said: str) -> None:
    rule = StepRule.nir(1e-4).to_mapping() | {key: value}
    if value is None:
        del rule[key]
    graph = network(lif(3, metadata=rule))
    with pytest.raises(ModelError, match=said):
        filled(graph)


def test_every_dialect_has_a_rule_for_every_neuron() -> None:
    for name, dialect in DIALECTS.items():
        for node in (lif(3), nir.IF(full(1), full(1), full(0))):
            rule = filled(network(node), dialect=name, dt_s=1e-4).graph.nodes["n0"].metadata
            assert rule["dialect"] == name
            assert rule["dt_s"] == dialect.step_s(node, 1e-4)
