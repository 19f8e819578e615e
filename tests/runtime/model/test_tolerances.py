"""What exporters leak or leave out is taken as it is meant, and said; what has no meaning is
refused in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Convolution, Delay, Neuron

from .graphs import DT_S, chain, conv, f32, lif, plan, refusal


@pytest.mark.parametrize(
    ("stated", "node", "taken"),
    [
        ((1, 8), nir.Linear(f32(3, 8)), (8,)),
        ((1, 1, 8), nir.Linear(f32(3, 8)), (8,)),
        ((1, 2, 5, 5), conv(filters=3), (2, 5, 5)),
    ],
)
def test_ones_in_front_of_an_input_are_a_batch(
    stated: tuple[int, ...], node: nir.NIRNode, taken: tuple[int, ...]
) -> None:
    out = (3, 5, 5) if isinstance(node, nir.Conv2d) else (3,)
    result = plan(chain(stated, node, lif(*out), out=out))
    assert result.input_shape == taken
    assert result.notes == (f"Input {stated} is taken as {taken}",)


def test_one_channel_is_no_batch() -> None:
    result = plan(chain((1, 5, 5), conv(channels=1), lif(4, 5, 5), out=(4, 5, 5)))
    assert result.input_shape == (1, 5, 5)
    assert result.notes == ()


def test_a_convolution_over_a_row_is_one_over_an_image_of_height_one() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    row = nir.Conv1d(None, weight, 2, 1, 1, 1, f32(4))
    result = plan(chain((2, 9), row, lif(4, 5), out=(4, 5)))
    node = result.nodes[0]
    assert isinstance(node, Convolution)
    assert (node.input_shape, node.output_shape) == ((2, 1, 9), (4, 1, 5))
    assert (node.stride, node.padding, node.dilation) == ((1, 2), ((0, 0), (1, 1)), (1, 1))
    np.testing.assert_array_equal(node.weight[:, :, 0], weight)


@pytest.mark.parametrize(("padding", "length"), [("same", 9), ("valid", 7)])
def test_the_padding_of_a_row_may_be_a_word(padding: str, length: int) -> None:
    row = nir.Conv1d(None, f32(4, 2, 3), 1, padding, 1, 1, f32(4))
    assert plan(chain((2, 9), row, lif(4, length), out=(4, length))).output_shape == (4, 1, length)


def test_a_row_over_an_image_is_refused() -> None:
    row = nir.Conv1d(None, f32(4, 2, 3), 1, 1, 1, 1, f32(4))
    assert "Conv1d needs a row" in refusal(chain((2, 5, 5), row, lif(4, 5, 5), out=(4, 5, 5)))


def test_the_padding_same_with_a_stride_is_refused_in_words() -> None:
    graph = chain((2, 5, 5), conv(padding="same", stride=(2, 2)), lif(4, 3, 3), out=(4, 3, 3))
    assert "padding 'same' is not defined with a stride" in refusal(graph)


@pytest.mark.parametrize("stated", [None, (2, 5, 5), (1, 2, 5, 5)])
def test_a_flatten_that_leaves_the_batch_takes_all(stated: Any) -> None:
    flatten = nir.Flatten({"input": None if stated is None else np.array(stated)}, 1, -1)
    graph = chain((2, 5, 5), flatten, nir.Linear(f32(3, 50)), lif(3), out=(3,))
    result = plan(graph)
    assert result.nodes[0].output_shape == (50,)
    assert "for the batch" in result.notes[0]


def test_a_flatten_of_nothing_changes_nothing() -> None:
    flatten = nir.Flatten({"input": None}, 0, 0)
    result = plan(chain((2, 5, 5), flatten, conv(), lif(4, 5, 5), out=(4, 5, 5)))
    assert result.nodes[0].output_shape == (2, 5, 5)
    assert result.notes == ("'n0' flattens nothing",)


def test_a_delay_is_whole_steps_of_its_own_for_each_element() -> None:
    delay = nir.Delay(np.array([0, 1, 2.4]) * DT_S)
    result = plan(chain((3,), delay, lif(3), out=(3,)))
    node = result.nodes[0]
    assert isinstance(node, Delay)
    np.testing.assert_array_equal(node.steps, [0, 1, 2])
    assert result.notes == ("'n0' delays by no whole number of steps: the nearest",)


@pytest.mark.parametrize("seconds", [-1e-4, 1e9])
def test_a_delay_that_cannot_be_is_refused(seconds: float) -> None:
    graph = chain((3,), nir.Delay(np.full(3, seconds)), lif(3), out=(3,))
    assert "delay is out of range" in refusal(graph)


def test_a_delay_needs_the_length_of_a_step() -> None:
    assert "--dt-s" in refusal(chain((3,), nir.Delay(f32(3)), lif(3), out=(3,)), dt_s=None)


def test_a_number_for_each_channel_is_spread(tmp_path: Path) -> None:
    each = np.arange(1, 5, dtype=np.float32)[:, None, None]
    node = nir.LIF(each * 1e-3, each, 0 * each, each, v_reset=0 * each)
    nir.write(
        str(tmp_path / "a.nir"), chain((2, 5, 5), conv(input_shape=(5, 5)), node, out=(4, 5, 5))
    )
    neuron = load_plan(tmp_path / "a.nir", dt_s=DT_S).nodes[1]
    assert isinstance(neuron, Neuron)
    np.testing.assert_allclose(neuron.decay[:, 2, 3], 1 - DT_S / (each[:, 0, 0] * 1e-3))
    assert neuron.threshold.shape == (4, 5, 5)


def test_a_threshold_that_fires_at_every_step_is_said() -> None:
    result = plan(chain((3,), lif(3, v_threshold=f32(3, value=-1)), out=(3,)))
    assert result.notes == ("a threshold of 'n0' is ≤ 0: it fires at every step",)


@pytest.mark.parametrize(
    ("tau_s", "words"), [(np.inf, "an IF or an I, which have no leak"), (5e-6, "dt² is the step")]
)
def test_a_tau_that_cannot_be_says_what_may_be_meant(tau_s: float, words: str) -> None:
    assert words in refusal(chain((3,), lif(3, tau=f32(3, value=tau_s)), out=(3,)))


def test_v_starts_at_v_leak() -> None:
    neuron = plan(chain((3,), lif(3, v_leak=f32(3, value=0.25)), out=(3,))).nodes[0]
    assert isinstance(neuron, Neuron)
    assert neuron.initial is not None
    np.testing.assert_array_equal(neuron.initial, 0.25)
    silent = plan(chain((3,), lif(3), out=(3,))).nodes[0]
    assert isinstance(silent, Neuron)
    assert silent.initial is None


def test_a_bias_that_is_missing_is_zero_and_said() -> None:
    result = plan(chain((2, 5, 5), conv(bias=None), lif(4, 5, 5), out=(4, 5, 5)))
    assert result.notes == ("'n0' has no bias: 0",)
