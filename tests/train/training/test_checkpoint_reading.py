"""Checkpoints that somebody else may have written: one line, before torch believes them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mpsl_runtime.errors import MpslError, RunError
from mpsl_train.experiments.runs import load_run

Trained = Callable[..., dict[str, Any]]
State = dict[str, Any]
W1, MOMENT = "network.layers.2.W1", "exp_avg"


def _moments(state: State) -> State:
    moments: State = state["optimizer_states"][0]["state"]
    return moments


def _group(state: State) -> State:
    group: State = state["optimizer_states"][0]["param_groups"][0]
    return group


def _put(target: Any, key: Any, value: object) -> None:
    target[key] = value


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CHANGES: dict[str, Callable[[State], object]] = {
    # Was read out of bounds by the fused optimiser, and ended the process.
    "moments of another shape": lambda s: _put(_moments(s)[0], MOMENT, torch.zeros(1)),
    "moments of another type": lambda s: _put(
        _moments(s)[0], MOMENT, _moments(s)[0][MOMENT].double()
    ),
    "moments that are one number": lambda s: _put(
        _moments(s)[0], MOMENT, torch.zeros(1).expand(_moments(s)[0][MOMENT].shape)
    ),
    "moments that are no tensor": lambda s: _put(_moments(s)[0], MOMENT, 3),
    "moments of a parameter that is not there": lambda s: _put(_moments(s), 999, _moments(s)[0]),
    "moments that lack one": lambda s: _moments(s)[0].pop(MOMENT),
    "a count of steps that is a matrix": lambda s: _put(_moments(s)[0], "step", torch.zeros(2, 2)),
    "sparse weights": lambda s: _put(s["state_dict"], W1, s["state_dict"][W1].to_sparse()),
    "weights of another shape": lambda s: _put(s["state_dict"], W1, torch.zeros(12, 383)),
    "weights of another type": lambda s: _put(s["state_dict"], W1, torch.zeros(12, 384).long()),
    "weights that are not finite": lambda s: s["state_dict"][W1].fill_(float("nan")),
    "a weight too few": lambda s: s["state_dict"].pop(W1),
    "a weight too many": lambda s: _put(s["state_dict"], "network.more", torch.zeros(1)),
    "weights that are a list": lambda s: _put(s, "state_dict", [1, 2]),
    "a learning rate that is a text": lambda s: _put(_group(s), "lr", "fast"),
    "a learning rate without end": lambda s: _put(_group(s), "lr", float("inf")),
    "other parameters in a group": lambda s: _put(_group(s), "params", [0, 0, 0, 0]),
    "another decay of moments": lambda s: _put(_group(s), "betas", (0.9, 1.5)),
    "an optimiser that is none": lambda s: _put(s, "optimizer_states", [3]),
    "a schedule with an attribute of its own": lambda s: _put(s["lr_schedulers"][0], "step", 5),
    "a schedule of another step": lambda s: _put(s["lr_schedulers"][0], "last_epoch", 10**9),
    "loops that lack one": lambda s: s["loops"].pop("fit_loop"),
    "a count of batches that is a text": lambda s: _put(
        s["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"], "ready", "many"
    ),
    "loops within loops": lambda s: _put(s["loops"]["fit_loop"], "state_dict", {"a": _nested(50)}),
    "another epoch": lambda s: _put(s, "epoch", 1),
    "another number of updates": lambda s: _put(s, "global_step", 10**30),
    "a history of no epoch": lambda s: _put(s["callbacks"]["Keeper"], "history", []),
    "a history of too many epochs": lambda s: _put(
        s["callbacks"]["Keeper"], "history", s["callbacks"]["Keeper"]["history"] * 4
    ),
    "a loss that is a text": lambda s: _put(
        s["callbacks"]["Keeper"]["history"][0], "training_loss", "low"
    ),
    "an epoch without the metrics of the others": lambda s: _put(
        s["callbacks"]["Keeper"],
        "history",
        [
            *(h := s["callbacks"]["Keeper"]["history"]),
            {
                key: 2 if key == "epoch" else value
                for key, value in h[0].items()
                if key != "validation_accuracy"
            },
        ],
    ),
    "a best epoch that is a list": lambda s: _put(s["callbacks"]["Keeper"], "best_epoch", [1]),
    "no history": lambda s: s["callbacks"].clear(),
    "a version that is a number": lambda s: _put(s, "pytorch-lightning_version", 2),
    "another key": lambda s: _put(s, "hyper_parameters", {"a": 1}),
}


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """A run that stopped after its first epoch."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "report.json").unlink()
    shutil.copy(run / "best.ckpt", run / "last.ckpt")
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 0
    return run


def test_the_run_itself_goes_on(
    stopped: Path, small_recipe: Path, small_data: Path, trained: Trained
) -> None:
    assert trained(small_recipe, stopped, small_data, resume=True)["epochs"] == 3


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_checkpoint_is_refused_in_one_line(
    change: str, stopped: Path, small_recipe: Path, small_data: Path, trained: Trained
) -> None:
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    CHANGES[change](state)
    torch.save(state, stopped / "last.ckpt")
    with pytest.raises(MpslError) as caught:
        trained(small_recipe, stopped, small_data, resume=True)
    message = str(caught.value)
    assert message.isprintable()
    assert "not finite" in message or message.startswith("checkpoint is not of this training: ")
    assert not (stopped / "report.json").exists()


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300_000_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"state_dict": Path}, path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(b"\x80\x04K\x01."),
        _bomb,
    ],
    ids=["list", "class", "empty", "cut", "pickle", "bomb"],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(
    write: Callable[[Path], object], stopped: Path, small_recipe: Path, small_data: Path,
    trained: Trained,
) -> None:  # fmt: skip
    write(stopped / "last.ckpt")
    with pytest.raises(RunError, match=r"^checkpoint "):
        trained(small_recipe, stopped, small_data, resume=True)
    with pytest.raises(RunError, match=r"^checkpoint "):
        load_run(stopped, rules=True)
