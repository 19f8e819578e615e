"""Runs of `mpsl train` for cards, and the verb `card`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mpsl_export.export import export
from mpsl_runtime import cli

Command = Callable[..., tuple[int, str, str]]
RECIPE = """
name = "tiny"
network = "6C3S2-BN-8C3-AP2-12FC-8"
mechanisms = ["stbp", "hebbian", "sbp"]
[data]
dataset = "nmnist8"
steps = 3
step_us = 100000
downsample = 2
[training]
epochs = 1
batch_size = 6
[augmentation]
shift = 1
"""


@pytest.fixture(scope="session")
def trained(event_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one recipe: seeds 0 and 1, the method STBP, and one of twice as many epochs."""
    from mpsl_train.recipe import load
    from mpsl_train.training.training import train

    base = tmp_path_factory.mktemp("card")
    (base / "recipe.toml").write_text(RECIPE)
    shutil.copytree(event_run.data, base / "data")
    changes = {
        "a": [], "b": ["seed=1"], "stbp": ["method=stbp"], "longer": ["training.epochs=2"],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_CACHE", str(base / "cache"))
        for name, overrides in changes.items():
            recipe = load(base / "recipe.toml", overrides)
            train(recipe, base / name, data=base / "data", device="cpu")
    for format in ("nir", "onnx"):
        export(base / "a", format)
    return base


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage, and `model/`, where cards go."""
    shutil.copytree(trained, tmp_path / "runs")
    (tmp_path / "runs" / "model").mkdir()
    shutil.copy(trained / "recipe.toml", tmp_path / "runs" / "model")
    return tmp_path / "runs"


@pytest.fixture
def card(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`mpsl card` on runs by name; gives exit code, stdout and stderr."""
    entry = EntryPoint("export", "mpsl_export.cli:register", "mpsl.commands")
    monkeypatch.setattr("mpsl_runtime.cli.entry_points", lambda group: [entry])

    def run(*names: str, out: str = "model", options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        places = [str(runs / name) for name in names]
        more = ["--out", str(runs / out), "--data", str(runs / "data"), *options]
        with pytest.raises(SystemExit) as stopped:
            cli.main(["card", *places, *more])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run
