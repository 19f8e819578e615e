"""Options of the rules: exact in every way of a window, and what each of them says it does."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt, tanh
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpsl_runtime.errors import UsageError
from mpsl_train.network.compiled import CompiledKernels, built
from mpsl_train.network.graphed import ON_DEVICE
from mpsl_train.network.kernels import TORCH, Kernels
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import Post, RuleSettings
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.regulation import BankLimits, squared_currents
from mpsl_train.network.step_choice import graph_obstacle
from mpsl_train.notation import parse
from mpsl_train.recipe import Recipe
from mpsl_train.training.build import build
from mpsl_train.training.module import TrainingModule

needs_compiled = pytest.mark.skipif(built() is None, reason="mpsl was installed without a compiler")
KERNELS = [
    pytest.param(TORCH, id="torch"),
    pytest.param(ON_DEVICE, id="on-device"),
    pytest.param(0.0, id="dense", marks=needs_compiled),
    pytest.param(1.0, id="events", marks=needs_compiled),
]
ALL = "stbp+hebbian+sbp"
SETTINGS = RuleSettings(tau_w_steps=5.0)


def _network(
    mechanisms: str = ALL, settings: RuleSettings = SETTINGS, text: str = "4C3-AP2-5C3S2-7FC-3",
    **more: Any,
) -> Network:  # fmt: skip
    torch.manual_seed(0)
    network = build_network(
        parse(text, (2, 9, 9)), mechanisms.split("+"), NeuronSettings(), settings, **more
    ).double()
    with torch.no_grad():
        for layer in network.layer_list:
            layer.bias.sub_(0.05)  # where all fire far above V_th, gradients are zero
    return network.train()


def _frames(seed: int = 3, constant: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (6, 2, 9, 9) if constant else (5, 6, 2, 9, 9)
    return torch.poisson(torch.full(shape, 0.5, dtype=torch.float64), generator=generator)


def _kernels(choice: Kernels | float) -> Kernels:
    compiled = built()
    if isinstance(choice, Kernels) or compiled is None:
        assert isinstance(choice, Kernels)
        return choice
    return CompiledKernels(compiled.module, choice)


def _learn(network: Network, updates: int, constant: bool = False) -> Network:
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05)
    for update in range(updates):
        optimiser.zero_grad()
        rates = network(_frames(update, constant), 5).spikes.mean(0)
        F.mse_loss(rates, F.one_hot(torch.arange(6) % 3, 3).double()).backward()
        optimiser.step()
    return network


SHARED = BankLimits(0.25, False, 0.2)
OPTIONS: dict[str, dict[str, Any]] = {
    "clipped": {"settings": replace(SETTINGS, clipped=True)},
    "sign": {"settings": replace(SETTINGS, sign=0, eta_hat=3.0)},
    "output": {"limits": BankLimits(0.1, True)},
    "layers": {"eta_hats": [0.5, 1.0, 2.0, 0.0]},
    "share": {"limits": SHARED, "settings": replace(SETTINGS, eta_learnable=False)},
    "share, dropout": {"limits": SHARED, "text": "4C3-AP2-DP0.2-5C3S2-7FC-3"},
    "share, fc": {"limits": SHARED, "plastic_layers": "fc"},
    "random": {"limits": SHARED, "mechanisms": "stbp+random"},
    "random, channels": {"limits": SHARED, "mechanisms": "stbp+random",
                         "coefficient_scope": "channel"},
}  # fmt: skip


@pytest.mark.parametrize("constant", [False, True], ids=["frames", "image"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kernels", KERNELS)
def test_every_way_learns_the_same(kernels: Kernels | float, option: str, constant: bool) -> None:
    ends = []
    for step in ("fused", "autograd"):
        network = _network(**OPTIONS[option])
        network.step, network.kernels = step, _kernels(kernels)
        torch.manual_seed(7)  # of dropout
        _learn(network, 3, constant)
        ends.append(network.state_dict())
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-10, atol=1e-13, msg=name)
    plain = _learn(_network(**{**OPTIONS[option], "limits": None, "settings": SETTINGS,
                               "eta_hats": ()}), 3, constant).state_dict()  # fmt: skip
    changed = [name for name, value in plain.items() if not torch.equal(value, ends[0][name])]
    assert changed, "the option does something"


def test_the_default_is_what_no_option_is() -> None:
    limits = BankLimits(0.25, False, 0.0)
    one = _learn(_network(), 2).state_dict()
    other = _learn(_network(limits=limits, eta_hats=[1.0] * 4), 2).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("mechanisms", ["stbp+hebbian", ALL, "stbp+random"])
def test_the_share_of_the_current_comes_to_what_is_asked(mechanisms: str) -> None:
    wanted = 0.15
    settings = replace(SETTINGS, eta_learnable=False)
    network = _network(mechanisms, settings, limits=BankLimits(10.0, False, wanted))
    frames = _frames()
    for _ in range(80):
        network(frames)
    seen = network.eval()(frames, record=True).layers
    for number, layer in enumerate(network.layer_list):
        x = (seen[number - 1] if number else frames).flatten(0, 1)
        local, whole = squared_currents(layer, layer.prepare(x, layer.begin()))
        # Measured in training on the last step alone.
        assert float((local / whole).sqrt()) == pytest.approx(wanted, rel=0.35), layer.spec.name


def test_eta_follows_the_error_of_one_window_and_no_further() -> None:
    settings = replace(SETTINGS, eta_learnable=False)
    network = _network("stbp+hebbian", settings, limits=BankLimits(0.25, False, 0.2))
    frames, wanted = _frames(), {0.2: 0, 1e-6: 0, 0.9: 0}
    for share in wanted:
        for layer in network.layer_list:
            layer.limits = BankLimits(0.25, False, share)
            layer.rules["hebbian"].eta_hat.data.fill_(1.0)  # type: ignore[union-attr,operator]
        seen = network(frames, record=True).layers
        for number, layer in enumerate(network.layer_list):
            x = layer.prepare((seen[number - 1] if number else frames)[-1], layer.begin())
            local, whole = squared_currents(layer, x)
            error = max(-1.0, min(1.0, log(share / sqrt(local / whole))))
            rule = layer.rules["hebbian"]
            assert isinstance(rule, Hebbian)
            # T/(4·τ_w) is a quarter here.
            assert float(rule.eta_hat) == pytest.approx(exp(error / 4), rel=1e-9)
            wanted[share] += abs(error) == 1
    assert wanted[1e-6] > 0, "an error beyond a factor of e"


def test_a_random_bank_leaves_the_first_weights_of_its_seed_and_never_turns() -> None:
    plain, control = _network("stbp"), _network("stbp+random", limits=SHARED)
    for one, other in zip(plain.layer_list, control.layer_list, strict=True):
        assert torch.equal(one.banks[0], other.banks[0])
        assert torch.equal(one.bias, other.bias)
    before = [layer.banks[1].clone() for layer in control.layer_list]
    assert not control.plastic
    _learn(control, 4)
    for old, layer in zip(before, control.layer_list, strict=True):
        ratio = layer.banks[1] / old
        assert float(ratio.std()) < 1e-12
        assert float(ratio.mean()) != 1


def test_each_output_of_a_normalised_bank_has_its_size() -> None:
    network = _learn(_network(limits=BankLimits(0.1, True)), 2)
    for layer in network.layer_list:
        rows = [bank.flatten(1).norm(dim=1) for bank in layer.banks]
        assert float(rows[1].min()) > 0
    # Held once more against the weights that the last update left.
    layer = network.layer_list[2]
    state = layer.begin()
    layer.commit(state)
    rows = [bank.flatten(1).norm(dim=1) for bank in layer.banks]
    torch.testing.assert_close(rows[1], 0.1 * rows[0])
    state.banks[1] = torch.zeros_like(state.banks[1])
    layer.commit(state)
    assert torch.equal(layer.banks[1], torch.zeros_like(layer.banks[1]))


def test_a_clipped_activity_is_never_negative() -> None:
    membrane = torch.tensor([[-0.3, 0.0, 0.15, 2.0]], dtype=torch.float64)
    spikes = torch.zeros_like(membrane)
    expected = [max(0.0, tanh(u / 0.3)) for u in membrane[0].tolist()]
    assert Post(membrane, spikes, 0.3, clipped=True).activity[0].tolist() == pytest.approx(expected)
    assert float(Post(membrane, spikes, 0.3).activity.min()) < 0


def test_a_learned_sign_begins_with_none_and_gets_a_gradient() -> None:
    network = _network(settings=replace(SETTINGS, sign=0))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(2):  # of the first window nothing remains
        optimiser.zero_grad()
        rates = network(_frames()).spikes.mean(0)
        F.mse_loss(rates, F.one_hot(torch.arange(6) % 3, 3).double()).backward()
    for layer in network.layer_list:
        rule = layer.rules["hebbian"]
        assert isinstance(rule, Hebbian)
        assert float(rule.eta.detach()) == 0
        assert rule.theta_sign is not None
        assert rule.theta_sign.grad is not None
        assert float(rule.theta_sign.grad) != 0
    optimiser.step()
    signs = {float(torch.sign(layer.rules["hebbian"].eta.detach())) for layer in network.layer_list}
    assert signs <= {-1.0, 1.0}


def _recipe(**rules: Any) -> Recipe:
    values = {"name": "a", "network": "4C3-3", "data": {"dataset": "nmnist"}, "rules": rules}
    return Recipe.model_validate(values)


def test_banks_are_warmed_up_over_the_epochs_that_the_recipe_says() -> None:
    recipe = _recipe(warmup_epochs=1.5)
    network = build(recipe, (2, 9, 9), 3)
    module = TrainingModule(network, recipe, batches=4)
    rates = [module._warmth(batch) for batch in range(4)]
    assert rates == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6])
    network.warm(rates[0])
    assert graph_obstacle(network.layer_list, _frames()) == "the banks are being warmed up"
    rule = network.layer_list[0].rules["hebbian"]
    assert isinstance(rule, Hebbian)
    assert float(rule.eta.detach()) == pytest.approx(float(rule.eta_hat.detach()) * rule.scale / 6)
    network.warm(1.0)
    assert graph_obstacle(network.layer_list, _frames()) is None
    assert TrainingModule(network, _recipe(warmup_epochs=0), batches=4)._warmth(0) == 1


def test_a_graph_says_that_it_does_not_lead_a_share() -> None:
    network = build(_recipe(current_share=0.1), (2, 9, 9), 3)
    assert "current_share" in str(graph_obstacle(network.layer_list, _frames()))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rules": {"normalise": "output", "cap": 0.0}}, r"needs a rules\.cap"),
        ({"mechanisms": ["stbp", "random"]}, r"needs rules\.current_share"),
        ({"rules": {"current_share": 1.0}}, "less than 1"),
        ({"rules": {"activity": "relu"}}, "'tanh' or 'clipped'"),
    ],
)
def test_what_an_option_needs_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate({**_recipe().dump(), **values})


def test_as_many_rates_as_layers() -> None:
    with pytest.raises(UsageError, match="η̂ for each weighted layer; got 3; expected 2"):
        build(_recipe(eta_hat_layers=[1.0, 2.0, 3.0]), (2, 9, 9), 3)
    network = build(_recipe(eta_hat_layers=[1.0, 2.0]), (2, 9, 9), 3)
    assert [float(layer.rules["hebbian"].eta_hat.detach()) for layer in network.layer_list] == [
        1.0,
        2.0,
    ]  # type: ignore[arg-type]
