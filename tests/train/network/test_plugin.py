"""Reward-modulated Hebbian learning, a user's rule: one file, under 40 lines, nothing else."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.merge import effective_weight
from mpsl_train.network.plasticity import Post, Pre, RuleSettings, find_rule
from mpsl_train.network.plugins import load_plugin
from mpsl_train.recipe import load
from mpsl_train.training.build import build
from mpsl_train.training.training import train

FILE = Path(__file__).parent / "plugins" / "reward_hebbian.py"
NAME = "reward-hebbian"
THRESHOLD = 0.3


def literal(pre: Pre, potential: Tensor, reward: list[float], eta: float) -> Tensor:
    """ΔW, one synapse at a time."""
    shape, s = pre.weight_shape, pre.spikes
    expected = sum(reward) / len(reward)
    out = torch.zeros(shape, dtype=torch.float64)
    for synapse in itertools.product(*map(range, shape)):
        o, i, *tap = synapse
        total, count = 0.0, 0
        for b, value in enumerate(reward):
            if not tap:
                g = math.tanh(float(potential[b, o]) / THRESHOLD)
                total += (value - expected) * g * float(s[b, i])
                count += 1
                continue
            for y, x in itertools.product(range(potential.shape[2]), range(potential.shape[3])):
                row, column = y + tap[0] - 1, x + tap[1] - 1
                count += 1
                if 0 <= row < s.shape[2] and 0 <= column < s.shape[3]:
                    g = math.tanh(float(potential[b, o, y, x]) / THRESHOLD)
                    total += (value - expected) * g * float(s[b, i, row, column])
        out[synapse] = eta * total / count
    return out


@pytest.mark.parametrize("kind", ["fc", "conv"])
def test_the_rule_is_its_equation(kind: str) -> None:
    load_plugin(str(FILE))
    torch.manual_seed(5)
    shape = (3, 5) if kind == "fc" else (3, 2, 3, 3)
    inputs, outputs = ((4, 5), (4, 3)) if kind == "fc" else ((4, 2, 5, 4), (4, 3, 5, 4))
    pre = Pre(
        (torch.rand(inputs) < 0.4).double(), shape, padding=(0, 0) if kind == "fc" else (1, 1)
    )
    potential = torch.rand(outputs, dtype=torch.float64) - 0.3
    rule = find_rule(NAME)(shape, RuleSettings(tau_w_steps=20.0, eta_hat=0.7)).double()
    reward = [1.0, 0.0, 0.0, 1.0]
    post = Post(potential, potential, THRESHOLD, reward=torch.tensor(reward).double())
    eta = 0.7 * (1 - math.exp(-1 / 20)) / math.prod(shape[1:])
    expected = literal(pre, potential, reward, eta)
    assert float(expected.abs().max()) > 1e-5
    torch.testing.assert_close(rule.update(pre, post).detach(), expected, rtol=1e-6, atol=1e-15)


def test_nothing_is_learned_where_all_are_right_or_nobody_tells() -> None:
    load_plugin(str(FILE))
    pre, potential = Pre(torch.ones(2, 5), (3, 5)), torch.rand(2, 3)
    rule = find_rule(NAME)((3, 5), RuleSettings())
    for reward in (torch.ones(2), None):
        change = rule.update(pre, Post(potential, potential, THRESHOLD, reward=reward))
        assert torch.equal(change, torch.zeros(3, 5))


def test_the_reward_is_whether_the_leading_class_of_the_step_is_right(small_recipe: Path) -> None:
    recipe = load(
        small_recipe, [f"mechanisms=stbp+{NAME}", f'plugins=["{FILE}"]', "network=5FC-10"]
    )
    network = build(recipe, (2, 4, 4), 10)
    told: list[tuple[Tensor, Tensor]] = []
    last = network.layer_list[-1].rules[NAME]
    first = network.layer_list[0].rules[NAME]
    plain = type(last).update

    def spy(pre: Pre, post: Post) -> Tensor:
        told.append((post.membrane.argmax(1), post.reward))
        return plain(last, pre, post)

    last.update = spy
    seen: list[Tensor] = []
    first.update = lambda pre, post: (seen.append(post.reward), plain(first, pre, post))[1]
    labels = torch.arange(6)
    network.train()(torch.rand(3, 6, 2, 4, 4) * 3, labels=labels)
    assert len(told) == len(seen) == 3
    for (leading, reward), below in zip(told, seen, strict=True):
        assert torch.equal(reward, (leading == labels).float())
        assert torch.equal(below, reward)


def test_a_run_with_the_plug_in_is_exported_like_any_other(
    small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    assert len(FILE.read_text("utf-8").strip().splitlines()) < 40
    overrides = [f"mechanisms=stbp+{NAME}", f'plugins=["{FILE}"]', "training.epochs=2"]
    report = train(load(small_recipe, overrides), tmp_path / "run", data=small_data, device="cpu")
    assert report.report["mechanisms"] == ["stbp", NAME]
    banks = read_checkpoint(tmp_path / "run").layers
    layer = banks[0]
    assert float(np.abs(layer.banks[1]).max()) > 0
    expected = layer.coefficients[0] * layer.banks[0] + layer.coefficients[1] * layer.banks[1]
    assert np.array_equal(effective_weight(layer), expected)
