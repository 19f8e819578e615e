"""Windows as CUDA graphs: exact against the fused window, and the fused window on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mpsl_train.network.dropout import draw_masks
from mpsl_train.network.graphed import _Window as Recorded
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.network.step_choice import graph_obstacle
from mpsl_train.notation import parse

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there")


PLAIN, DROPOUT = "4C3-AP2-5C3S2-7FC-3", "4C3-AP2-DP0.3-5C3S2-DP0.2-7FC-3"


def network(text: str = PLAIN, mechanisms: str = "stbp+hebbian+sbp") -> Network:
    torch.manual_seed(0)
    return build_network(
        parse(text, (2, 9, 9)), mechanisms.split("+"), NeuronSettings(), RuleSettings()
    ).train()


def trained(
    step: str, device: str, mechanisms: str, text: str = PLAIN
) -> tuple[list[float], Network]:
    """Losses of ten updates in float64, and the network after them."""
    net = network(text, mechanisms).double().to(device)
    net.step = step
    frames = torch.poisson(torch.full((6, 2, 9, 9), 0.5, dtype=torch.float64)).to(device)
    labels = torch.arange(6, device=device) % 3
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        spikes = net(frames, 5).spikes
        loss = F.mse_loss(spikes.mean(0), F.one_hot(labels, 3).to(spikes))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses, net


@needs_cuda
@pytest.mark.parametrize("text", [PLAIN, DROPOUT])
@pytest.mark.parametrize("mechanisms", ["stbp", "stbp+hebbian", "stbp+hebbian+sbp"])
def test_graphs_learn_what_the_fused_window_learns(mechanisms: str, text: str) -> None:
    torch.manual_seed(5)
    one, fused = trained("auto", "cuda", mechanisms, text)
    torch.manual_seed(5)
    other, graphed = trained("graphed", "cuda", mechanisms, text)
    assert graphed.taken.startswith("fused (CUDA graphs, ")
    assert one == pytest.approx(other, rel=1e-9)
    for (name, a), b in zip(fused.state_dict().items(), graphed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=name)


def test_on_a_cpu_it_is_the_fused_window() -> None:
    torch.manual_seed(5)
    one, fused = trained("fused", "cpu", "stbp+hebbian+sbp")
    torch.manual_seed(5)
    other, graphed = trained("graphed", "cpu", "stbp+hebbian+sbp")
    assert graphed.taken == fused.taken
    assert one == other


def test_what_a_graph_records_says_what_is_to_be_committed_and_what_is_not_finite() -> None:
    nets = [network().double() for _ in range(2)]
    frames = torch.poisson(torch.full((6, 2, 9, 9), 0.5, dtype=torch.float64))
    with torch.no_grad():  # so that the cap holds something
        nets[0].layer_list[3].rule_list[1].eta_hat.fill_(1e4)  # type: ignore[union-attr,operator]
    nets[1].load_state_dict(nets[0].state_dict())
    _, _, finite, *rest = Recorded(nets[0].layer_list, 5)(frames)
    nets[1](frames, 5)
    assert bool(finite)
    for index, layer in enumerate(nets[1].layer_list):
        for new, expected in zip(rest[3 * index + 1 : 3 * index + 3], layer.banks[1:], strict=True):
            assert bool(expected.any())
            torch.testing.assert_close(new, expected, rtol=1e-12, atol=0)
    last = nets[1].layer_list[3]
    assert float(last.banks[1].norm() / last.banks[0].detach().norm()) == pytest.approx(0.25)
    with torch.no_grad():
        nets[0].layer_list[1].bias[2] = float("nan")
    assert not bool(Recorded(nets[0].layer_list, 5)(frames)[2])


def test_dropout_is_recorded_and_batch_normalisation_is_not() -> None:
    frames = torch.zeros(6, 2, 9, 9)
    assert graph_obstacle(network().layer_list, frames) is None
    assert graph_obstacle(network(DROPOUT).layer_list, frames) is None
    assert "normalisation" in str(graph_obstacle(network("4C3-BN-3").layer_list, frames))


def test_what_a_graph_records_takes_the_masks_as_they_are_drawn() -> None:
    """The function that is recorded, called as it is: two draws give two windows."""
    net = network(DROPOUT).double()
    frames = torch.poisson(torch.full((6, 2, 9, 9), 0.5, dtype=torch.float64))
    recorded = Recorded(net.layer_list, 5)
    spikes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        masks = draw_masks([layer.spec for layer in net.layer_list], frames)
        found, *_ = recorded(frames, *[mask for mask in masks if mask is not None])
        torch.manual_seed(seed)
        expected = net(frames, 5).spikes
        for layer in net.layer_list:  # both begin with the same banks
            for index, rule in enumerate(layer.rule_list, start=1):
                if not rule.learned:
                    setattr(layer, f"W{index}", torch.zeros_like(layer.banks[index - 1]))
        assert torch.equal(found, expected)
        spikes.append(found)
    assert not torch.equal(*spikes)
