"""The fused window against plain autograd in float64: outputs, banks, every gradient, training."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.compiled import CompiledKernels, built, choose
from mpsl_train.network.finite import NonFiniteError
from mpsl_train.network.graphed import ON_DEVICE
from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.window_layer import WindowLayer
from mpsl_train.notation import parse

needs_compiled = pytest.mark.skipif(built() is None, reason="mpsl was installed without a compiler")
KERNELS = [
    pytest.param(TORCH, id="torch"),
    pytest.param(ON_DEVICE, id="on-device"),
    pytest.param(0.0, id="dense", marks=needs_compiled),
    pytest.param(1.0, id="events", marks=needs_compiled),
]
ONE = ["stbp"]
TWO = ["stbp", "hebbian"]
ALL = ["stbp", "hebbian", "sbp"]
TEXT = "4C3-AP2-5C3S2-7FC-3"


def _network(  # type: ignore[no-untyped-def]
    text: str = TEXT,
    mechanisms: list[str] = ALL,
    delta: str = "l1",
    width: float = 1.0,
    eta: float = 1.0,
    shift: float = -0.05,
    quantised: bool = False,
    **more,
) -> Network:
    """In float64, with banks and parameters that are all far from where they begin."""
    torch.manual_seed(0)
    network = build_network(
        parse(text, (2, 9, 9)), mechanisms, NeuronSettings(surrogate_width=width),
        RuleSettings(tau_w_steps=5.0, eta_hat=eta, delta=delta), **more,
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer in network.layer_list:
            layer.bias.add_(
                shift
            )  # less activity: where all fire far above V_th, gradients are zero
            for rule in layer.rule_list:
                for parameter in rule.parameters():
                    parameter.add_(0.3 * torch.rand_like(parameter))
            layer.shared_coefficients.add_(0.2 * torch.rand_like(layer.shared_coefficients))
            for index in range(2, len(layer.rules) + 1):
                bank = getattr(layer, f"W{index}")
                setattr(layer, f"W{index}", 0.02 * torch.randn_like(bank))
    network.quantise(quantised)
    return network.train()


def _frames(constant: bool = False, batch: int = 6, steps: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, 2, 9, 9) if constant else (steps, batch, 2, 9, 9)
    return torch.poisson(torch.full(shape, 0.5, dtype=torch.float64), generator=generator)


def _loss(network: Network, frames: Tensor, membrane: bool = False) -> Tensor:
    output = network(frames, 5)
    labels = torch.arange(output.membrane.shape[0]) % 3
    if membrane:
        return F.cross_entropy(output.membrane, labels)
    return F.mse_loss(output.spikes.mean(0), F.one_hot(labels, 3).double())


def _kernels(choice: Kernels | float) -> Kernels:
    """Those in C++ with a crossover that sends every convolution the same way."""
    if isinstance(choice, Kernels):
        return choice
    compiled = built()
    assert compiled is not None
    return CompiledKernels(compiled.module, choice)


def _both(
    frames: Tensor, kernels: Kernels | float = TORCH, *, membrane: bool = False, **choices
) -> list[Network]:  # type: ignore[no-untyped-def]
    """The same window on both ways, with gradients."""
    networks = []
    for step in ("fused", "autograd"):
        network = _network(**choices)
        network.step, network.kernels = step, _kernels(kernels)
        torch.manual_seed(7)  # of dropout
        network.loss = _loss(network, frames, membrane)
        network.loss.backward()  # type: ignore[operator]
        constant = frames.dim() == 4
        fused = step == "fused"
        if not network.plastic:
            once = constant and network.layer_list[0].normalises
            fused = fused and network.kernels is not TORCH and not once
        assert network.taken.startswith("fused" if fused else "autograd")
        networks.append(network)
    return networks


def _same(one: Network, other: Network) -> None:
    """State and gradients agree to 1e-10 of each tensor's size, and no layer is left out."""
    for (name, value), expected in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-13, msg=name)
    normalised = [layer.normalises for layer in one.layer_list]
    given = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        if given[name].grad is None:
            assert parameter.grad is None, name
            continue
        expected = given[name].grad
        assert parameter.grad is not None, name
        if name.endswith(".bias") and "norm" not in name and normalised[int(name.split(".")[1])]:
            assert float(parameter.grad.abs().max()) < 1e-14  # BatchNorm takes its mean away
            continue
        size = float(expected.abs().max())
        assert size > 0, f"{name} gets no gradient, so nothing is compared"
        assert float((parameter.grad - expected).abs().max()) <= 1e-10 * size + 1e-18, name


@pytest.mark.parametrize(
    "choices",
    [
        {"mechanisms": ONE},
        # After BN a single bank's size has no part in the loss: nothing but rounding for its λ.
        {"mechanisms": ONE, "text": "4C3-BN-DP0.3-5C3S2-AP2-7FC-3", "coefficients_learned": False},
        {"mechanisms": ONE, "text": "4C3-DP0.3-5C3S2-BN-AP2-7FC-3", "coefficients_learned": False},
        {"mechanisms": TWO},
        {"mechanisms": ALL},
        {"delta": "split"},
        {"delta": "literal", "shift": 0.0},
        {"coefficient_scope": "channel"},
        {"coefficient_scope": "global"},
        {"plastic_layers": "fc"},
        {"text": "4C3-BN-AP2-5C3-BN-AP2-7FC-BN-3"},
        {"text": "4C3-DP0.3-5C3S2-AP2-DP0.2-7FC-3"},
        {"text": "AP2-4C5-6C3S2-7FC-6FC-3", "width": 0.7},
        {"text": "7FC-3", "coefficients_learned": False},
        {"mechanisms": ONE, "quantised": True},
        {"mechanisms": ONE, "quantised": True, "text": "4C3-BN-AP2-5C3-DP0.3-AP2-7FC-3"},
        {"quantised": True, "coefficient_scope": "channel"},
        {"quantised": True, "text": "AP2-4C3-BN-5C3-7FC-BN-3", "width": 0.7},
    ],
    ids=lambda choices: " ".join(str(value) for value in choices.values()),
)  # fmt: skip
@pytest.mark.parametrize("constant", [False, True], ids=["frames", "image"])
@pytest.mark.parametrize("kernels", KERNELS)
def test_a_window_and_all_its_gradients_are_those_of_autograd(
    choices: dict[str, object], constant: bool, kernels: Kernels | float
) -> None:
    fused, reference = _both(_frames(constant), kernels, **choices)
    assert torch.equal(fused.loss.detach(), reference.loss.detach())  # type: ignore[arg-type,operator,union-attr]
    _same(fused, reference)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_loss_of_the_last_membrane_is_felt_too(kernels: Kernels | float) -> None:
    _same(*_both(_frames(), kernels, membrane=True))


@pytest.mark.parametrize("kernels", KERNELS)
def test_twenty_steps_of_adam_end_at_the_same_network(kernels: Kernels | float) -> None:
    ends = []
    generator = torch.Generator().manual_seed(5)
    batches = torch.poisson(torch.full((20, 5, 6, 2, 9, 9), 0.5, dtype=torch.float64),
                            generator=generator)  # fmt: skip
    for step in ("fused", "autograd"):
        network = _network("8C3-AP2-8C3S2-16FC-3", shift=0.0)
        network.step, network.kernels = step, _kernels(kernels)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        for frames in batches:
            optimiser.zero_grad()
            _loss(network, frames).backward()
            for layer in network.layer_list:
                assert layer.banks[0].grad is not None
                assert float(layer.banks[0].grad.abs().max()) > 0
                assert float(layer.shared_coefficients.grad.abs().min()) > 0  # type: ignore[union-attr]
            optimiser.step()
        ends.append(network.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-10, atol=1e-10, msg=name)
        if not name.endswith("layers.3.rules.sbp.theta_p"):  # no part in the last layer
            assert float((value - before[name]).abs().max()) > 1e-3, name


@needs_compiled
@pytest.mark.parametrize("isa", ["baseline", "v3"])
def test_other_instruction_sets_end_there_too(isa: str) -> None:
    flags = Path("/proc/cpuinfo").read_text() if isa == "v3" else "avx2"
    if "avx2" not in flags:
        pytest.skip("the processor has no AVX2")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__,
         "-k", "twenty and not torch"],
        env={**os.environ, "MPSL_ISA": isa}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@needs_compiled
@pytest.mark.parametrize(
    ("side", "inputs", "outputs", "size", "stride"),
    [(3, 1, 1, 3, 1), (64, 4, 16, 3, 1), (33, 3, 70, 3, 1), (14, 16, 96, 3, 1), (11, 7, 40, 3, 2),
     (9, 9, 33, 5, 2), (8, 5, 130, 5, 1), (64, 100, 8, 3, 1)],
)  # fmt: skip
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_convolutions_that_follow_spikes_are_convolutions(
    side: int, inputs: int, outputs: int, size: int, stride: int, density: float
) -> None:
    """Also maps that are cut into strips, batches in groups, and outputs that fill no vector."""
    generator = torch.Generator().manual_seed(2)

    def numbers(*shape: int, part: float = 1.0) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values * (torch.rand(shape, generator=generator) < part)

    compiled = _kernels(1.0)
    spec = parse(f"{outputs}C{size}S{stride}-2", (inputs, side, side))[0]
    x = numbers(3, inputs, side, side, part=density).requires_grad_()
    weight = numbers(*spec.weight_shape).requires_grad_()
    bias = numbers(outputs)
    expected = F.conv2d(x, weight, bias, spec.stride, spec.padding)
    given = numbers(*expected.shape, part=density)
    expected.backward(given)
    arranged, seen = compiled.arrange(weight.detach()), compiled.arrange_frames(x.detach())
    close = {"rtol": 1e-12, "atol": 1e-11}
    torch.testing.assert_close(compiled.multiply(seen, arranged, bias, spec), expected, **close)
    back, change = compiled.multiply_back(
        compiled.arrange_frames(given), seen, arranged, spec, True
    )
    torch.testing.assert_close(back, x.grad, **close)
    torch.testing.assert_close(change, weight.grad, **close)


@needs_compiled
def test_the_number_of_threads_changes_no_bit() -> None:
    ends = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            # Above 32 channels: more than one block of outputs to share out.
            network = _network("40C3-AP2-80C3-7FC-3").float()
            network.kernels = _kernels(1.0)
            loss = F.mse_loss(network(_frames().float(), 5).spikes.mean(0), torch.zeros(6, 3))
            loss.backward()
            assert network.layer_list[1].banks[0].grad is not None
            ends.append([layer.banks[0].grad for layer in network.layer_list[:2]])
    finally:
        torch.set_num_threads(threads)
    assert all(float(gradient.abs().max()) > 0 for gradient in ends[0])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_it_says_what_runs_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network(mechanisms=TWO)
    network(_frames())
    name = TORCH.name if built() is None else "C++"
    assert network.taken.startswith(f"fused ({name}")
    monkeypatch.setattr("mpsl_train.network.compiled.built", lambda **_: None)
    network(_frames())
    assert network.taken == f"fused ({TORCH.name}: mpsl was installed without its C++ part)"
    assert choose(torch.zeros(1, dtype=torch.float16))[0] is TORCH


@pytest.mark.parametrize("kernels", KERNELS[:2])
def test_in_float32_the_spikes_are_the_same(kernels: Kernels | float) -> None:
    outputs = []
    for step in ("fused", "autograd"):
        network = _network().float()
        network.step, network.kernels = step, _kernels(kernels)
        outputs.append(network(_frames().float()).spikes.detach())
    assert 0 < float(outputs[0].mean()) < 1
    assert torch.equal(*outputs)


def test_two_windows_can_run_before_the_backward_pass_but_none_is_undone_twice() -> None:
    network = _network()
    loss = _loss(network, _frames()) + _loss(network, _frames(constant=True))
    loss.backward(retain_graph=True)
    assert float(network.layer_list[0].banks[0].grad.abs().max()) > 0  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_batch_norm_keeps_its_running_statistics() -> None:
    fused, reference = _both(_frames(), text="4C3-BN-AP2-5C3-BN-7FC-3")
    norms = [network.layer_list[0].batchnorm for network in (fused, reference)]
    assert int(norms[0].num_batches_tracked) == int(norms[1].num_batches_tracked) == 5  # type: ignore[union-attr,arg-type]


def test_what_it_does_not_cover_goes_to_autograd_and_says_why() -> None:
    network = _network(flow=True)
    network(_frames())
    assert network.taken.startswith("autograd, because")
    assert "flow" in network.taken
    network.step = "fused"
    with pytest.raises(RecipeError, match="flow"):
        network(_frames())


def test_a_rule_that_extends_a_built_in_one_is_not_taken_for_it() -> None:
    class Stronger(Hebbian):
        """Another rule."""

    network = _network(mechanisms=TWO)
    layer = network.layer_list[2]
    layer.rules["hebbian"] = Stronger(layer.spec.weight_shape, RuleSettings()).double()
    network(_frames())
    assert network.taken.startswith("autograd, because")


def test_sums_of_nine_spikes_on_an_int8_grid_leave_the_fused_way() -> None:
    """1/9 of a whole number of quanta is none."""
    network = _network("4C3-AP3-5C3-3")
    network(_frames())
    assert network.taken.startswith("fused")
    network.quantise(True)
    network(_frames())
    assert "autograd, because the weights are quantised" in network.taken


def test_a_membrane_that_is_not_finite_is_named_and_no_bank_is_committed() -> None:
    network = _network()
    network.step = "fused"
    with torch.no_grad():
        network.layer_list[1].bias[0] = float("nan")
    before = network.layer_list[0].banks[1]
    with pytest.raises(NonFiniteError, match=r"U of time step 1.*layer L01"):
        network(_frames())
    assert network.layer_list[0].banks[1] is before


def test_a_window_keeps_two_booleans_a_neuron_and_no_float() -> None:
    """What autograd would save is many times that; measured on what hangs on the graph."""
    network = _network("16C3-8C3-3", mechanisms=TWO)
    output = network(_frames(batch=32))
    parts = output.spikes.grad_fn.parts  # type: ignore[union-attr]
    neurons = sum(torch.Size(layer.spec.neurons).numel() for layer in network.layer_list) * 32 * 5
    bits = [tensor for part in parts for entry in part.tape for tensor in (entry.fired, entry.near)]
    assert {tensor.dtype for tensor in bits} == {torch.bool}
    assert sum(tensor.numel() for tensor in bits) == 2 * neurons
    weights = {id(entry.weight): entry.weight for part in parts for entry in part.tape}
    assert all(tensor.numel() < neurons / 100 for tensor in weights.values())


def test_a_window_is_freed_without_a_search_for_cycles() -> None:
    # Its objects are few and large: Python, which counts objects, would let gigabytes gather.
    network, frames = _network(), _frames()
    gc.collect()
    gc.disable()
    try:
        output = network(frames, 5)
        (output.spikes.mean() + output.membrane.mean()).backward()
        del output
        left = [part for part in gc.get_objects() if type(part) is WindowLayer]
        assert left == []
    finally:
        gc.enable()
