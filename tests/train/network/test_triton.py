"""The functions for CUDA, interpreted on a CPU: the window and all its gradients are autograd's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_train.network.all_steps import run_all_steps
from mpsl_train.network.cuda import cuda_kernels
from mpsl_train.network.dropout import draw_masks
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse

pytest.importorskip("triton", reason="triton is not installed: the passes for CUDA are not tested")

TEXT = "4C3-AP2-5C3S2-7FC-3"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network(
    step: str, text: str, mechanisms: str, delta: str = "l1", width: float = 1.0, **more: Any
) -> Network:
    """In float64, with banks and parameters that are all far from where they begin."""
    torch.manual_seed(0)
    net = build_network(
        parse(text, (2, 9, 9)), mechanisms.split("+"), NeuronSettings(surrogate_width=width),
        RuleSettings(tau_w_steps=5.0, delta=delta), **more,
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer in net.layer_list:
            layer.bias.sub_(0.05)
            for value in (layer.shared_coefficients, *layer.rules.parameters()):
                value.add_(0.3 * torch.rand_like(value))
            for index in range(2, len(layer.rules) + 1):
                setattr(layer, f"W{index}", 0.02 * torch.randn_like(layer.banks[index - 1]))
    net.step = step
    net.kernels = cuda_kernels()
    return net.to(DEVICE).train()


def after_a_window(frames: Tensor, step: str, text: str, mechanisms: str, **more: Any) -> Network:
    net = network(step, text, mechanisms, **more)
    torch.manual_seed(7)  # of dropout
    spikes = net(frames.to(DEVICE), 5).spikes
    labels = F.one_hot(torch.arange(spikes.shape[1], device=DEVICE) % 3, 3)
    F.mse_loss(spikes.mean(0), labels.to(spikes)).backward()
    return net


@pytest.mark.parametrize("constant", [False, True], ids=["frames", "image"])
@pytest.mark.parametrize(
    "choices",
    [
        {"mechanisms": "stbp"},
        {"mechanisms": "stbp+hebbian"},
        {"mechanisms": "stbp+hebbian+sbp"},
        {"mechanisms": "stbp+hebbian+sbp", "delta": "split", "coefficient_scope": "channel"},
        {"mechanisms": "stbp+hebbian+sbp", "delta": "literal", "text": "9C3-9C5S2-BN-7FC-3"},
        {"mechanisms": "stbp+hebbian+sbp", "width": 0.7, "text": "AP2-9C3-DP0.2-9C3S2-6FC-3"},
    ],
    ids=lambda choices: " ".join(str(value) for value in choices.values()),
)
def test_a_window_and_all_its_gradients_are_those_of_autograd(
    choices: dict[str, Any], constant: bool
) -> None:
    choices = {"text": TEXT, **choices}
    generator = torch.Generator().manual_seed(3)
    shape = (6, 2, 9, 9) if constant else (5, 6, 2, 9, 9)
    frames = torch.poisson(torch.full(shape, 0.5, dtype=torch.float64), generator=generator)
    fused, reference = (after_a_window(frames, step, **choices) for step in ("fused", "autograd"))
    assert fused.taken.startswith("fused (Triton")
    assert not reference.taken.startswith("fused")
    for (name, a), b in zip(
        fused.state_dict().items(), reference.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13, msg=name)
    expected = dict(reference.named_parameters())
    for name, value in fused.named_parameters():
        other = expected[name].grad
        if other is None:
            assert value.grad is None, name
            continue
        assert value.grad is not None, name
        size = float(other.abs().max())
        assert float((value.grad - other).abs().max()) <= 1e-10 * size + 1e-14, name
    assert any(value.grad is not None and bool(value.grad.any()) for value in expected.values())


def test_single_precision_rounds_where_torch_rounds() -> None:
    """V_t is two roundings: a fused multiply-add would be another network than the exported one."""
    kernels = cuda_kernels()
    assert kernels is not None
    torch.manual_seed(1)
    current, carried = (torch.randn(6, 40, 5, 7, device=DEVICE) for _ in range(2))
    current, carried = (x.contiguous(memory_format=torch.channels_last) for x in (current, carried))
    bias = torch.randn(40, device=DEVICE)
    settings = NeuronSettings(decay=0.77)
    potential = carried * 0.77 + (current + bias.view(-1, 1, 1))
    now = kernels.fire(current, carried.clone(), settings, True, True, bias=bias)
    assert torch.equal(now.membrane, potential)
    assert torch.equal(now.fired, potential >= settings.threshold)
    assert torch.equal(now.near, (potential - settings.threshold).abs() < 0.5)
    torch.testing.assert_close(now.activity, torch.tanh(potential / settings.threshold))


def test_products_in_bfloat16_are_near_those_in_float32() -> None:
    frames = torch.poisson(torch.full((6, 2, 9, 9), 0.5))
    nets = []
    for bf16 in (False, True):
        net = network("fused", "9C3-AP2-9C3-7FC-3", "stbp+hebbian+sbp").float()
        net.kernels = cuda_kernels(bf16=bf16)
        spikes = net(frames.to(DEVICE), 5).spikes
        spikes.mean().backward()
        nets.append(net)
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
    exact, near = (net.layer_list[0].banks[1] for net in nets)
    assert exact.dtype == near.dtype == torch.float32
    assert 0 < float((exact - near).norm()) < 0.05 * float(exact.norm())


@pytest.mark.parametrize("constant", [False, True], ids=["frames", "image"])
@pytest.mark.parametrize("text", [TEXT, "9C3-AP2-DP0.3-9C5S2-DP0.2-7FC-3"])
@pytest.mark.parametrize("width", [1.0, 0.7])
def test_all_steps_at_once_are_the_window(text: str, width: float, constant: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (6, 2, 9, 9) if constant else (5, 6, 2, 9, 9)
    frames = torch.poisson(torch.full(shape, 0.5, dtype=torch.float64), generator=generator)
    frames = frames.to(DEVICE)
    reference = network("autograd", text, "stbp", width=width)
    other = network("autograd", text, "stbp", width=width)
    kernels = cuda_kernels()
    assert kernels is not None
    torch.manual_seed(7)
    masks = draw_masks([layer.spec for layer in other.layer_list], frames)
    found, membrane, states = run_all_steps(other.layer_list, frames, 5, kernels, masks)
    torch.manual_seed(7)
    expected = reference(frames, 5)
    assert torch.equal(found, expected.spikes)
    torch.testing.assert_close(membrane, expected.membrane, rtol=1e-12, atol=1e-13)
    assert states[-1].membrane is membrane
    for spikes, last in ((found, membrane), (expected.spikes, expected.membrane)):
        (spikes.mean(0).square().sum() + 0.1 * last.square().sum()).backward()
    for (name, a), b in zip(other.named_parameters(), reference.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        size = float(b.grad.abs().max())
        assert size > 0, name
        assert float((a.grad - b.grad).abs().max()) <= 1e-10 * size + 1e-14, name
