"""The paper's notation for networks."""

from __future__ import annotations

import pytest

from mpsl_runtime.errors import RecipeError
from mpsl_train.notation import parse

PAPER = "128C3-AP2-256C3-AP2-256C3-AP2-512FC-10"


@pytest.mark.parametrize(
    ("shape", "millions"), [((1, 28, 28), 2.07), ((2, 34, 34), 2.99)], ids=["mnist", "nmnist"]
)
def test_the_papers_networks_have_the_papers_number_of_parameters(
    shape: tuple[int, int, int], millions: float
) -> None:
    assert round(sum(layer.parameters for layer in parse(PAPER, shape)) / 1e6, 2) == millions


def test_pooling_of_odd_sizes_drops_the_last_row_and_column() -> None:
    first, second, third, dense, _ = parse(PAPER, (2, 34, 34))
    assert [layer.neurons[1:] for layer in (first, second, third)] == [(34, 34), (17, 17), (8, 8)]
    assert dense.weight_shape == (512, 256 * 4 * 4)
    assert dense.flatten_before
    assert dense.pool_before == 2
    assert first.pool_before == 1


def test_stride_batch_norm_and_dropout_belong_to_the_right_layer() -> None:
    first, second, last = parse("64C3S2-BN-DP0.5-800FC-11FC", (2, 33, 33))
    assert first.neurons == (64, 17, 17)
    assert (first.stride, first.padding) == ((2, 2), (1, 1))
    assert (first.batchnorm, second.batchnorm, last.batchnorm) == (True, False, False)
    assert [layer.dropout_before for layer in (first, second, last)] == [0.0, 0.5, 0.0]
    assert second.weight_shape == (800, 64 * 17 * 17)
    assert [layer.name for layer in (first, second, last)] == ["L00", "L01", "L02"]


def test_kernels_of_one_and_five_keep_the_size() -> None:
    layers = parse("4C1-6C5-10", (1, 9, 9))
    assert layers[0].neurons == (4, 9, 9)
    assert layers[1].neurons == (6, 9, 9)


@pytest.mark.parametrize(
    ("network", "part"),
    [
        ("64K3-10", "64K3"),
        ("BN-10", "BN"),
        ("8C3-AP2-BN-10", "BN"),
        ("20FC-8C3-10", "8C3"),
        ("20FC-AP2-10", "AP2"),
        ("8C3-AP8-10", "AP8"),
        ("8C3", "8C3"),
        ("20FC-DP0.5", "DP0.5"),
        ("0FC-10", "0FC"),
        ("", "''"),
        ("9" * 5000 + "FC-10", "999"),
        ("8C" + "9" * 5000 + "-10", "999"),
        ("٣FC-10", "٣FC"),
    ],
)
def test_a_word_that_does_not_fit_is_named(network: str, part: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(network, (1, 6, 6))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
