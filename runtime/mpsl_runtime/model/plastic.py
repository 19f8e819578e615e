"""Banks that may go on learning after deployment, as they stand in a model file.

The network of a file is the merged one (Eq. 12), with or without them. Beside it the graph's
metadata may hold, under `plastic` and the name of each weighted node, what Eq. 8–11 need to go on
from there: the banks apart, λ, and the numbers of the rules. A file that holds them has been proven
to be merged of just these banks, bit for bit, when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.banks import effective_weight, folded
from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Neuron, Plan, Pooling
from mpsl_runtime.model.typed_metadata import read_fields

__all__ = [
    "FIXED_RULES",
    "LOCAL_RULES",
    "PLASTIC_KEY",
    "PlasticLayer",
    "PlasticNumbers",
    "plastic_layers",
    "unfit_rules",
]

PLASTIC_KEY = "plastic"
"""Of the graph's metadata."""

FIXED_RULES = ("stbp", "random")
LOCAL_RULES = ("hebbian", "sbp")
"""The rules whose banks stay as they are, and those that a runtime continues."""

Array = NDArray[np.float32]

_MOST_BANKS = 8
_LARGEST = 1e6
_BOUNDS = {
    "tau_w_steps": (1e-3, 1e9),
    "eta": (-_LARGEST, _LARGEST),
    "cap": (0.0, _LARGEST),
    "fraction": (0.0, 1.0),
    "steering": (0.0, 1.0),
}


@dataclass(frozen=True)
class PlasticNumbers:
    """The numbers of a layer's rules; the names are those in the metadata.

    Attributes:
        layer: its name in training, `L00`, …. rules: of the banks in order, separated by ",".
        tau_w_steps: τ_w; d = exp(−1/τ_w). eta: η of Eq. 8, with its sign.
        activity: ρ(U) = tanh(U/V_th), or `clipped`: what of it is positive.
        cap: largest ‖Wk‖/‖W1‖ of a local bank at the end of a window; 0: none.
        bound: `bank`, or `output`: W2 of each output is brought to just that size, W3 with it.
        delta: how δ is normalised, `l1`, `split` or `literal`. fraction, steering: λ_f, λ_p.
    """

    layer: str
    rules: str
    tau_w_steps: float
    eta: float
    activity: Literal["tanh", "clipped"]
    cap: float
    bound: Literal["bank", "output"]
    delta: Literal["l1", "split", "literal"] = "l1"
    fraction: float = 0.0
    steering: float = 0.0

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], where: str) -> PlasticNumbers:
        """Reads them; raises ModelError on what is absent, of another type or out of range."""
        numbers: PlasticNumbers = read_fields(cls, data, where, _BOUNDS)
        return numbers

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The rule of each bank."""
        return tuple(self.rules.split(","))


@dataclass(frozen=True, eq=False)
class PlasticLayer:
    """A layer that may go on learning.

    Attributes:
        numbers: of its rules. node: name of the weighted node.
        banks: W1, W2, … as exported, each of the node's shape.
        coefficients: λ, [m] or [m, Co]. beta: β of Eq. 8, [Co].
        scale: what each output's merged weight is multiplied with, float64 [Co], see
            `banks.folded`.
    """

    numbers: PlasticNumbers
    node: str
    banks: tuple[Array, ...]
    coefficients: Array
    beta: Array
    scale: NDArray[np.float64]

    def merged(self, banks: tuple[Array, ...] | None = None) -> Array:
        """The node's weight, of its own banks or of these."""
        return folded(effective_weight(banks or self.banks, self.coefficients), self.scale)

    def to_mapping(self) -> dict[str, Any]:
        """The node's entry in the metadata."""
        values: dict[str, Any] = {
            field.name: getattr(self.numbers, field.name) for field in fields(self.numbers)
        }
        values |= {f"W{k}": bank for k, bank in enumerate(self.banks, start=1)}
        return values | {"lambda": self.coefficients, "beta": self.beta, "scale": self.scale}


def unfit_rules(rules: tuple[str, ...]) -> str:
    """Why the rules of a layer's banks, in order, cannot go on; "": they can."""
    for name in rules:
        if name not in (*FIXED_RULES, *LOCAL_RULES):
            return f"the rule {name!r}"
    if rules[0] != "stbp" or len(set(rules)) != len(rules):
        return "banks in another order"
    if "hebbian" not in rules or "sbp" in rules[: rules.index("hebbian")]:
        return "no Hebbian bank" if "sbp" not in rules else "sbp without a Hebbian bank"
    return ""


def plastic_layers(metadata: Mapping[str, Any], plan: Plan) -> tuple[PlasticLayer, ...]:
    """The layers of a file that may go on learning, in the order in which they run.

    Args:
        metadata: of the graph. plan: of it.

    Raises:
        ModelError: something is absent, of another shape, not finite or out of range, a rule is
            not known, or the banks do not make the node's weight; the node is named.
    """
    said = metadata.get(PLASTIC_KEY)
    if said is None:
        return ()
    if not isinstance(said, Mapping) or not said:
        raise ModelError(f"metadata {PLASTIC_KEY!r} is not a group of layers", where=plan.source)
    if plan.metadata is None or plan.metadata.weights != "float32":
        raise ModelError(
            "only a float32 model of mpsl goes on learning", got=PLASTIC_KEY, where=plan.source
        )
    nodes = _between_our_neurons(plan)
    unknown = [name for name in said if name not in nodes]
    if unknown:
        raise ModelError(
            f"metadata {PLASTIC_KEY!r} names no weights between neurons of mpsl", got=unknown[0],
            expected=", ".join(nodes), where=plan.source,
        )  # fmt: skip
    found = [
        _layer(node, said[name], f"{PLASTIC_KEY} {name!r} of {plan.source}")
        for name, node in nodes.items()
        if name in said
    ]
    names = [layer.numbers.layer for layer in found]
    if len(set(names)) < len(names):
        raise ModelError(
            "two plastic layers have one name", got=", ".join(names), where=plan.source
        )
    return tuple(found)


def _between_our_neurons(plan: Plan) -> dict[str, Convolution | Dense]:
    """The weighted nodes of a chain that see spikes or the input, perhaps pooled, and have neurons
    of Eq. 1-3 behind them."""
    found: dict[str, Convolution | Dense] = {}
    fits = plan.is_chain
    for node, following in zip(plan.nodes, (*plan.nodes[1:], None), strict=True):
        if isinstance(node, Convolution | Dense):
            is_ours = isinstance(following, Neuron) and following.V_th is not None
            if fits and is_ours and getattr(node, "groups", 1) == 1:
                found[node.name] = node
        fits = plan.is_chain and (isinstance(node, Neuron) or (
            fits and isinstance(node, Pooling | Flatten)))  # fmt: skip
    return found


def _layer(node: Convolution | Dense, data: Any, where: str) -> PlasticLayer:
    if not isinstance(data, Mapping):
        raise ModelError("a plastic layer is not a group", where=where)
    numbers = PlasticNumbers.from_mapping(data, where)
    rules = numbers.rule_names
    if len(rules) > _MOST_BANKS:
        raise ModelError("too many banks", got=len(rules), expected=f"≤ {_MOST_BANKS}", where=where)
    unfit = unfit_rules(rules)
    if unfit:
        raise ModelError(
            "rules cannot go on learning", got=unfit,
            expected=f"{FIXED_RULES[0]}, then {' and '.join(LOCAL_RULES)}", where=where,
        )  # fmt: skip
    out, m = len(node.bias), len(rules)

    def array(key: str, *shapes: tuple[int, ...]) -> NDArray[np.float64]:
        return _array(data, key, shapes, where)

    layer = PlasticLayer(
        numbers=numbers,
        node=node.name,
        banks=tuple(_float32(array(f"W{k + 1}", node.weight.shape)) for k in range(m)),
        coefficients=_float32(array("lambda", (m,), (m, out))),
        beta=_float32(array("beta", (out,))),
        scale=array("scale", (out,)).astype(np.float64),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        same = np.array_equal(layer.merged(), node.weight)
    if not same:
        raise ModelError(
            "banks do not make the weight that the model has",
            expected="λ1·W1 + λ2·W2 + … = the node's weight, bit for bit", where=where,
        )  # fmt: skip
    return replace(layer, banks=tuple(np.ascontiguousarray(bank) for bank in layer.banks))


def _array(
    data: Mapping[str, Any], key: str, shapes: tuple[tuple[int, ...], ...], where: str
) -> NDArray[Any]:
    if key not in data:
        raise ModelError(f"plastic layer lacks {key}", where=where)
    value = data[key]
    is_array = isinstance(value, np.ndarray)
    if not is_array or value.dtype.kind != "f" or value.shape not in shapes:
        got = f"{list(value.shape)} of {value.dtype}" if is_array else "no array"
        raise ModelError(
            f"{key} has the wrong shape", got=got,
            expected=" or ".join(str(list(shape)) for shape in shapes), where=where,
        )  # fmt: skip
    if not np.isfinite(value).all():
        raise ModelError(f"{key} is not finite", where=where)
    found: NDArray[Any] = value
    return found


def _float32(array: NDArray[Any]) -> Array:
    """What is beyond float32 becomes infinite, and makes no weight that a model has."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)
