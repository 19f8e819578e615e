"""How much of the current the local banks make: against the definition written with loops."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.data.batches import Samples, to_window
from mpsl_train.data.frames import metadata_of
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network
from mpsl_train.network.regulation import squared_currents
from mpsl_train.recipe import load
from mpsl_train.training.build import build
from mpsl_train.training.current_shares import current_shares, norm_share


def _network(recipe: Path, *overrides: str) -> Network:
    """Fresh, with local banks that are far from zero."""
    network = build(load(recipe, overrides), (2, 34, 34), 10)
    torch.manual_seed(3)
    for layer in network.layer_list:
        with torch.no_grad():
            layer.shared_coefficients.add_(0.3 * torch.rand_like(layer.shared_coefficients))
        for index, rule in enumerate(layer.rule_list, start=1):
            if not rule.learned:
                setattr(layer, f"W{index}", 0.03 * torch.randn(layer.spec.weight_shape))
    return network


def _samples(recipe: Path, count: int) -> Samples:
    frames = np.random.default_rng(1).poisson(0.3, (count, 3, 2, 34, 34)).astype(np.uint8)
    return Samples(frames, np.arange(count) % 10, metadata_of(load(recipe)))


def _current(layer: SpikingLayer, x: Tensor, which: slice) -> Tensor:
    """Of one sample and step, by the banks `which`, in float64."""
    if layer.spec.pool_before > 1:
        x = F.avg_pool2d(x, layer.spec.pool_before)
    weight = sum(
        value.double() * bank.double()
        for value, bank in zip(layer.coefficients[which], layer.banks[which], strict=True)
    )
    if layer.spec.kind == "conv":
        return F.conv2d(x, weight, None, layer.spec.stride, layer.spec.padding)
    return F.linear(x.flatten(1), weight)


@torch.no_grad()
def test_the_share_is_the_norm_of_what_the_banks_drive_over_that_of_all(
    small_recipe: Path,
) -> None:
    network, samples = _network(small_recipe), _samples(small_recipe, 7)
    found = current_shares(network, samples, samples.metadata, most=4)
    sums = [[0.0, 0.0] for _ in network.layer_list]
    for index in (0, 2, 4, 6):  # evenly spaced
        window = to_window(samples[(None, np.array([index]))][0])
        record = network.eval()(window, record=True).layers
        for step in range(3):
            x = window[step]
            for number, layer in enumerate(network.layer_list):
                for place, which in enumerate((slice(1, None), slice(None))):
                    part = _current(layer, x.double(), which)
                    sums[number][place] += float((part**2).sum())
                x = record[number][step]
    assert found == pytest.approx([sqrt(local / whole) for local, whole in sums], rel=1e-5)
    assert all(0.01 < share < 2 for share in found if share is not None)
    # Of random banks norm and current tell the same; of a bank along the mean input they do not.
    layer = network.layer_list[2]
    assert norm_share(layer) == pytest.approx(found[2] or 0.0, rel=0.5)
    x = torch.rand(50, *layer.spec.weight_shape[1:]) + 1
    layer.W2, layer.W3 = (
        1e-3 * x.mean(0).expand(layer.spec.weight_shape),
        torch.zeros_like(layer.W2),
    )
    local, whole = squared_currents(layer.eval(), x)
    assert sqrt(float(local / whole)) > 3 * (norm_share(layer) or 0.0)


def test_what_has_no_local_bank_or_no_current_has_no_share(small_recipe: Path) -> None:
    samples = _samples(small_recipe, 3)
    plain = _network(small_recipe, "mechanisms=stbp")
    assert current_shares(plain, samples, samples.metadata) == [None] * 4
    assert norm_share(plain.layer_list[0]) is None
    silent = _network(small_recipe, "neuron.threshold=1e6")
    first, *rest = current_shares(silent, samples, samples.metadata)
    assert first is not None
    assert rest == [None] * 3


def test_a_run_reports_it_for_each_layer(finished: Path) -> None:
    layers = json.loads((finished / "report.json").read_text("utf-8"))["layers"]
    for layer in layers:
        assert 0 < layer["current_share"] < 1
        assert 0 < layer["norm_share"] < 1
