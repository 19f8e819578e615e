"""The banks of a run that may go on learning, for the metadata of a `.nir` file."""

from __future__ import annotations

from typing import Any

from mpsl_export.checkpoint import Checkpoint, Layer
from mpsl_export.merge import fold_scale
from mpsl_runtime.errors import RunError
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.model.plastic import FIXED_RULES, PlasticLayer, unfit_rules

__all__ = ["check_plastic", "plastic_metadata"]


def plastic_metadata(checkpoint: Checkpoint, plan: Plan) -> dict[str, Any]:
    """The entry of each layer that can go on learning, by its node; empty: none can.

    Args:
        plan: of the merged network.
    """
    nodes = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
    found: dict[str, Any] = {}
    for layer, node in zip(checkpoint.layers, nodes, strict=True):
        if layer.rules is not None and layer.beta is not None and not _obstacle(layer):
            found[node.name] = PlasticLayer(
                numbers=layer.rules,
                node=node.name,
                banks=layer.banks,
                coefficients=layer.coefficients,
                beta=layer.beta,
                scale=fold_scale(layer),
            ).to_mapping()
    return found


def check_plastic(checkpoint: Checkpoint) -> None:
    """Raises RunError where no layer has a local bank, or one that has cannot go on learning."""
    local = [layer for layer in checkpoint.layers if set(layer.mechanisms) - set(FIXED_RULES)]
    if not local:
        raise RunError(
            "run has no bank that could go on learning",
            got="+".join(checkpoint.layers[0].mechanisms), expected="hebbian among its mechanisms",
            where=checkpoint.path,
        )  # fmt: skip
    for layer in local:
        obstacle = _obstacle(layer)
        if obstacle:
            raise RunError("layer cannot go on learning", got=obstacle,
                           where=f"{layer.name} of {checkpoint.path}")  # fmt: skip


def _obstacle(layer: Layer) -> str:
    unfit = unfit_rules(layer.mechanisms)
    if unfit:
        return unfit
    if layer.scale is not None:
        return "int8 weights"
    return "" if layer.rules is not None else "no η, β and τ_w: the run is of an earlier version"
