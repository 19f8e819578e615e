"""Competing neurons: each equation against loops over neurons and spikes, and a whole run."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mpsl_export.checkpoint import read_checkpoint
from mpsl_runtime.errors import MpslError, RunError
from mpsl_train.network.winner_take_all import WinnerTakeAll, class_scores, labels_of, neurons_in
from mpsl_train.recipe import find_recipe, load
from mpsl_train.training.training import train


def _network(neurons: int = 5, pixels: int = 30) -> tuple[WinnerTakeAll, Tensor]:
    generator = torch.Generator().manual_seed(4)
    network = WinnerTakeAll.fresh(pixels, neurons, generator)
    images = (torch.rand(3, pixels, generator=generator) * 255).to(torch.uint8)
    return network, network.encode(images, 60)


def literal_window(
    spikes: list[list[list[float]]], weights: Tensor, theta: list[float], learn: bool
) -> tuple[list[tuple[int, int, int]], list[float]]:
    """(step, image, neuron) of every spike, one neuron at a time."""
    steps, batch, neurons = len(spikes), len(spikes[0]), len(theta)
    v = [[0.0] * neurons for _ in range(batch)]
    silent = [[0] * neurons for _ in range(batch)]
    fired, theta = [], list(theta)
    for t in range(steps):
        winners = []
        for b in range(batch):
            for n in range(neurons):
                v[b][n] *= math.exp(-2.5 / 100)
                if silent[b][n] > 0:
                    silent[b][n] -= 1
                else:
                    for spike, weight in zip(spikes[t][b], weights[:, n].tolist(), strict=True):
                        v[b][n] += spike * weight
            margin, winner = max((v[b][n] - 13.0 - theta[n], -n) for n in range(neurons))
            if margin >= 0:
                winners.append((t, b, -winner))
        for _, b, winner in winners:
            v[b] = [5.0 if n == winner else u - 120.0 for n, u in enumerate(v[b])]
            silent[b][winner] = 2
        if learn and winners:
            theta = [value * math.exp(-2.5 / 1e7) for value in theta]
            for _, _, winner in winners:
                theta[winner] += 0.05
        fired += winners
    return fired, theta


@pytest.mark.parametrize("learn", [True, False])
def test_a_window_is_the_competition_of_single_neurons(learn: bool) -> None:
    network, spikes = _network()
    before, weights = network.theta.clone(), network.weights.clone()
    fired = network.present(spikes, learn=learn)
    expected, theta = literal_window(spikes.tolist(), weights, before.tolist(), learn)
    assert [tuple(place) for place in torch.nonzero(fired).tolist()] == sorted(expected)
    assert len(expected) > 10
    torch.testing.assert_close(network.theta, torch.tensor(theta))
    assert torch.equal(network.weights, weights) is not learn


def test_weights_move_by_every_pair_of_spikes() -> None:
    network, spikes = _network()
    weights = network.weights.clone()
    fired = network.present(spikes, learn=True)
    for pixel, neuron in product(range(30), range(5)):
        change = 0.0
        for image in range(3):
            before = torch.nonzero(spikes[:, image, pixel])[:, 0].tolist()
            after = torch.nonzero(fired[:, image, neuron])[:, 0].tolist()
            for pre, post in product(before, after):
                trace = math.exp(-abs(post - pre) * 2.5 / 20)
                change += 1e-2 * trace if pre <= post else -1e-4 * trace
        weights[pixel, neuron] = min(1.0, max(0.0, float(weights[pixel, neuron]) + change))
    torch.testing.assert_close(network.weights, weights * 78.4 / weights.sum(0))


def test_a_neuron_has_the_class_it_answers_to_most_on_average() -> None:
    # Class 1 is seen twice as often: sums alone would give it both neurons.
    counts = torch.tensor([[4.0, 0.0], [3.0, 5.0], [3.0, 5.0]])
    labels = torch.tensor([0, 1, 1])
    assigned = labels_of(counts, labels, 3)
    assert assigned.tolist() == [0, 1]
    three = torch.tensor([0, 1, 0])
    scores = class_scores(torch.tensor([[1.0, 5.0, 3.0]]), three, 3)
    assert scores.tolist() == [[2.0, 5.0, 0.0]]


def test_poisson_rates_follow_the_intensity() -> None:
    network, _ = _network()
    images = torch.tensor([[0, 128, 255]], dtype=torch.uint8).repeat(50, 1)
    rates = network.encode(images, 400).mean((0, 1)) / 2.5e-3
    assert rates[0] == 0
    assert rates[1:].tolist() == pytest.approx([32.0, 63.75], rel=0.05)


def test_a_run_learns_classes_it_was_never_told(small_images: Path, tmp_path: Path) -> None:
    recipe = load(find_recipe("mnist"), ["method=stdp", "network=40WTA", "data.steps=60"])
    run = tmp_path / "run"
    report = train(recipe, run, data=small_images, device="cpu").report
    assert report["accuracy"] >= 0.8
    assert json.loads((run / "report.json").read_text("utf-8"))["accuracy"] == report["accuracy"]
    with np.load(run / "evaluation.npz", allow_pickle=False) as record:
        assert float(np.mean(record["predictions"] == record["labels"])) == report["accuracy"]
        assert np.array_equal(record["scores"].argmax(1), record["predictions"])
    weights = load_file(run / "stdp.safetensors")["weights"]
    torch.testing.assert_close(weights.sum(0), torch.full((40,), 78.4))
    assert (run / "report.png").stat().st_size > 1000
    with pytest.raises(RunError, match="winner-take-all inhibition is recurrent"):
        read_checkpoint(run)
    again = train(recipe, tmp_path / "again", data=small_images, device="cpu").report
    assert again["accuracy"] == report["accuracy"]
    assert torch.equal(load_file(tmp_path / "again" / "stdp.safetensors")["weights"], weights)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("mnist", ["network=100FC-10"], "100WTA"),
        ("mnist", ["mechanisms=stdp+hebbian"], "without the others"),
        ("nmnist8", [], "implemented for images"),
    ],
)
def test_what_stdp_is_not_defined_for_is_refused_before_anything_is_written(
    recipe: str, overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MpslError, match=message):
        train(load(find_recipe(recipe), ["method=stdp", *overrides]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_number_of_neurons_is_read_from_the_notation() -> None:
    assert neurons_in("400WTA") == 400
    with pytest.raises(MpslError, match="≥ 2"):
        neurons_in("1WTA")
