"""Products in bfloat16 on a CPU: near those in float32, in training windows alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpsl_runtime.errors import RecipeError
from mpsl_train.network import compiled
from mpsl_train.network.compiled import CompiledKernels, built
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import Pre, RuleSettings
from mpsl_train.notation import LayerSpec, parse

needs_compiled = pytest.mark.skipif(built() is None, reason="mpsl was installed without a compiler")
TEXT = "9C3-AP2-12C3-BN-DP0.2-7FC-3"


def _kernels(*, bf16: bool, crossover: float = 0.0) -> CompiledKernels:
    found = built()
    assert found is not None
    return CompiledKernels(found.module, crossover, bf16=bf16)


def _network(**choices: bool) -> Network:
    torch.manual_seed(0)
    return build_network(
        parse(TEXT, (2, 9, 9)), ["stbp", "hebbian", "sbp"], NeuronSettings(),
        RuleSettings(tau_w_steps=5.0), **choices,
    ).train()  # fmt: skip


def _frames() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.poisson(torch.full((5, 6, 2, 9, 9), 0.5), generator=generator)


def _products(kernels: CompiledKernels, spec: LayerSpec) -> list[Tensor]:
    """Current, ∂L/∂x, ∂L/∂weight and D of one layer, from the same numbers."""
    torch.manual_seed(1)
    conv = spec.kind == "conv"
    x = (torch.rand(4, 9, 6, 6) if conv else torch.rand(4, spec.weight_shape[1])) - 0.3
    weight = kernels.arrange(torch.randn(spec.weight_shape))
    bias, beta = torch.randn(2, spec.weight_shape[0])
    current = kernels.multiply(x, weight, bias, spec)
    gradient = torch.randn_like(current)
    back, change = kernels.multiply_back(gradient, x, weight, spec, True)
    pre = Pre(x, spec.weight_shape, spec.stride, spec.padding)
    assert back is not None
    return [current, back, change, kernels.correlate(pre, torch.tanh(gradient), beta)[0]]


SPECS = parse("9C3-9C3S2-7FC-3", (9, 6, 6))


@needs_compiled
@pytest.mark.parametrize("spec", SPECS[:3], ids=["3x3", "stride 2", "fc"])
def test_each_product_is_near_that_in_float32(spec: LayerSpec) -> None:
    exact, near = (_products(_kernels(bf16=bf16), spec) for bf16 in (False, True))
    for name, a, b in zip(("current", "back", "change", "D"), exact, near, strict=True):
        assert b.dtype == torch.float32, name
        assert a.shape == b.shape, name
        # 8 bits of a factor: a relative error of up to 2^-8 in each, and in the result.
        assert 0 < float((a - b).norm()) < 0.01 * float(a.norm()), name


@needs_compiled
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2]], ids=["conv", "fc"])
def test_a_bias_is_not_rounded(spec: LayerSpec) -> None:
    bias = torch.rand(spec.weight_shape[0])
    x = torch.zeros((2, 9, 6, 6) if spec.kind == "conv" else (2, spec.weight_shape[1]))
    current = _kernels(bf16=True).multiply(x, torch.zeros(spec.weight_shape), bias, spec)
    shown = bias.view(-1, 1, 1) if spec.kind == "conv" else bias
    assert torch.equal(current, shown.expand_as(current))


@needs_compiled
def test_convolutions_that_follow_spikes_stay_in_float32() -> None:
    always = [_products(_kernels(bf16=bf16, crossover=1.0), SPECS[0]) for bf16 in (False, True)]
    assert all(torch.equal(a, b) for a, b in zip(*always, strict=True))


@needs_compiled
def test_windows_are_fused_and_say_so() -> None:
    network = _network(bf16=True)
    network(_frames()).spikes.mean().backward()
    assert network.taken.startswith("fused (C++")
    assert "bfloat16" in network.taken
    for layer in network.layer_list:
        assert all(bank.dtype == torch.float32 for bank in layer.banks)
        assert layer.banks[0].grad is not None
        assert layer.banks[0].grad.dtype == torch.float32
    plain = _network()
    plain(_frames())
    assert "bfloat16" not in plain.taken
    exact, near = (net.layer_list[2].banks[1] for net in (plain, network))
    assert 0 < float((exact - near).norm()) < 0.05 * float(exact.norm())


@needs_compiled
@pytest.mark.parametrize("case", ["float64", "int8 grid"])
def test_what_is_exact_stays_out_of_it(case: str) -> None:
    """A sum on the grid is a whole number of its steps, which eight bits do not hold."""
    network, frames = _network(bf16=True), _frames()
    torch.manual_seed(7)  # of dropout
    if case == "float64":
        network, frames = network.double(), frames.double()
    else:
        network.quantise(True)
    found = network(frames)
    assert network.taken.startswith("autograd, because training.precision is 'bf16'")
    if case == "int8 grid":
        exact = _network()
        exact.quantise(True)
        exact.step = "autograd"
        torch.manual_seed(7)
        assert torch.equal(found.membrane, exact(frames).membrane)


def test_without_a_compiler_it_goes_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "built", lambda **_: None)
    network = _network(bf16=True)
    network(_frames())
    assert network.taken == "autograd, because training.precision is 'bf16'"
    network.step = "fused"
    with pytest.raises(RecipeError, match="bf16"):
        network(_frames())
