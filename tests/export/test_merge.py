"""Eq. 12 and the folds, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mpsl_export.checkpoint import Layer, read_checkpoint
from mpsl_export.merge import effective_weight, merge, parameter_counts


def _in_torch(layer: Layer) -> torch.Tensor:
    """(λ1·W1 + λ2·W2) + λ3·W3 in torch, written out."""
    tail = (1,) * (layer.banks[0].ndim - 1)
    parts = []
    for k, bank in enumerate(layer.banks):
        coefficient = torch.from_numpy(np.array(layer.coefficients[k]))
        if coefficient.ndim:
            coefficient = coefficient.reshape(-1, *tail)
        parts.append(coefficient * torch.from_numpy(bank.copy()))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def test_the_merged_weight_has_the_bits_of_torch(event_run: Any) -> None:
    layers = read_checkpoint(event_run.path).layers
    assert {len(layer.banks) for layer in layers} == {2, 3}
    for layer in layers:
        assert np.array_equal(
            effective_weight(layer).view(np.uint32), _in_torch(layer).numpy().view(np.uint32)
        )


def test_the_merged_weight_has_the_bits_of_training(event_run: Any) -> None:
    from mpsl_train.network.layers import NeuronSettings, SpikingLayer
    from mpsl_train.network.plasticity import RuleSettings, find_rule
    from mpsl_train.notation import parse

    specs = parse("8C3-AP2-12C3-AP2-20FC-8", (2, 17, 17))
    layers = read_checkpoint(event_run.path).layers
    for spec, layer in zip(specs, layers, strict=True):
        rules = [find_rule(name)(spec.weight_shape, RuleSettings()) for name in layer.mechanisms]
        coefficients = torch.nn.Parameter(torch.from_numpy(layer.coefficients.copy()))
        trained = SpikingLayer(spec, rules, coefficients, NeuronSettings())
        with torch.no_grad():
            for k, bank in enumerate(layer.banks):
                getattr(trained, f"W{k + 1}").copy_(torch.from_numpy(bank.copy()))
            expected = trained.effective_weight().numpy()
        assert np.array_equal(effective_weight(layer).view(np.uint32), expected.view(np.uint32))


def test_the_order_of_the_sum_matters_and_is_kept(event_run: Any) -> None:
    layer = read_checkpoint(event_run.path).layers[0]
    scaled = [c * bank for c, bank in zip(layer.coefficients, layer.banks, strict=True)]
    assert np.array_equal(effective_weight(layer), (scaled[0] + scaled[1]) + scaled[2])
    assert not np.array_equal(effective_weight(layer), scaled[0] + (scaled[1] + scaled[2]))


def test_a_plain_layer_is_left_as_it_is(event_run: Any) -> None:
    layer = read_checkpoint(event_run.path).layers[0]
    merged = merge(layer)
    assert merged.exact
    assert merged.weight.dtype == merged.bias.dtype == np.float32
    assert np.array_equal(merged.weight, effective_weight(layer))
    assert np.array_equal(merged.bias, layer.bias)


def test_a_pool_of_four_is_folded_exactly_and_not_into_the_bias(event_run: Any) -> None:
    layer = read_checkpoint(event_run.path).layers[2]
    assert layer.pool_before == 2
    merged = merge(layer)
    assert merged.exact
    assert np.array_equal(merged.weight * np.float32(4), effective_weight(layer))
    assert np.array_equal(merged.bias, layer.bias)


def test_a_pool_of_nine_is_folded_with_one_rounding_and_says_so(image_run: Any) -> None:
    layer = read_checkpoint(image_run.path).layers[1]
    assert layer.pool_before == 3
    merged = merge(layer)
    assert not merged.exact
    expected = (effective_weight(layer).astype(np.float64) / 9).astype(np.float32)
    np.testing.assert_array_max_ulp(merged.weight, expected, maxulp=1)


def test_folded_batch_normalisation_is_batch_normalisation(event_run: Any) -> None:
    layer = replace(read_checkpoint(event_run.path).layers[1], pool_before=1)
    assert layer.norm is not None
    merged = merge(layer)
    x = np.random.default_rng(0).integers(0, 3, (2, 8, 6, 6)).astype(np.float64)
    parts = [torch.from_numpy(np.array(part)).double() for part in (
        layer.norm.mean, layer.norm.var, layer.norm.weight, layer.norm.bias
    )]  # fmt: skip
    current = F.conv2d(
        torch.from_numpy(x), torch.from_numpy(effective_weight(layer)).double(),
        torch.from_numpy(layer.bias.copy()).double(),
    )  # fmt: skip
    expected = F.batch_norm(current, *parts, eps=layer.norm.eps)
    folded = F.conv2d(
        torch.from_numpy(x), torch.from_numpy(merged.weight).double(),
        torch.from_numpy(merged.bias).double(),
    )  # fmt: skip
    np.testing.assert_allclose(folded, expected, rtol=1e-6, atol=1e-6)
    assert not merged.exact


def test_the_merged_network_counts_as_many_parameters_as_one_rule(event_run: Any) -> None:
    checkpoint = read_checkpoint(event_run.path)
    counts = parameter_counts(checkpoint)
    weights = [layer.banks[0].size for layer in checkpoint.layers]
    biases = 8 + 12 + 20 + 8
    assert counts.merged == sum(weights) + biases
    assert counts.banks == 3 * sum(weights[:3]) + 2 * weights[3] + biases
