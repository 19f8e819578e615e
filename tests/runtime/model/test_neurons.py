"""Neurons of NIR as one step of ours, and ours as NIR."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.graph import encode_neuron
from mpsl_runtime.model.plan import Neuron

from .graphs import DT_S, chain, f32, lif, ours, plan, refusal, small


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("threshold", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_our_neurons_come_back_exactly(decay: float, threshold: float, reset: str) -> None:
    node = ours(3, threshold=threshold, decay=decay, reset=reset)
    neuron = plan(chain((3,), node, out=(3,)), dt_s=None).nodes[0]
    assert isinstance(neuron, Neuron)
    np.testing.assert_array_equal(neuron.decay, np.float32(decay))
    np.testing.assert_array_equal(neuron.threshold, np.float32(threshold))
    assert neuron.reset == ("subtract" if reset == "subtract" else "value")
    assert not neuron.has_input_map


@pytest.mark.parametrize(
    ("key", "factor", "attribute", "expected"),
    [
        ("v_threshold", 1.05, "threshold", 1.05),
        ("tau", 2.0, "decay", 0.875),
        ("r", 3.0, "gain", 3.0),
    ],
)
def test_a_changed_node_runs_as_changed_not_as_its_metadata_says(
    key: str, factor: float, attribute: str, expected: float
) -> None:
    changed = encode_neuron(1.0, 0.75, (3,), DT_S)[key] * np.float32(factor)
    neuron = plan(chain((3,), ours(3, **{key: changed}), out=(3,))).nodes[0]
    np.testing.assert_allclose(getattr(neuron, attribute), expected, rtol=1e-6)
    assert neuron.reset == "subtract"


def test_our_neuron_without_a_leak_is_an_if_that_other_frameworks_read() -> None:
    node = ours(2, threshold=0.3, decay=1.0)
    assert isinstance(node, nir.IF)
    np.testing.assert_array_equal(node.r, 1)
    np.testing.assert_array_equal(node.v_reset, 0)
    below = np.nextafter(np.float32(0.3), np.float32(0))
    np.testing.assert_array_equal(node.v_threshold, below)
    neuron = plan(chain((2,), node, out=(2,)), dt_s=None).nodes[0]
    assert isinstance(neuron, Neuron)
    assert (neuron.V_th, neuron.rho, neuron.has_input_map) == (0.3, 1.0, False)


@pytest.mark.parametrize(
    ("key", "attribute", "expected"), [("v_threshold", "threshold", 0.6), ("r", "gain", 2.0)]
)
def test_a_changed_if_of_ours_runs_as_changed(key: str, attribute: str, expected: float) -> None:
    node = ours(3, threshold=0.3, decay=1.0)
    setattr(node, key, getattr(node, key) * np.float32(2))
    neuron = plan(chain((3,), node, out=(3,)), dt_s=None).nodes[0]
    assert isinstance(neuron, Neuron)
    np.testing.assert_allclose(getattr(neuron, attribute), expected, rtol=1e-6)
    np.testing.assert_array_equal(neuron.decay, 1)
    assert (neuron.reset, neuron.V_th, neuron.rho) == ("subtract", None, None)


def test_a_lif_whose_metadata_say_that_it_has_no_leak_runs_as_the_lif_that_it_is() -> None:
    node = ours(3)
    node.metadata = {**node.metadata, "decay": 1.0}
    neuron = plan(chain((3,), node, out=(3,)), dt_s=None).nodes[0]
    assert isinstance(neuron, Neuron)
    np.testing.assert_allclose(neuron.decay, 0.75)


def test_a_foreign_lif_is_one_euler_step_of_its_equation() -> None:
    node = nir.LIF(
        tau=f32(2, value=1e-3), r=f32(2, value=3), v_leak=f32(2, value=0.5),
        v_reset=f32(2, value=-1), v_threshold=f32(2, value=2),
    )  # fmt: skip
    neuron = plan(chain((2,), node, out=(2,)), dt_s=2e-4).nodes[0]
    np.testing.assert_allclose(neuron.decay, 0.8)
    np.testing.assert_allclose(neuron.gain, 0.6)
    np.testing.assert_allclose(neuron.leak, 0.1)
    np.testing.assert_array_equal(neuron.threshold, np.nextafter(np.float32(2), np.float32(3)))
    np.testing.assert_array_equal(neuron.reset_value, -1)
    assert neuron.reset == "value"
    assert neuron.has_input_map


def test_integrate_and_fire_neurons_keep_everything() -> None:
    node = nir.IF(r=f32(2, value=4), v_threshold=f32(2), v_reset=f32(2, value=0))
    neuron = plan(chain((2,), node, out=(2,)), dt_s=0.25).nodes[0]
    np.testing.assert_array_equal(neuron.decay, 1)
    np.testing.assert_array_equal(neuron.gain, 1)


def test_cuba_neurons_have_a_synapse() -> None:
    node = nir.CubaLIF(
        tau_syn=f32(2, value=4e-4), tau_mem=f32(2, value=2e-4), r=f32(2), v_leak=f32(2, value=0),
        v_threshold=f32(2), v_reset=f32(2, value=0), w_in=f32(2, value=8),
    )  # fmt: skip
    neuron = plan(chain((2,), node, out=(2,)), dt_s=1e-4).nodes[0]
    np.testing.assert_allclose(neuron.synaptic_decay, 0.75)
    np.testing.assert_allclose(neuron.synaptic_gain, 2.0)
    np.testing.assert_allclose(neuron.decay, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": f32(3, value=0)}, "tau is not positive"),
        ({"tau": f32(3, value=-1e-3)}, "tau is not positive"),
        ({"tau": f32(3, value=1e-6)}, "tau is shorter than a step"),
        ({"tau": f32(3, value=np.nan)}, "tau is not finite"),
        ({"r": f32(3, value=np.inf)}, "r is not finite"),
        ({"v_threshold": f32(3, value=np.nan)}, "v_threshold is not finite"),
    ],
)
def test_neurons_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(chain((3,), lif(3, **changes), out=(3,)))


def test_a_foreign_model_needs_the_length_of_a_step() -> None:
    message = refusal(small(), dt_s=None)
    assert "--dt-s" in message
    assert "'n1'" in message


@pytest.mark.parametrize("dt_s", [0.0, -1.0, np.nan, np.inf])
def test_a_step_that_does_not_last_is_refused(dt_s: float) -> None:
    assert "dt_s" in refusal(small(), dt_s=dt_s)


@pytest.mark.parametrize(
    ("threshold", "decay", "dt_s"), [(0, 0.5, 1), (1, 1.01, 1), (1, -0.1, 1), (1, 0.5, 0)]
)
def test_neurons_that_nir_cannot_say_are_not_encoded(
    threshold: float, decay: float, dt_s: float
) -> None:
    with pytest.raises(UsageError):
        encode_neuron(threshold, decay, (2,), dt_s)


def test_the_encoding_fires_on_greater_where_we_fire_on_greater_or_equal() -> None:
    encoded = encode_neuron(0.3, 0.75, (2, 3), DT_S)
    exact = np.float32(0.25 * 0.3)
    assert (exact > encoded["v_threshold"]).all()
    assert not (np.nextafter(exact, np.float32(0)) > encoded["v_threshold"]).any()
    assert {name: value.shape for name, value in encoded.items()} == dict.fromkeys(
        ("tau", "r", "v_leak", "v_reset", "v_threshold"), (2, 3)
    )


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (nir.Threshold(threshold=f32(3, value=np.finfo(np.float32).max)), "threshold"),
        (ours(3, v_threshold=f32(3, value=3e38)), "threshold"),
        (ours(3, v_reset=f32(3, value=-3e38)), "reset value"),
        (nir.IF(r=f32(3, value=1e38), v_threshold=f32(3), v_reset=f32(3)), "gain"),
    ],
)
def test_what_a_step_computes_with_fits_float32(node: nir.NIRNode, what: str) -> None:
    """Every number of the file does; rescaled to a step it does not."""
    said = refusal(chain((3,), node, out=(3,)), dt_s=1e4)
    assert f"{what} of a step is beyond float32" in said


@pytest.mark.parametrize("size", [1, 3])
def test_one_number_for_all_neurons_is_a_view_of_one(size: int) -> None:
    node = nir.LIF(tau=f32(size), r=f32(size), v_leak=0 * f32(size), v_threshold=f32(size))
    neuron = plan(chain((3,), node, out=(3,))).nodes[0]
    assert isinstance(neuron, Neuron)
    strides = {array.strides for array in (neuron.decay, neuron.threshold, neuron.gain)}
    assert strides == ({(0,)} if size == 1 else {(4,)})
    assert neuron.reset_value.shape == (3,)
