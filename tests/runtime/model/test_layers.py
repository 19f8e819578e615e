"""Shapes of layers: they follow from the input and the weights, or are refused by name."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.model.plan import Convolution, Pooling, Scaling

from .graphs import chain, conv, f32, lif, plan, refusal


@pytest.mark.parametrize("shape", [(5, 5), (3, 2, 5, 5), (0, 5, 5), (-2, 5, 5), (1 << 30, 4, 4)])
def test_an_input_shape_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    assert "'input'" in refusal(chain(shape, conv(), lif(4, 5, 5), out=(4, 5, 5)))


def test_weights_for_other_channels_are_refused() -> None:
    message = refusal(chain((3, 5, 5), conv(channels=2), lif(4, 5, 5), out=(4, 5, 5)))
    assert "weight does not fit the input" in message
    assert "'n0'" in message


def test_a_bias_of_another_length_is_refused() -> None:
    graph = chain((2, 5, 5), conv(bias=f32(3)), lif(4, 5, 5), out=(4, 5, 5))
    assert "bias does not fit" in refusal(graph)


def test_neurons_of_another_shape_are_refused() -> None:
    message = refusal(chain((2, 5, 5), conv(), lif(4, 5, 6), out=(4, 5, 6)))
    assert "does not fit the neurons" in message
    assert "'n1'" in message


def test_a_kernel_larger_than_its_input_is_refused() -> None:
    graph = chain((2, 5, 5), conv(kernel=(9, 9), padding=(0, 0)), lif(4, 1, 1), out=(4, 1, 1))
    assert "kernel is larger" in refusal(graph)


def test_groups_that_do_not_divide_are_refused() -> None:
    graph = chain((4, 5, 5), conv(filters=3, channels=2, groups=2), lif(3, 5, 5), out=(3, 5, 5))
    assert "weight does not fit" in refusal(graph)


def test_a_convolution_on_a_vector_is_refused() -> None:
    assert "needs an image" in refusal(chain((50,), conv(), lif(4, 5, 5), out=(4, 5, 5)))


def test_a_linear_layer_of_another_size_is_refused() -> None:
    graph = chain((4,), nir.Linear(weight=f32(2, 3)), lif(2), out=(2,))
    assert "weight does not fit" in refusal(graph)


def test_an_output_shape_that_does_not_follow_is_refused() -> None:
    assert "output shape does not fit" in refusal(chain((3,), lif(3), out=(4,)))


def test_a_stated_input_shape_that_does_not_follow_is_refused() -> None:
    graph = chain((2, 5, 5), conv(input_shape=(6, 5)), lif(4, 5, 5), out=(4, 5, 5))
    assert "input_shape does not fit" in refusal(graph)


def test_a_partial_flatten_is_refused() -> None:
    flatten = nir.Flatten(input_type={"input": None}, start_dim=1, end_dim=-1)
    assert "flattening to one dimension" in refusal(chain((2, 5, 5), flatten, lif(50), out=(50,)))


def test_a_signal_too_large_for_memory_is_refused() -> None:
    graph = chain((2, 9, 9), conv(padding=(1 << 15, 1 << 15)), lif(1), out=(1,))
    assert "signal is too large" in refusal(graph)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (4, 7, 6)),
        ({"padding": "valid"}, (4, 5, 4)),
        ({"padding": "same", "kernel": (4, 2)}, (4, 7, 6)),
        ({"stride": 2}, (4, 4, 3)),
        ({"stride": (2, 3), "padding": (0, 2)}, (4, 3, 3)),
        ({"dilation": (2, 1), "padding": 0}, (4, 3, 4)),
        ({"kernel": (5, 1), "padding": (0, 0)}, (4, 3, 6)),
    ],
)
def test_convolution_shapes_follow_torch(
    options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    result = plan(chain((2, 7, 6), conv(**options), lif(*expected), out=expected))
    assert result.nodes[0].output_shape == expected


def test_same_padding_puts_the_odd_one_at_the_end() -> None:
    graph = chain((2, 7, 6), conv(padding="same", kernel=(4, 2)), lif(4, 7, 6), out=(4, 7, 6))
    node = plan(graph).nodes[0]
    assert isinstance(node, Convolution)
    assert node.padding == ((1, 2), (0, 1))


def test_pools_drop_what_no_window_covers() -> None:
    pool = nir.AvgPool2d(
        kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])
    )
    node = plan(chain((2, 17, 5), pool, lif(2, 8, 2), out=(2, 8, 2))).nodes[0]
    assert isinstance(node, Pooling)
    assert node.output_shape == (2, 8, 2)
    assert node.scale == 0.25


def test_a_scale_of_one_element_is_spread() -> None:
    node = plan(chain((3,), nir.Scale(scale=f32(1, value=2)), lif(3), out=(3,))).nodes[0]
    assert isinstance(node, Scaling)
    np.testing.assert_array_equal(node.scale, [2, 2, 2])
