"""Every rule against its equation written with loops, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.plasticity import Post, Pre, RuleSettings, find_rule, names
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.plasticity.sbp import SelfBackpropagation

THRESHOLD = 0.3
SETTINGS = RuleSettings(tau_w_steps=20.0, eta_hat=0.7, beta=0.2)


def _draw(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * 1.5 - 0.5


def _spikes(*shape: int) -> Tensor:
    return (torch.rand(*shape, dtype=torch.float64) < 0.4).to(torch.float64)


def literal_hebbian(pre: Pre, potential: Tensor, rule: Hebbian) -> Tensor:
    """Eq. 8, one synapse at a time."""
    shape, s = pre.weight_shape, pre.spikes
    gain = math.tanh
    d = math.exp(-1 / rule.settings.tau_w_steps)
    out = torch.zeros(shape, dtype=torch.float64)
    eta = float(rule.eta_hat) * (1 - d) / math.prod(shape[1:]) * rule.settings.sign
    for o, i in itertools.product(range(shape[0]), range(shape[1])):
        beta = float(rule.beta[o])
        if len(shape) == 2:
            batch = len(s)
            c = sum(gain(float(potential[b, o]) / THRESHOLD) * float(s[b, i]) for b in range(batch))
            p = sum(float(s[b, i]) for b in range(batch))
            out[o, i] = eta * (c + beta * p) / batch
            continue
        for ky, kx in itertools.product(range(shape[2]), range(shape[3])):
            c = p = 0.0
            batch, _, rows, columns = potential.shape
            for b, y, x in itertools.product(range(batch), range(rows), range(columns)):
                row = y * pre.stride[0] + ky - pre.padding[0]
                column = x * pre.stride[1] + kx - pre.padding[1]
                if 0 <= row < s.shape[2] and 0 <= column < s.shape[3]:
                    value = float(s[b, i, row, column])
                    c += gain(float(potential[b, o, y, x]) / THRESHOLD) * value
                    p += value
            out[o, i, ky, kx] = eta * (c + beta * p) / (batch * rows * columns)
    return out


def _case(kind: str) -> tuple[Pre, Tensor]:
    torch.manual_seed(1)
    if kind == "fc":
        return Pre(_spikes(4, 5), (3, 5)), _draw(4, 3)
    stride = 2 if kind == "stride" else 1
    size = 3 if kind == "stride" else 6
    return Pre(_spikes(2, 2, 6, 6), (3, 2, 3, 3), (stride,) * 2, (1, 1)), _draw(2, 3, size, size)


def _rule(name: str, shape: tuple[int, ...], settings: RuleSettings = SETTINGS):  # type: ignore[no-untyped-def]
    rule = find_rule(name)(shape, settings).double()
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.add_(torch.rand_like(parameter))
    return rule.requires_grad_(False)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["fc", "conv", "stride"])
def test_hebbian_is_equation_8(kind: str, sign: int) -> None:
    pre, potential = _case(kind)
    settings = RuleSettings(tau_w_steps=20.0, eta_hat=0.7, beta=0.2, sign=sign)
    rule = _rule("hebbian", pre.weight_shape, settings)
    post = Post(potential, _spikes(*potential.shape), THRESHOLD)
    change = rule.update(pre, post)
    expected = literal_hebbian(pre, potential, rule)
    torch.testing.assert_close(change, expected, rtol=1e-12, atol=1e-15)
    # Both terms are there to be seen: the change is far from that without β, and from that with β
    # alone, in which no membrane has a part.
    rule.beta.zero_()
    without_beta = literal_hebbian(pre, potential, rule)
    assert float(without_beta.abs().max()) > 1e-4
    assert float((expected - without_beta).abs().max()) > 1e-4


def literal_sbp(
    hebbian: Tensor, above: Tensor | None, theta_f: float, theta_p: float, delta: str
) -> Tensor:
    """Eq. 9–11, one channel at a time."""
    fraction, steering = (0.1 + 0.9 / (1 + math.exp(-theta)) for theta in (theta_f, theta_p))
    out = torch.zeros_like(hebbian)
    channels = hebbian.shape[0]
    if above is None:
        return fraction * hebbian
    received = [0.0] * channels
    pixels = above.shape[1] // channels
    for o, i in itertools.product(range(above.shape[0]), range(above.shape[1])):
        if above.dim() == 4:
            for ky, kx in itertools.product(range(above.shape[2]), range(above.shape[3])):
                received[i] += float(above[o, i, ky, kx])
        else:
            received[i // pixels] += float(above[o, i])
    gains = sum(value for value in received if value > 0)
    losses = -sum(value for value in received if value < 0)
    for channel, value in enumerate(received):
        if delta == "l1":
            share = value / (gains + losses)
        elif delta == "split":
            share = value / gains if value > 0 else value / losses
        else:
            share = value / (gains - losses)
        out[channel] = fraction * (1 + steering * share) * hebbian[channel]
    return out


@pytest.mark.parametrize("delta", ["l1", "split", "literal"])
@pytest.mark.parametrize(
    ("own", "next_shape"),
    [((4, 2, 3, 3), (5, 4, 3, 3)), ((4, 2, 3, 3), (6, 4 * 9)), ((4, 7), (3, 4)), ((4, 7), None)],
    ids=["conv-conv", "conv-fc", "fc-fc", "last"],
)
def test_sbp_is_equations_9_to_11(
    own: tuple[int, ...], next_shape: tuple[int, ...] | None, delta: str
) -> None:
    torch.manual_seed(2)
    rule = _rule("sbp", own, RuleSettings(delta=delta))
    hebbian, above = _draw(*own) * 1e-3, None
    post = Post(_draw(1, 1), _spikes(1, 1), THRESHOLD, {"hebbian": hebbian})
    if next_shape is not None:
        above = _draw(*next_shape) * 1e-3
        post.above = Post(_draw(1, 1), _spikes(1, 1), THRESHOLD, {"hebbian": above})
    change = rule.update(Pre(_spikes(1, 1), own), post)
    expected = literal_sbp(hebbian, above, float(rule.theta_f), float(rule.theta_p), delta)
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-18)
    if next_shape is not None:
        fraction = 0.1 + 0.9 * torch.sigmoid(rule.theta_f.detach())
        assert float((change.detach() - fraction * hebbian).abs().max()) > 1e-6


def test_a_silent_layer_above_gives_no_nan_unless_the_literal_rule_is_asked_for() -> None:
    for delta, finite in (("l1", True), ("split", True), ("literal", False)):
        rule: SelfBackpropagation = _rule("sbp", (4, 7), RuleSettings(delta=delta))
        above = Post(_draw(1, 1), _spikes(1, 1), THRESHOLD, {"hebbian": torch.zeros(3, 4).double()})
        post = Post(_draw(1, 1), _spikes(1, 1), THRESHOLD, {"hebbian": _draw(4, 7)}, above)
        change = rule.update(Pre(_spikes(1, 1), (4, 7)), post)
        assert bool(torch.isfinite(change).all()) is finite


def test_the_mean_of_the_input_is_the_correlation_with_ones() -> None:
    for kind in ("fc", "conv", "stride"):
        pre, potential = _case(kind)
        ones = pre.correlate(torch.ones_like(potential))
        torch.testing.assert_close(pre.mean.expand(pre.weight_shape), ones, rtol=1e-12, atol=0)


def test_an_unknown_mechanism_names_the_nearest_known_one() -> None:
    assert {"stbp", "hebbian", "sbp"} <= set(names())
    with pytest.raises(RecipeError, match="'hebbian'"):
        find_rule("hebian")
