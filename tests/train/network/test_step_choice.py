"""Whether a recipe may have its step is asked of the device that trains, before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpsl_runtime.errors import RecipeError
from mpsl_train.experiments.runs import load_run
from mpsl_train.network import compiled, step_choice
from mpsl_train.network.compiled import built
from mpsl_train.network.layers import NeuronSettings, SpikingLayer
from mpsl_train.network.network import build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.network.step_choice import check_step
from mpsl_train.notation import parse
from mpsl_train.recipe import load
from mpsl_train.training.training import train

needs_compiled = pytest.mark.skipif(built() is None, reason="mpsl was installed without a compiler")


def _layers(text: str = "4C3-AP2-7FC-3", *, bf16: bool = False) -> list[SpikingLayer]:
    network = build_network(
        parse(text, (2, 8, 8)), ["stbp", "hebbian", "sbp"], NeuronSettings(), RuleSettings(),
        bf16=bf16,
    )  # fmt: skip
    return network.layer_list


@needs_compiled
@pytest.mark.parametrize("step", ["fused", "graphed"])
def test_a_host_with_a_gpu_that_trains_on_its_cpu_is_asked_for_its_cpu(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(step_choice, "cuda_kernels", lambda *, bf16: None)
    check_step(step, _layers(bf16=True), "cpu", int8=False)
    with pytest.raises(RecipeError, match="precision is 'bf16'"):
        check_step(step, _layers(bf16=True), "cuda", int8=False)


@pytest.mark.parametrize(
    ("device", "text", "reason"),
    [("cuda", "4C3-AP2-7FC-3", "cuDNN"), ("cpu", "4C3-AP3-7FC-3", "pool of k² values")],
)
def test_epochs_on_the_grid_are_thought_of_before_the_first(
    device: str, text: str, reason: str
) -> None:
    check_step("fused", _layers(text), device, int8=False)
    with pytest.raises(RecipeError, match=reason):
        check_step("fused", _layers(text), device, int8=True)
    check_step("auto", _layers(text), device, int8=True)


def test_a_fused_run_has_its_int8_epochs_as_an_automatic_one(
    small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    banks = []
    for step in ("auto", "fused"):
        keys = ["quantize=int8", f"training.step={step}", "training.epochs=2"]
        train(load(small_recipe, keys), tmp_path / step, data=small_data, device="cpu")
        banks.append(load_file(tmp_path / step / "banks.safetensors"))
    assert banks[0].keys() == banks[1].keys()
    assert all(torch.equal(banks[0][name], banks[1][name]) for name in banks[0])


def test_a_run_is_read_where_it_could_not_be_trained(
    small_data: Path, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host without a compiler, of a run that was trained fused in bfloat16 elsewhere."""
    recipe = load(small_recipe, ["training.epochs=1"])
    train(recipe, tmp_path / "run", data=small_data, device="cpu")
    path = tmp_path / "run" / "recipe.toml"
    text = path.read_text().replace('step = "auto"', 'step = "fused"')
    path.write_text(text.replace('precision = "fp32"', 'precision = "bf16"'))
    monkeypatch.setattr(compiled, "built", lambda **_: None)
    with pytest.raises(RecipeError, match="bf16"):
        train(load(path), tmp_path / "again", data=small_data, device="cpu")
    network = load_run(tmp_path / "run").network.train()  # as `robustness --adapt` has it
    network(torch.zeros(3, 2, 2, 34, 34))
    assert network.taken == "autograd, because training.precision is 'bf16'"
