"""The three modes of λ, in runs: learnable, fixed, frozen after learning."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mpsl_train.recipe import load
from mpsl_train.training.training import train


def _coefficients(recipe: Path, data: Path, run: Path, *overrides: str) -> Tensor:
    changes = ["training.schedule=constant", "training.warmup_epochs=0", *overrides]
    train(load(recipe, changes), run, data=data, device="cpu")
    banks = load_file(run / "banks.safetensors")
    return torch.stack([banks[name] for name in sorted(banks) if name.endswith(".lambda")])


def test_frozen_coefficients_stay_where_the_last_free_epoch_left_them(
    small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    one_epoch = _coefficients(small_recipe, small_data, tmp_path / "one", "training.epochs=1")
    frozen = _coefficients(
        small_recipe, small_data, tmp_path / "frozen", "training.epochs=3",
        "rules.coefficients=frozen", "rules.freeze_epoch=1",
    )  # fmt: skip
    learnable = _coefficients(small_recipe, small_data, tmp_path / "free", "training.epochs=3")
    assert torch.equal(frozen, one_epoch)
    assert float((frozen - 1).abs().min()) > 0
    assert float((learnable - frozen).abs().min()) > 0


def test_fixed_coefficients_are_those_of_the_recipe(
    small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    fixed = _coefficients(
        small_recipe, small_data, tmp_path / "fixed", "training.epochs=1",
        "rules.coefficients=fixed", "rules.coefficient_init=[1.0, 0.5, 0.25]",
    )  # fmt: skip
    assert torch.equal(fixed, torch.tensor([1.0, 0.5, 0.25]).expand(4, 3))
