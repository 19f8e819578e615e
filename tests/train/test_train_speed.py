"""The benchmark of training: nobody wins with another network."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mpsl_train.network.layers import NeuronSettings
from mpsl_train.notation import parse

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ["eager", "ours stbp, autograd", "ours mpsl, autograd", "ours mpsl, fused torch"]


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    """The script, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("train_speed")


@pytest.fixture
def task(speed: ModuleType) -> Any:
    torch.manual_seed(0)
    specs, neuron = parse("6C3-AP2-8FC-4", (1, 8, 8)), NeuronSettings(threshold=0.2)
    contestants = importlib.import_module("contestants")
    state = contestants.ours(specs, neuron, contestants.MECHANISMS).state_dict()
    frames = torch.rand(10, 1, 8, 8) * 2
    return contestants.Task(specs, frames, torch.arange(10) % 4, 6, neuron, state)


def test_the_same_network_is_the_same_for_all(speed: ModuleType, task: Any) -> None:
    rows = speed.measured(task, NAMES, rounds=1)
    assert [row["name"] for row in rows] == NAMES
    assert any(any(sample) for sample in rows[0]["first_spikes"])
    assert speed.disagreement(rows) is None


def test_another_network_with_nearly_the_same_loss_is_told(speed: ModuleType, task: Any) -> None:
    rows = speed.measured(task, NAMES[:1], rounds=1)
    # W1 of the first layer, two fifths more: by its loss it would have passed for the same.
    other = replace(task, state={**task.state, "layers.0.W1": task.state["layers.0.W1"] * 1.4})
    rows += speed.measured(other, NAMES[1:2], rounds=1)
    assert rows[1]["first_loss"] == pytest.approx(rows[0]["first_loss"], rel=5e-3)
    reason = speed.disagreement(rows)
    assert reason is not None
    assert "ours stbp, autograd and eager, B = 10" in reason


def test_of_silent_networks_nothing_is_said(speed: ModuleType, task: Any) -> None:
    silent = replace(task, neuron=NeuronSettings(threshold=1e6))
    reason = speed.disagreement(speed.measured(silent, NAMES[:2], rounds=1))
    assert reason == "stbp, B = 10: silent, so that nothing is compared; try --trained 20"
