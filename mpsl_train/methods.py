"""The methods of the comparison: named changes of a recipe, so that a method is one word and
runs on every data set. `mpsl train RECIPE --method hgll` is the recipe with these keys changed; the
run's recipe.toml holds the name and all keys as they were used.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mpsl_runtime.errors import RecipeError

__all__ = ["METHODS", "Method", "changes_of"]

# The published rules. τ_w is the data set's in the paper's Table 1, and η̂ goes with the power of
# its inputs: both stay the recipe's.
_PUBLISHED = MappingProxyType(
    {
        "coefficients": "learnable",
        "coefficient_scope": "layer",
        "coefficient_init": [],
        "eta_learnable": True,
        "eta_hat_layers": [],
        "current_share": 0.0,
        "warmup_epochs": 0.0,
        "beta": 0.0,
        "sign": "+",
        "activity": "tanh",
        "delta": "l1",
        "cap": 0.25,
        "normalise": "none",
        "local_gradient": "detached",
        "plastic_layers": "all",
    }
)
# For what the recipe's η̂ and τ_w were not chosen for.
_PLAIN = MappingProxyType({"eta_hat": 1.0, "tau_w_steps": 40.0})
_DEFAULT = MappingProxyType({**_PUBLISHED, **_PLAIN})


@dataclass(frozen=True)
class Method:
    """A named change of recipes.

    Attributes:
        summary: one line for `--help` and tables. source: where the settings come from.
        changes: keys of the recipe and their values, nested as in the file.
        network: replaces the network; `{classes}` is the number of classes of the old one.
        image_steps: T for images; recordings have a T and a step of their own. 0: as it is.
        datasets: that its settings are made for, which `mpsl compare` keeps to; empty: all.
    """

    summary: str
    source: str
    changes: Mapping[str, Any]
    network: str = ""
    image_steps: int = 0
    datasets: tuple[str, ...] = ()


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mpsl": Method(
            "three banks in every layer, Eq. 5-12 as published, warmed up over an epoch",
            "the paper; cap 0.25, the warm-up and the recipe's own η̂ and τ_w",
            {
                "mechanisms": ["stbp", "hebbian", "sbp"],
                "rules": {**_PUBLISHED, "warmup_epochs": 1.0},
            },
        ),
        "stbp": Method(
            "back-propagation through time alone",
            "Wu 2018, spatio-temporal back-propagation, the same surrogate (Eq. 7)",
            {"mechanisms": ["stbp"], "rules": dict(_DEFAULT)},
        ),
        # Public code, classification/mnist/mnist_model.py: hebb ← 0.95·hebb − ⟨β·s ⊗ (U/V_th − η)⟩
        # with β = 1e-3, η = 0 at first, both learned, λ2 = 0.1 at first, MNIST's 2,304 inputs:
        # η̂ = 1e-3·2304/(1 − 0.95) = 46 in our units. It bounds the bank by |w| ≤ 2, which is no
        # bound in practice; dropout 0.5 between its layers stays with the recipe's network.
        "hgll": Method(
            "stbp and an anti-Hebbian bank in the fully connected layers",
            "Wu 2022, public code yjwu12/Hybrid-plasticity-Spiking-Network-Model, MNIST",
            {
                "mechanisms": ["stbp", "hebbian"],
                "rules": {
                    **_DEFAULT,
                    "coefficient_init": [1.0, 0.1],
                    "eta_hat": 46.0,
                    "sign": "-",
                    "tau_w_steps": 19.5,
                    "cap": 0.0,
                    "plastic_layers": "fc",
                },
            },
        ),
        # Not of the paper: Eq. 12 freezes the banks, these go on at test time. A learned η̂ goes to
        # zero under this sign; τ_w of 40 steps forgets within a few recordings.
        "adaptive": Method(
            "anti-Hebbian banks, to stay plastic at test time: `mpsl robustness --adapt`",
            "ours; frozen by Eq. 12 it is another network: `mpsl export --plastic` keeps it",
            {
                "mechanisms": ["stbp", "hebbian", "sbp"],
                "rules": {
                    **_DEFAULT,
                    "eta_hat": 5.0,
                    "eta_learnable": False,
                    "sign": "-",
                    "tau_w_steps": 200.0,
                },
            },
        ),
        # The authors: 784-500-10, T = 10, 100 epochs of batches of 50, learning rates 0.1 and 0.05.
        "sbp": Method(
            "local changes alone, no back-propagation, on a multi-layer perceptron",
            "Zhang 2021, public code thomasaimondy/SBP, SBP_SNN_STDP",
            {
                "mechanisms": ["sbp-local"],
                "rules": {**_DEFAULT, "coefficients": "fixed"},
            },
            network="500FC-{classes}",
            image_steps=10,
        ),
        # 100 neurons; 400 with `--set network=400WTA`. One pass over the images.
        "stdp": Method(
            "competing neurons learn by spike timing, without labels; images alone",
            "Diehl & Cook 2015; what differs is told in mpsl_train/network/winner_take_all.py",
            {
                "mechanisms": ["stdp"],
                "rules": dict(_DEFAULT),
                "training": {"epochs": 1, "batch_size": 16},
            },
            network="100WTA",
            image_steps=100,
            datasets=("mnist",),
        ),
    }
)


def _last_word(network: object) -> str:
    return str(network).rpartition("-")[2].removesuffix("FC")


def changes_of(name: object, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the method changes in `recipe`, a recipe as read from its file.

    Raises:
        RecipeError: no such method.
    """
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        near = difflib.get_close_matches(str(name), METHODS, 1)
        raise RecipeError(
            "no such method",
            got=repr(name),
            expected=repr(near[0]) if near else " or ".join(METHODS),
            where="method",
        )
    changes: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in method.changes.items()
    }
    if name == "mpsl" and (recipe.get("method") or name) != name:
        # Another method's η̂ and τ_w, not the data's.
        changes["rules"] |= _PLAIN
    if method.network:
        changes["network"] = method.network.format(classes=_last_word(recipe.get("network", "")))
    data = recipe.get("data")
    if method.image_steps and isinstance(data, Mapping) and "step_us" not in data:
        changes["data"] = {**changes.get("data", {}), "steps": method.image_steps}
    return changes
