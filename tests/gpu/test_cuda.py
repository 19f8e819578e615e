"""A CUDA device computes what the CPU computes: gradients, windows, records, int8 sums, proofs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mpsl_export.export import export
from mpsl_export.verify.backends.torch_plan import TorchPlan
from mpsl_runtime.model.filling import Filling, fill
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference
from mpsl_train.network.cuda import cuda_kernels
from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse
from mpsl_train.training.record import exact_arithmetic

if not torch.cuda.is_available():
    pytest.skip("no CUDA device is there", allow_module_level=True)

WAYS: dict[str, tuple[str, Kernels | None]] = {
    "autograd": ("autograd", None),
    "fused in torch": ("fused", TORCH),
    "fused in Triton": ("fused", None),
    "graphed": ("graphed", None),
}
DT_S = 1e-3


def network(
    text: str, mechanisms: str, settings: NeuronSettings, shape: tuple[int, ...]
) -> Network:
    """With banks and parameters that are all far from where they begin."""
    torch.manual_seed(0)
    net = build_network(
        parse(text, shape), mechanisms.split("+"), settings, RuleSettings(tau_w_steps=5.0)
    )
    with torch.no_grad():
        for layer in net.layer_list:
            layer.bias.sub_(0.05)
            for value in (layer.shared_coefficients, *layer.rules.parameters()):
                value.add_(0.3 * torch.rand_like(value))
            for index in range(2, len(layer.rules) + 1):
                setattr(layer, f"W{index}", 0.02 * torch.randn_like(layer.banks[index - 1]))
    return net.train()


def poisson(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.poisson(torch.full(shape, 0.5, dtype=kind), generator=generator)


@pytest.mark.parametrize("mechanisms", ["stbp", "stbp+hebbian+sbp"])
@pytest.mark.parametrize("width", [1.0, 0.7])
@pytest.mark.parametrize(
    ("way", "reset"), [*((way, "subtract") for way in WAYS), ("autograd", "zero")]
)
def test_a_window_and_its_gradients_are_those_of_the_cpu(
    way: str, reset: str, width: float, mechanisms: str
) -> None:
    """Every surrogate on every path, in float64 to 1e-10."""
    settings = NeuronSettings(surrogate_width=width, reset=reset)
    frames = poisson(5, 6, 2, 9, 9, kind=torch.float64)
    nets = []
    for device, (step, kernels) in (("cpu", WAYS["autograd"]), ("cuda", WAYS[way])):
        net = network("4C3-AP2-9C3S2-7FC-3", mechanisms, settings, (2, 9, 9)).double().to(device)
        net.step, net.kernels = step, kernels
        spikes = net(frames.to(device), 5).spikes
        labels = F.one_hot(torch.arange(6, device=device) % 3, 3).to(spikes)
        F.mse_loss(spikes.mean(0), labels).backward()
        nets.append(net)
    cpu, gpu = nets
    assert gpu.taken.startswith("fused" if way != "autograd" and gpu.plastic else gpu.taken)
    for (name, a), b in zip(cpu.state_dict().items(), gpu.state_dict().values(), strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-10, atol=1e-13, msg=name)
    found = 0.0
    for (name, a), b in zip(cpu.named_parameters(), gpu.parameters(), strict=True):
        if a.grad is None or b.grad is None:
            assert (
                a.grad is b.grad or float((a.grad if b.grad is None else b.grad).abs().max()) == 0
            )
            continue
        size = float(a.grad.abs().max())
        assert float((b.grad.cpu() - a.grad).abs().max()) <= 1e-10 * size + 1e-14, name
        found += size
    assert found > 0


def _on_a_fine_grid(net: Network) -> None:
    """Weights of 13 bits: TF32 keeps 11 of them. All sums are exact, in any order."""
    with torch.no_grad():
        for layer in net.layer_list:
            for value in [*layer.banks, layer.bias]:
                value.copy_((value * 4096).round().clamp(-8191, 8191) / 4096)
            layer.shared_coefficients.fill_(1.0)


def test_a_record_is_that_of_the_cpu_whatever_training_has_allowed() -> None:
    settings = NeuronSettings(decay=0.75, threshold=0.5)
    frames = poisson(8, 16, 2, 12, 12)
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    layers = []
    for device in ("cpu", "cuda"):
        net = network("64C3-AP2-64C3-128FC-10", "stbp+hebbian", settings, (2, 12, 12)).to(device)
        _on_a_fine_grid(net)
        net.eval()
        try:
            for flag in flags:
                flag.allow_tf32 = True
            with torch.no_grad(), exact_arithmetic():
                layers.append([x.cpu() for x in net(frames.to(device), record=True).layers])
        finally:
            for flag, value in zip(flags, before, strict=True):
                flag.allow_tf32 = value
    for cpu, gpu in zip(*layers, strict=True):
        assert 0 < float(cpu.mean()) < 1
        assert torch.equal(cpu, gpu)


def test_training_on_an_int8_grid_sums_whole_numbers() -> None:
    """Winograd, which cuDNN may choose for 3 x 3 convolutions, would not."""
    frames = poisson(4, 32, 128, 14, 14)
    layers = []
    for device in ("cpu", "cuda"):
        net = network("128C3-AP2-128C3-10", "stbp", NeuronSettings(), (128, 14, 14)).to(device)
        net.quantise(True)
        with torch.no_grad():
            layers.append([x.cpu() for x in net(frames.to(device), record=True).layers])
    for cpu, gpu in zip(*layers, strict=True):
        assert 0 < float(cpu.mean()) < 1
        assert torch.equal(cpu, gpu)


def written(folder: Path, grid: bool) -> Path:
    """A network of 128 channels as NIR; on a grid, weights of 13 bits."""
    random = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray:
        size = 1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        values = random.normal(0, size, shape)
        return (np.round(values * 4096) / 4096 if grid else values).astype(np.float32)

    def lif(*shape: int) -> nir.LIF:
        ones = np.ones(shape, np.float32)
        return nir.LIF(
            tau=4 * DT_S * ones, r=4 * ones, v_leak=0 * ones, v_threshold=0.5 * ones,
            v_reset=0 * ones,
        )  # fmt: skip

    def convolution(into: int) -> nir.Conv2d:
        return nir.Conv2d((8, 8), weights(128, into, 3, 3), 1, 1, 1, 1, weights(128))

    nodes = {
        "input": nir.Input(np.array([16, 8, 8])),
        "first": convolution(16), "a": lif(128, 8, 8),
        "second": convolution(128), "b": lif(128, 8, 8),
        "flat": nir.Flatten({"input": np.array([128, 8, 8])}, 0, -1),
        "last": nir.Affine(weights(10, 128 * 64), weights(10)), "c": lif(10),
        "output": nir.Output(np.array([10])),
    }  # fmt: skip
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)))
    path = folder / "model.nir"
    filling = Filling("nir", dt_s=DT_S, steps=8)
    write_graph(fill(graph, "graph.nir", filling, timed=True).graph, path)
    return path


def _same_everywhere(plan: Plan, given: np.ndarray) -> None:
    expected = TorchPlan(plan, torch.device("cpu")).record(given)
    found = TorchPlan(plan, torch.device("cuda")).record(given)
    for one, other in zip(expected, found, strict=True):
        assert 0 < one.spikes.mean() < 1
        assert np.array_equal(one.spikes, other.spikes)
        assert np.array_equal(one.membrane, other.membrane)
    assert np.array_equal(Reference(plan).run(given), expected[-1].spikes.reshape(len(given), -1))


def test_verify_on_the_gpu_has_the_bits_of_the_cpu(tmp_path: Path) -> None:
    given = poisson(8, 16, 8, 8).numpy()
    _same_everywhere(load_plan(written(tmp_path, grid=True)), given)


def test_verify_of_int8_on_the_gpu_has_the_bits_of_the_cpu(tmp_path: Path) -> None:
    given = poisson(8, 16, 8, 8).numpy()
    np.savez(tmp_path / "calibration.npz", input=given)
    path = written(tmp_path, grid=False)
    (result,) = export(path, weights="int8", calibrate=tmp_path / "calibration.npz").written[:1]
    _same_everywhere(load_plan(result), given)


def test_kernels_for_cuda_are_there() -> None:
    """Triton comes with torch for CUDA: without it every window would be slower, and say so."""
    assert cuda_kernels() is not None
