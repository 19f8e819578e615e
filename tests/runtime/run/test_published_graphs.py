"""Graphs of other frameworks, with what these computed, where `../shared` is there.

`../shared/cases/nir/NAME.npz` holds `input` [T, …] and `expected` [T, K]; NAME.txt says how it was
made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.filling import Filling, load_filled
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

SHARED = Path(__file__).resolve().parents[4] / "shared"
CASES = SHARED / "cases" / "nir"
GRAPHS = SHARED / "data" / "nir"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases here")

# By NIR's own meaning.
STEP_S = dict.fromkeys(
    [
        "edge_conv_no_bias", "edge_cubali_readout", "edge_delay_3steps", "edge_ends_in_affine",
        "edge_flatten_1_batch", "edge_flatten_input_dict", "edge_flatten_noop_0_0",
        "edge_input_batch1", "edge_input_batch1_img", "edge_nested_graph",
        "edge_node_extra_dataset", "edge_output_111", "edge_output_missing", "edge_recurrent_edge",
        "edge_residual_sum", "edge_scalar0d_mixed", "edge_unused_node", "in_blocks_ok",
        "in_braille_zero",
    ],
    1e-4,
)  # fmt: skip

# As their framework fills them in, and the step that follows from that.
WRITTEN_BY = {
    "in_linear_readout": "spikingjelly",
    "in_norse_dt": "norse",
    "in_norse_scalar": "norse",
    "in_recurrent_snntorch_subtract": "snntorch",
    "in_residual_spikingjelly": "spikingjelly",
    "in_sinabs_default_multispike": "sinabs",
    "in_snntorch_subtract": "snntorch",
    "in_snntorch_synaptic_subtract": "snntorch",
    "in_tie_spikingjelly_lif": "spikingjelly",
    "in_vleak_norse": "norse",
    "in_vreset_spikingjelly": "spikingjelly",
}

NOTED = {
    "edge_conv_no_bias": "'c' has no bias: 0",
    "edge_flatten_1_batch": "'f' takes its first dimension for the batch: flattens all",
    "edge_flatten_noop_0_0": "'f' flattens nothing",
    "edge_input_batch1": "Input (1, 8) is taken as (8,)",
    "edge_input_batch1_img": "Input (1, 2, 8, 10) is taken as (2, 8, 10)",
    "edge_node_extra_dataset": "Affine has extra, which NIR does not know: left alone",
    "edge_output_111": "Output (1, 1, 6) is taken as (6,)",
    "edge_output_missing": "no Output: it is 'l'",
    "edge_unused_node": "the output does not see 'spare'",
}


@pytest.mark.parametrize("program", [Reference, Engine])
@pytest.mark.parametrize("name", STEP_S)
def test_a_foreign_graph_gives_what_its_framework_gave(
    name: str, program: type[Reference] | type[Engine]
) -> None:
    plan = load_plan(CASES / f"{name}.nir", dt_s=STEP_S[name])
    assert_equals_the_case(plan, name, program)
    assert plan.notes == ((NOTED[name],) if name in NOTED else ())


@pytest.mark.parametrize("program", [Reference, Engine])
@pytest.mark.parametrize("name", WRITTEN_BY)
def test_a_graph_gives_what_its_framework_gave_once_that_is_known_by_its_numbers(
    name: str, program: type[Reference] | type[Engine]
) -> None:
    path = CASES / f"{name}.nir"
    found = load_filled(path, Filling(), timed=True)
    assert found.lines[0].startswith(f"--from {WRITTEN_BY[name]}:")
    assert_equals_the_case(found.plan, name, program)
    plain = load_filled(path, Filling(dialect=WRITTEN_BY[name]), timed=True)
    assert_equals_the_case(plain.plan, name, program)


def test_one_spike_a_step_is_asked_for() -> None:
    found = load_filled(CASES / "in_sinabs_single_subtract.nir", Filling(spikes="one"), timed=True)
    assert_equals_the_case(found.plan, "in_sinabs_single_subtract", Engine)


def assert_equals_the_case(plan: Plan, name: str, program: type[Reference] | type[Engine]) -> None:
    case = np.load(CASES / f"{name}.npz")
    given = case["input"].astype(np.float32)
    output = program(plan).run(given.reshape(len(given), *plan.input_shape))
    expected = case["expected"].reshape(len(given), -1)
    assert expected.any()
    last = plan.output_neuron
    if last is None or last.kind == "integrating":
        np.testing.assert_allclose(output, expected, atol=1e-4)
    else:
        np.testing.assert_array_equal(output, expected)


def test_a_signal_of_two_dimensions_runs() -> None:
    plan = load_plan(CASES / "edge_lif_on_2d.nir", dt_s=1e-4)
    assert plan.input_shape == (4, 1, 8)


def test_a_name_with_a_slash_is_refused() -> None:
    with pytest.raises(ModelError, match="which nests in HDF5; got 'blk/a'"):
        load_plan(CASES / "edge_name_slash.nir", dt_s=1e-4)


@pytest.mark.parametrize(
    "name",
    ["braille_047410e", "braille_noDelay_bias_zero", "braille_subgraph_77b4a80", "cnn_sinabs",
     "lif_norse", "lif_rockpool", "scnn_mnist_232ebad"],
)  # fmt: skip
def test_a_published_graph_runs(name: str) -> None:
    dt_s = 1.0 if name in ("cnn_sinabs", "braille_subgraph_77b4a80") else 1e-4
    plan = load_plan(GRAPHS / f"{name}.nir", dt_s=dt_s)
    given = np.random.default_rng(0).random((8, *plan.input_shape)) < 0.3
    frames = given.astype(np.float32)
    output = Engine(plan).run(frames)
    assert output.shape == (8, *plan.output_shape)
    np.testing.assert_array_equal(output, Reference(plan).run(frames))


@pytest.mark.parametrize("name", ["braille_a7c67c3", "braille_v2_50b2fc2"])
def test_a_graph_with_parts_missing_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="edge to a node that is not there"):
        load_plan(GRAPHS / f"{name}.nir", dt_s=1e-4)


def test_the_single_neuron_of_the_nir_paper_spikes_as_it_does_in_norse() -> None:
    given, _, spikes = np.loadtxt(GRAPHS / "traces" / "lif_norse.csv", delimiter=",").T
    plan = load_plan(GRAPHS / "lif_norse.nir", dt_s=1e-4)
    output = Reference(plan).run(given.astype(np.float32)[:, None])
    assert spikes.any()
    np.testing.assert_array_equal(output[:, 0], spikes)
