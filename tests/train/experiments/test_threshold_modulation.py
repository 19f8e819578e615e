"""TM-NORM: the equation of the paper, and that it changes nothing where a network was trained."""

from __future__ import annotations

import pytest
import torch

from mpsl_train.experiments.threshold_modulation import ThresholdModulation
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    specs = parse("4C3S2-AP2-12FC-5", (2, 12, 12))
    return build_network(specs, ["stbp"], NeuronSettings(), RuleSettings(), init_gain=3.0).eval()


def window(seed: int, rate: float = 0.5, batch: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((4, batch, 2, 12, 12), rate), generator=generator)


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_what_is_as_in_training_meets_the_trained_threshold(
    network: Network, momentum: float
) -> None:
    frames = window(0)
    modulation = ThresholdModulation(network, [frames], momentum=momentum)
    with torch.no_grad():
        plain = network(frames).spikes
    assert 0 < plain.mean() < 1
    assert float((modulation(frames).spikes != plain).float().mean()) < 1e-3
    for index, layer in enumerate(network.layer_list):
        membrane = torch.zeros(8, layer.spec.weight_shape[0])
        modulation.momentum = 1e-30  # nothing is taken in
        threshold = modulation._threshold(index, 2, membrane)
        assert torch.allclose(threshold, torch.full_like(threshold, 0.3), atol=1e-5)


def test_the_threshold_follows_membranes_that_are_scaled_and_shifted(network: Network) -> None:
    modulation = ThresholdModulation(network, [window(0, batch=64)], momentum=1.0)
    torch.manual_seed(1)
    mean, deviation = modulation.means[1][3].clone(), modulation.variances[1][3].sqrt()
    drawn = torch.randn(4096, 12)
    drawn = (drawn - drawn.mean(0)) / drawn.std(0, unbiased=False)
    membrane = mean + deviation * drawn
    threshold = modulation._threshold(1, 3, 2 * membrane - 0.5).view(-1)
    alive = deviation > 0.05  # where ε does not count
    assert int(alive.sum()) > 3
    assert torch.allclose(threshold[alive], torch.full((12,), 2 * 0.3 - 0.5)[alive], atol=2e-3)


def test_statistics_run_with_their_momentum_and_begin_anew(network: Network) -> None:
    modulation = ThresholdModulation(network, [window(0)], momentum=0.25)
    before, louder = [mean.clone() for mean in modulation.means], window(1, rate=2.0)
    modulation(louder)
    moved = (modulation.means[0] - before[0])[0]  # later membranes depend on the thresholds
    whole = ThresholdModulation(network, [window(0)], momentum=1.0)
    whole(louder)
    assert torch.allclose(moved, 0.25 * (whole.means[0] - before[0])[0], atol=1e-6)
    assert float(moved.abs().max()) > 0.01
    modulation.reset()
    assert all(torch.equal(a, b) for a, b in zip(modulation.means, before, strict=True))


def test_one_sample_tells_nothing_of_a_fully_connected_layer(network: Network) -> None:
    modulation = ThresholdModulation(network, [window(0)], momentum=0.5)
    before = [mean.clone() for mean in modulation.means]
    modulation(window(1, rate=2.0, batch=1))
    changed = [not torch.equal(a, b) for a, b in zip(modulation.means, before, strict=True)]
    assert changed == [True, False, False]


def test_the_first_layer_of_a_louder_input_is_calmed(network: Network) -> None:
    modulation = ThresholdModulation(network, [window(0, batch=32)], momentum=1.0)
    louder = window(2, rate=1.5, batch=32)
    with torch.no_grad():
        usual = network(window(0, batch=32), record=True).layers[0].mean()
        plain = network(louder, record=True).layers[0].mean()
    spikes, _ = modulation.layer(0, louder, 4)
    assert abs(float(spikes.mean() - usual)) < 0.5 * abs(float(plain - usual))
