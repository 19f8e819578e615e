"""Runs that tests of the training room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from mpsl_train.recipe import load
from mpsl_train.training.training import train


class Trained(Protocol):
    """Trains a recipe on the CPU; what report.json says."""

    def __call__(
        self, recipe: Path, run: Path, data: Path, *overrides: str, resume: bool = False
    ) -> dict[str, Any]: ...


@pytest.fixture(scope="session")
def trained() -> Trained:
    def call(
        recipe: Path, run: Path, data: Path, *overrides: str, resume: bool = False
    ) -> dict[str, Any]:
        chosen = load(recipe, overrides)
        return train(chosen, run, data=data, device="cpu", resume=resume).report

    return call


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, small_data: Path, recipe_text: str, trained: Trained
) -> Path:
    """A run that was not disturbed; nobody may change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.toml").write_text(recipe_text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_CACHE", str(folder / "cache"))
        trained(folder / "small.toml", folder / "run", small_data)
    return folder / "run"
