"""A fused window changes copies of the banks: what was committed stays as it is."""

from __future__ import annotations

import pytest
import torch

from mpsl_train.network.compiled import CompiledKernels, built
from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse


def _compiled(crossover: float) -> Kernels:
    compiled = built()
    if compiled is None:
        pytest.skip("mpsl was installed without a compiler")
    return CompiledKernels(compiled.module, crossover)


# With one channel on both sides, what the C++ functions lay out is the same memory.
@pytest.mark.parametrize("network", ["1C3-1C1-4", "3C3-2C3-4", "1FC-4"])
@pytest.mark.parametrize("kernels", ["torch", "dense", "events"])
def test_a_window_leaves_committed_banks_as_they_were(kernels: str, network: str) -> None:
    torch.manual_seed(2)
    mechanisms = ["stbp", "hebbian", "sbp"]
    built_network = build_network(
        parse(network, (1, 6, 6)), mechanisms, NeuronSettings(), RuleSettings(eta_hat=3.0)
    )
    built_network.kernels = (
        TORCH if kernels == "torch" else _compiled(1.0 if kernels == "events" else 0.0)
    )
    layers = built_network.layer_list
    for layer in layers:
        layer.W2, layer.W3 = (torch.rand(layer.spec.weight_shape) * 0.1 for _ in range(2))
    committed = [layer.banks for layer in layers]
    before = [[bank.detach().clone() for bank in banks] for banks in committed]
    output = built_network.train()(torch.rand(4, 3, 1, 6, 6) * 2)
    assert built_network.taken.startswith("fused")
    output.spikes.sum().backward()
    for layer, banks, old in zip(layers, committed, before, strict=True):
        assert not torch.equal(layer.banks[1], old[1])
        assert all(torch.equal(bank, value) for bank, value in zip(banks, old, strict=True))
