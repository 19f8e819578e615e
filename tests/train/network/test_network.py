"""A whole window against Algorithm 1 written out, gradients, guards, and evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.dropout import draw_masks
from mpsl_train.network.finite import NonFiniteError
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.network.regulation import BankLimits
from mpsl_train.notation import parse

ALL = ["stbp", "hebbian", "sbp"]
NEURON = NeuronSettings()


def _network(text: str = "3C3-AP2-4C3S2-6FC-3", mechanisms: list[str] = ALL, **more) -> Network:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = build_network(
        parse(text, (2, 9, 9)),
        mechanisms,
        NEURON,
        RuleSettings(tau_w_steps=5.0, eta_hat=3.0),
        **more,
    )
    with torch.no_grad():
        for layer in network.layer_list:
            for rule in layer.rule_list:
                for parameter in rule.parameters():
                    parameter.add_(0.3 * torch.rand_like(parameter))
            layer.shared_coefficients.add_(0.2 * torch.rand_like(layer.shared_coefficients))
            for index in range(2, len(layer.rules) + 1):
                bank = getattr(layer, f"W{index}")
                setattr(layer, f"W{index}", 0.02 * torch.randn_like(bank))
    return network


def _frames(batch: int = 4, steps: int = 5) -> Tensor:
    return torch.poisson(torch.full((steps, batch, 2, 9, 9), 0.5, dtype=torch.float64),
                         generator=torch.Generator().manual_seed(3))  # fmt: skip


def literal_window(network: Network, frames: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Algorithm 1: three separate convolutions a step, banks by the equations, no detour."""
    layers = network.layer_list
    banks = [[bank.detach().clone() for bank in layer.banks] for layer in layers]
    potential: list[Tensor | float] = [0.0] * len(layers)
    spikes: list[Tensor | float] = [0.0] * len(layers)
    out = []
    d = math.exp(-1 / 5.0)
    for frame in frames:
        x, inputs = frame, []
        for n, layer in enumerate(layers):
            spec = layer.spec
            if spec.pool_before > 1:
                x = F.avg_pool2d(x, spec.pool_before)
            x = x.flatten(1) if spec.flatten_before else x
            inputs.append(x)
            current: Tensor | float = 0.0
            for coefficient, bank in zip(layer.coefficients.detach(), banks[n], strict=True):
                current = current + coefficient * (
                    F.conv2d(x, bank, None, spec.stride, spec.padding)
                    if spec.kind == "conv"
                    else x @ bank.t()
                )
            bias = layer.bias.detach()
            current = current + (bias[:, None, None] if spec.kind == "conv" else bias)
            potential[n] = 0.75 * (potential[n] - 0.3 * spikes[n]) + current
            spikes[n] = (potential[n] >= 0.3).double()
            x = spikes[n]
        out.append(x)
        changes: list[Tensor] = []
        for n, layer in enumerate(layers):
            spec, rule = layer.spec, layer.rules["hebbian"]
            g = torch.tanh(potential[n] / 0.3)
            if spec.kind == "conv":
                patches = F.unfold(inputs[n], spec.weight_shape[2:], 1, spec.padding, spec.stride)
                c = torch.einsum("bol,bil->oi", g.flatten(2), patches)
                p = patches.sum((0, 2))
                count = patches.shape[0] * patches.shape[2]
            else:
                c, p, count = g.t() @ inputs[n], inputs[n].sum(0), len(g)
            eta = rule.eta_hat.detach() * (1 - d) / spec.fan_in
            change = eta * (c + rule.beta.detach()[:, None] * p) / count
            changes.append(change.view(spec.weight_shape))
        for n, layer in enumerate(layers):
            rule = layer.rules["sbp"]
            fraction = 0.1 + 0.9 * torch.sigmoid(rule.theta_f.detach())
            steering = 0.1 + 0.9 * torch.sigmoid(rule.theta_p.detach())
            factor = torch.ones(layer.spec.weight_shape[0], dtype=torch.float64)
            if n + 1 < len(layers):
                above = changes[n + 1]
                r = above.sum((0, 2, 3)) if above.dim() == 4 else above.sum(0)
                r = r.view(len(factor), -1).sum(1)
                factor = 1 + steering * r / (r.abs().sum() + 1e-12)
            shape = (-1, *[1] * (changes[n].dim() - 1))
            banks[n][1] = d * banks[n][1] + changes[n]
            banks[n][2] = d * banks[n][2] + fraction * factor.view(shape) * changes[n]
    return torch.stack(out), banks


def test_a_window_is_algorithm_1_with_three_separate_convolutions() -> None:
    network = _network(limits=BankLimits(0.0)).double().train()
    expected, banks = literal_window(network, _frames())
    before = [layer.banks[1].clone() for layer in network.layer_list]
    output = network(_frames())
    assert 0.05 < float(expected.mean()) < 0.95
    assert torch.equal(output.spikes, expected)
    for layer, wanted, old in zip(network.layer_list, banks, before, strict=True):
        for bank, value in zip(layer.banks, wanted, strict=True):
            torch.testing.assert_close(bank.detach(), value, rtol=1e-10, atol=1e-14)
        assert float((layer.banks[1] - old).abs().max()) > 1e-4


def test_the_global_error_reaches_every_parameter_of_the_rules() -> None:
    network = _network().double().train()
    output = network(_frames(batch=8))
    target = F.one_hot(torch.arange(8) % 3, 3).double()
    F.mse_loss(output.spikes.mean(0), target).backward()
    seen = 0
    for layer in network.layer_list:
        last = layer is network.layer_list[-1]
        for name, parameter in layer.named_parameters():
            if last and name == "rules.sbp.theta_p":
                continue  # λ_p has no part in the last layer
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, f"{layer.spec.name} {name}"
            seen += 1
    assert seen == 4 * 7 - 1


def test_flow_changes_gradients_but_not_the_window() -> None:
    results = []
    for flow in (False, True):
        network = _network(flow=flow).double().train()
        output = network(_frames())
        output.spikes.mean(0)[:, 0].sum().backward()
        gradient = network.layer_list[0].W1.grad
        results.append((output.spikes.detach(), gradient.clone()))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][1], results[1][1])


def test_banks_are_capped_when_they_are_committed() -> None:
    network = _network(limits=BankLimits(0.01)).train()
    network(_frames().float())
    for layer in network.layer_list:
        for bank in layer.banks[1:]:
            assert float(bank.norm()) <= 0.01 * float(layer.W1.detach().norm()) * (1 + 1e-5)
            assert float(bank.norm()) > 0
            assert not bank.requires_grad


def test_two_windows_can_be_run_before_the_backward_pass() -> None:
    """Committed by copying in place, autograd would find its saved tensors changed."""
    network = _network().train()
    loss = network(_frames().float()).spikes.sum() + network(_frames().float()).spikes.sum()
    loss.backward()
    assert float(network.layer_list[0].W1.grad.abs().max()) > 0


def test_the_effective_weight_is_summed_in_the_order_of_the_banks() -> None:
    for scope in ("layer", "channel", "global"):
        network = _network(coefficient_scope=scope)
        for layer in network.layer_list:
            w1, w2, w3 = (bank.detach() for bank in layer.banks)
            a, b, c = (
                value.view(-1, *[1] * (w1.dim() - 1)) for value in layer.coefficients.detach()
            )
            assert torch.equal(layer.effective_weight().detach(), (a * w1 + b * w2) + c * w3)


def _on_a_grid(network: Network) -> Network:
    """Weights that are multiples of 1/64 make every sum exact, whatever the order."""
    with torch.no_grad():
        for layer in network.layer_list:
            layer.shared_coefficients.fill_(2.0)
            for tensor in [*layer.banks, layer.bias]:
                tensor.copy_((tensor * 64).round() / 64)
    return network


def test_at_evaluation_a_sample_does_not_depend_on_its_batch() -> None:
    network = _on_a_grid(_network()).eval()
    frames = _frames(batch=7).float()
    with torch.no_grad():
        together = network(frames)
        for index in range(7):
            alone = network(frames[:, index : index + 1])
            assert torch.equal(alone.spikes[:, 0], together.spikes[:, index])
            assert torch.equal(alone.membrane[0], together.membrane[index])
    assert 0 < float(together.spikes.mean()) < 1


def test_evaluation_changes_nothing() -> None:
    network = _network("3C3-BN-AP2-6FC-3").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(_frames().float())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_both_ways_through_a_window_give_the_same_spikes() -> None:
    """Folded over T as at evaluation, and step by step as a plastic network runs."""
    network = _on_a_grid(_network(mechanisms=["stbp"])).eval()
    frames = _frames().float()
    with torch.no_grad():
        folded = network(frames, record=True)
        stepped = network._step_by_step(frames, len(frames), True, [None] * len(network.layers))
    for one, other in zip(folded.layers, stepped.layers, strict=True):
        assert torch.equal(one, other)
        assert 0 < float(one.mean()) < 1


def test_a_constant_current_is_the_frame_repeated() -> None:
    for mechanisms in (["stbp"], ALL):
        frame = _frames(steps=1)[0].float()
        results = []
        for given, steps in ((frame, 4), (frame.expand(4, *frame.shape), 0)):
            network = _network(mechanisms=mechanisms).train()
            results.append(network(given, steps).spikes)
        assert torch.equal(results[0], results[1])


def test_batch_norm_uses_the_statistics_of_each_step_in_training() -> None:
    network = _network("3C3-BN-AP2-6FC-3", mechanisms=["stbp"]).train()
    frames = _frames().float()
    layer = network.layer_list[0]
    expected = F.batch_norm(
        F.conv2d(frames[0], layer.effective_weight(), layer.bias, padding=1), None, None,
        training=True,
    )  # fmt: skip
    first = network(frames, record=True).layers[0][0]
    assert torch.equal(first, (expected >= 0.3).float())


def test_dropout_is_one_mask_for_all_steps() -> None:
    network = _network("DP0.5-6FC-3", mechanisms=["stbp"]).train()
    layer = network.layer_list[0]
    ones = torch.ones(2, 2, 9, 9)
    state = layer.begin(draw_masks([layer.spec], ones)[0])
    first, second = layer.prepare(ones, state), layer.prepare(ones, state)
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 2.0}


def test_only_fully_connected_layers_are_plastic_when_the_recipe_says_so() -> None:
    network = _network(plastic_layers="fc")
    assert [layer.mechanisms for layer in network.layer_list] == [
        ("stbp",), ("stbp",), ("stbp", "hebbian", "sbp"), ("stbp", "hebbian", "sbp"),
    ]  # fmt: skip
    network.train()(_frames().float()).spikes.sum().backward()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_membrane_that_is_not_finite_is_named_and_no_bank_is_committed(value: float) -> None:
    network = _network().train()
    frames = _frames().float()
    with torch.no_grad():
        network.layer_list[1].bias[0] = value
    before = network.layer_list[0].banks[1]
    with pytest.raises(NonFiniteError, match=r"U of time step 1.*layer L01"):
        network(frames)
    assert network.layer_list[0].banks[1] is before


def test_a_parameter_that_is_not_finite_is_named() -> None:
    network = _network()
    network.check_parameters()
    with torch.no_grad():
        network.layer_list[2].rules["hebbian"].beta[1] = math.nan
    with pytest.raises(NonFiniteError, match=r"rules.hebbian.beta.*layer L02"):
        network.check_parameters()


@pytest.mark.parametrize("step", ["auto", "autograd"])
def test_bfloat16_touches_neither_banks_nor_evaluation(step: str) -> None:
    network = _network(bf16=True).train()
    network.step = step
    exact = _network().eval()(_frames().float())
    assert torch.equal(network.eval()(_frames().float()).spikes, exact.spikes)
    network.train()(_frames().float()).spikes.sum().backward()
    for layer in network.layer_list:
        assert all(bank.dtype == torch.float32 for bank in layer.banks)
