"""Training on the int8 grid: the rounding, its gradient, the recipe, and a resumed run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mpsl_runtime.errors import MpslError
from mpsl_runtime.model.scale import Scale, unclipped_scale, whole_numbers
from mpsl_train.network.compiled import built
from mpsl_train.network.int8_training import on_grid, on_grid_bias
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse
from mpsl_train.recipe import load
from mpsl_train.training.training import train

SCALE = Scale(exponent=-6, threshold=20, step=0.015)


def _network(
    text: str = "4C3-BN-AP2-6C3S2-BN-8FC-3", mechanisms: Sequence[str] = ("stbp", "hebbian", "sbp")
) -> Network:
    torch.manual_seed(1)
    network = build_network(parse(text, (2, 9, 9)), mechanisms, NeuronSettings(), RuleSettings())
    for layer in network.layer_list:
        if layer.batchnorm is not None:
            with torch.no_grad():
                layer.batchnorm.weight.uniform_(0.5, 1.5)
                layer.batchnorm.running_mean.normal_(0, 0.1)
                layer.batchnorm.running_var.uniform_(0.5, 2)
    network.quantise(True)
    return network


def _frames() -> torch.Tensor:
    return torch.poisson(torch.full((5, 4, 2, 9, 9), 0.5),
                         generator=torch.Generator().manual_seed(3))  # fmt: skip


def test_forward_is_the_rule_of_the_exporter_and_backward_goes_straight_through() -> None:
    weight = torch.linspace(-3, 3, 1001, requires_grad=True)
    stored = on_grid(weight, SCALE)
    whole = whole_numbers(weight.detach().numpy().astype(np.float64), SCALE.step, 127)
    assert np.array_equal(stored.detach().numpy(), (whole * 2.0**-6).astype(np.float32))
    assert set(np.unique(whole)) == set(range(-127, 128))
    stored.backward(torch.full_like(stored, 3.0))
    expected = np.where(np.abs(weight.detach().numpy()) < 127.5 * SCALE.step, 3 / 64 / 0.015, 0.0)
    assert weight.grad is not None
    assert np.allclose(weight.grad.numpy(), expected, rtol=1e-6, atol=0)
    assert 0 < (expected == 0).mean() < 1


def test_on_cuda_the_grid_does_without_cudnn_whose_winograd_adds_fractions() -> None:
    network, on_cuda = _network(), SimpleNamespace(is_cuda=True)
    layer = network.layer_list[0]
    with layer._whole_numbers(on_cuda):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled
    network.quantise(False)
    with layer._whole_numbers(on_cuda):
        assert torch.backends.cudnn.enabled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_every_sum_of_the_grid_is_exact() -> None:
    network = _network("64C3-64C3-3").cuda()
    layer = network.layer_list[1]
    x = (torch.rand(16, 64, 32, 32, device="cuda") < 0.3).float()
    weight, bias = layer.synapses(layer.begin())
    exact = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert torch.equal(layer.multiply(x, weight, bias), exact.float())


def test_a_bias_is_rounded_and_not_clipped_to_int8() -> None:
    bias = torch.tensor([-9.0, 0.0074, 9.0], requires_grad=True)
    stored = on_grid_bias(bias, SCALE)
    assert stored.tolist() == [-600 / 64, 0.0, 600 / 64]
    stored.sum().backward()
    assert bias.grad is not None
    assert bool((bias.grad > 0).all())


@pytest.mark.parametrize("peak", [1e-9, 0.01, 0.0374, 0.29, 1.0, 36.0])
@pytest.mark.parametrize("is_score", [False, True])
def test_the_finest_grid_clips_nothing_and_a_finer_one_would(peak: float, is_score: bool) -> None:
    scale = unclipped_scale(peak, 0.3, is_score=is_score)
    assert scale.threshold >= 1
    assert peak / scale.step < 127.5
    if is_score:
        assert scale.step == scale.quantum
    else:
        assert scale.step == 0.3 / scale.threshold
        assert scale.threshold > 1e6 or peak * (scale.threshold + 1) / 0.3 > 127.4
        assert 2**-0.5 <= scale.quantum / scale.step <= 2**0.5


def test_every_current_of_a_window_is_a_whole_number_of_quanta() -> None:
    network = _network()
    network.eval()
    layers = network.layer_list
    seen = {}
    for layer in layers:
        # Bound by default arguments: each layer keeps its own.
        def fire(current, state, layer=layer, original=layer.fire):  # type: ignore[no-untyped-def]
            seen[layer.spec.name] = current.detach() / state.scale.quantum
            return original(current, state)

        layer.fire = fire  # type: ignore[method-assign]
    network(_frames())
    for layer in layers:
        quanta = seen[layer.spec.name]
        assert torch.equal(quanta, quanta.round()), layer.spec.name
        assert float(quanta.abs().max()) > 20, layer.spec.name


def test_on_the_grid_a_window_is_about_what_it_was_in_float() -> None:
    """Pooling, batch normalisation and stored units change the numbers, not the network."""
    network = _network()
    network.eval()
    with torch.no_grad():
        for layer in network.layer_list:
            layer.bias += 0.2
        on = network(_frames(), record=True)
        network.quantise(False)
        off = network(_frames(), record=True)
    for one, two in zip(on.layers, off.layers, strict=True):
        assert 0.01 < float(two.mean()) < 0.99
        assert float((one != two).float().mean()) < 0.1


def test_the_fused_way_gives_the_same_bits_in_float32() -> None:
    """Whole numbers of quanta are exact in any order."""
    outputs = []
    for step in ("auto", "autograd"):
        network = _network(mechanisms=["stbp"]).train()
        network.step = step
        with torch.no_grad():
            for layer in network.layer_list:
                layer.bias += 0.2
        outputs.append(network(_frames()))
        fused = step == "auto" and built() is not None
        assert network.taken.startswith("fused" if fused else "autograd"), network.taken
    assert 0 < float(outputs[0].spikes.detach().mean()) < 1
    assert torch.equal(outputs[0].spikes, outputs[1].spikes)
    assert torch.equal(outputs[0].membrane, outputs[1].membrane)


def test_the_error_reaches_banks_coefficients_and_batch_norm_about_as_in_float() -> None:
    gradients = []
    for quantised in (True, False):
        network = _network("4C3-AP2-6C3S2-8FC-3")
        network.quantise(quantised)
        network.train()
        network(_frames()).spikes[:, :, 0].mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in ("layers.0.W1", "layers.1.W1", "layers.2.W1", "layers.0.bias", "layers.1.bias"):
        one, two = (gradient[name].flatten() for gradient in gradients)
        assert float(torch.cosine_similarity(one, two, dim=0)) > 0.8, name
        assert 0.7 < float(one.norm() / two.norm()) < 1.4, name
    network = _network()
    network.train()
    before = [layer.batchnorm.running_mean.clone() for layer in network.layer_list[:2]]
    network(_frames()).spikes.mean().backward()
    for layer, mean in zip(network.layer_list[:2], before, strict=True):
        assert layer.batchnorm.weight.grad.abs().max() > 0
        assert torch.equal(layer.batchnorm.running_mean, mean)


@pytest.mark.parametrize(
    ("epochs", "asked", "first"), [(12, 0, 8), (10, 0, 6), (1, 0, 0), (12, 2, 10), (12, 12, 0)]
)
def test_the_last_third_of_the_epochs_is_int8_or_as_many_as_asked(
    small_recipe: Path, epochs: int, asked: int, first: int
) -> None:
    overrides = [f"training.epochs={epochs}", f"training.quantize_epochs={asked}"]
    assert load(small_recipe, ["quantize=int8", *overrides]).first_int8_epoch == first
    assert load(small_recipe, [overrides[0]]).first_int8_epoch == epochs


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["quantize=int4"], "quantize"),
        (["quantize=true"], "quantize"),
        (["quantise=int8"], "'quantize'"),
        (["quantize=int8", "training.quantize_epochs=4"], "more than 3 epochs"),
        (["quantize=int8", "training.step=fused", "training.precision=bf16"], "grid are exact"),
        (["quantize=int8", "training.step=graphed", "training.precision=bf16"], "grid are exact"),
        (["quantize=int8", "training.quantize_epochs=-1"], "quantize_epochs"),
        (["training.quantize_epochs=1"], "needs quantize"),
        (["quantize=int8", "neuron.decay=0.9"], "float32 holds exactly"),
        (
            ["quantize=int8", "training.quantize_epochs=3", "network=4C3S2-BN-12FC-10"],
            "at least one epoch in float",
        ),
    ],
)
def test_what_has_no_int8_form_is_refused_in_one_line_before_anything_is_written(
    small_recipe: Path, small_data: Path, tmp_path: Path, overrides: list[str], part: str
) -> None:
    with pytest.raises(MpslError) as caught:
        train(load(small_recipe, overrides), tmp_path / "run", data=small_data, device="cpu")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_interrupted_on_the_grid_resumes_bit_for_bit(
    small_data: Path, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpsl_train.training.module import TrainingModule

    overrides = ["quantize=int8", "training.quantize_epochs=2", "training.epochs=4"]
    recipe = load(small_recipe, overrides)
    train(recipe, tmp_path / "whole", data=small_data, device="cpu")
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):  # type: ignore[no-untyped-def]
        if self.current_epoch == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", data=small_data, device="cpu")
    train(recipe, tmp_path / "run", data=small_data, device="cpu", resume=True)
    one, two = (load_file(tmp_path / name / "banks.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    whole, run = (np.load(tmp_path / name / "evaluation.npz") for name in ("whole", "run"))
    assert np.array_equal(whole["spikes"], run["spikes"])
    # Resumed once more, a finished run is only evaluated again: still on the grid.
    train(recipe, tmp_path / "run", data=small_data, device="cpu", resume=True)
    assert np.array_equal(whole["spikes"], np.load(tmp_path / "run" / "evaluation.npz")["spikes"])
    assert json.loads(str(whole["record"]))["weights"] == "int8"
    with safe_open(tmp_path / "run" / "banks.safetensors", "numpy") as file:
        layers = json.loads(file.metadata()["mpsl"])["layers"]
    assert all(layer["scale"]["threshold"] >= 1 for layer in layers)


def test_the_best_epoch_is_one_on_the_grid(
    small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    overrides = ["quantize=int8", "training.quantize_epochs=1", "training.epochs=3",
                 "training.checkpoint=best", "training.patience=1"]  # fmt: skip
    report = train(
        load(small_recipe, overrides), tmp_path / "run", data=small_data, device="cpu"
    ).report
    assert (report["epochs"], report["best_epoch"]) == (3, 3)
