"""A recipe becomes a network with fresh weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import torch

from mpsl_runtime.errors import UsageError
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.local_learning import check_local, is_local
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings, find_rule
from mpsl_train.network.plugins import run_plugin
from mpsl_train.network.regulation import BankLimits
from mpsl_train.notation import LayerSpec, parse
from mpsl_train.recipe import Recipe

__all__ = ["build"]


def build(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> Network:
    """The network of a recipe with fresh weights, which the seed alone decides.

    Args:
        shape: [C, H, W] of one step's input. classes: outputs that the data set asks for.

    Raises:
        RecipeError: notation, mechanism or number of outputs is wrong.
    """
    for plugin in recipe.plugins:
        run_plugin(plugin)
    specs = parse(recipe.network, shape)
    if specs[-1].neurons != (classes,):
        raise UsageError(
            "network does not end in the number of classes",
            got=specs[-1].neurons[0], expected=classes, where="recipe key network",
        )  # fmt: skip
    _check_mechanisms(recipe.mechanisms)
    etas = recipe.rules.eta_hat_layers
    if etas and len(etas) != len(specs):
        raise UsageError(
            "not one η̂ for each weighted layer", got=len(etas), expected=len(specs),
            where="recipe key rules.eta_hat_layers",
        )  # fmt: skip
    if recipe.first_int8_epoch < 1 and any(spec.batchnorm for spec in specs):
        raise UsageError(
            "BN has no statistics to fold into int8 weights before it was trained",
            got=f"quantize_epochs {recipe.training.quantize_epochs} of {recipe.training.epochs}",
            expected="at least one epoch in float first", where="recipe",
        )  # fmt: skip
    _check_memory(recipe, specs, shape)
    network = _fresh(recipe, specs)
    check_local(network, recipe.network)
    if recipe.augmentation.mixup and is_local(network):
        raise UsageError(
            "a rule that learns without back-propagation takes no mixed labels",
            got=recipe.augmentation.mixup, expected="0", where="recipe key augmentation.mixup",
        )  # fmt: skip
    return network


def _check_mechanisms(mechanisms: Sequence[str]) -> None:
    before: set[str] = set()
    for name in mechanisms:
        missing = set(find_rule(name).needs) - before
        if missing:
            raise UsageError(
                f"mechanism {name!r} needs another before it",
                got=list(mechanisms), expected=" and ".join(sorted(missing)), where="recipe",
            )  # fmt: skip
        before.add(name)
    if not any(find_rule(name).learned for name in mechanisms):
        raise UsageError(
            "no mechanism learns from the error", got=list(mechanisms), expected="'stbp' too",
            where="recipe",
        )  # fmt: skip


def _check_memory(recipe: Recipe, specs: Sequence[LayerSpec], shape: tuple[int, int, int]) -> None:
    """Refuses what cannot fit: banks, one gradient and one window's spikes, and nothing else.

    The system promises more than it has, and would end the process only when it is used.
    """
    weights = sum(spec.parameters for spec in specs) * (len(recipe.mechanisms) + 1)
    neurons = prod(shape) + sum(prod(spec.neurons) for spec in specs)
    needed = 4 * weights + recipe.training.batch_size * recipe.data.steps * neurons
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise UsageError(
            "not enough memory for the network and one batch",
            got=f"{present >> 20} MiB", expected=f"at least {needed >> 20} MiB",
            where="recipe keys network, data.steps and training.batch_size",
        )  # fmt: skip


def _fresh(recipe: Recipe, specs: Sequence[LayerSpec]) -> Network:
    rules, neuron = recipe.rules, recipe.neuron
    torch.manual_seed(recipe.seed)
    return build_network(
        specs,
        recipe.mechanisms,
        NeuronSettings(neuron.decay, neuron.threshold, neuron.surrogate_width, neuron.reset),
        RuleSettings(
            tau_w_steps=rules.tau_w_steps,
            eta_hat=rules.eta_hat,
            eta_learnable=rules.eta_learnable and not rules.current_share,
            beta=rules.beta,
            sign={"+": 1, "-": -1, "learned": 0}[rules.sign],
            delta=rules.delta,
            clipped=rules.activity == "clipped",
        ),
        plastic_layers=rules.plastic_layers,
        coefficient_scope=rules.coefficient_scope,
        coefficient_init=rules.coefficient_init or None,
        coefficients_learned=rules.coefficients != "fixed",
        eta_hats=rules.eta_hat_layers,
        limits=BankLimits(rules.cap, rules.normalise == "output", rules.current_share),
        flow=rules.local_gradient == "flow",
        bf16=recipe.training.precision == "bf16",
        init_gain=recipe.training.init_gain,
    )
