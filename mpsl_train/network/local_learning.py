"""Training without back-propagation: a window's spikes, then one local change of every weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.network import Network, Output
from mpsl_train.network.plasticity.sbp_local import local_changes, nudged_states

__all__ = ["check_local", "is_local", "local_loss"]

_NAME = "sbp-local"


def is_local(network: Network) -> bool:
    """Whether the network learns by `sbp-local`."""
    return network.mechanisms == (_NAME,)


def check_local(network: Network, notation: str) -> None:
    """Refuses what local learning is not defined for.

    Raises:
        RecipeError: other mechanisms beside it, or a layer that is not plainly fully connected.
    """
    if _NAME not in network.mechanisms:
        return
    if not is_local(network):
        raise RecipeError(
            f"{_NAME!r} learns without back-propagation, alone",
            got=list(network.mechanisms), expected=[_NAME], where="mechanisms",
        )  # fmt: skip
    for layer in network.layer_list:
        spec = layer.spec
        if spec.kind != "fc" or spec.batchnorm or spec.dropout_before or spec.pool_before > 1:
            raise RecipeError(
                f"{_NAME!r} is defined for fully connected layers alone",
                got=notation, expected="as 500FC-10", where="network",
            )  # fmt: skip


@torch.no_grad()
def _states(network: Network, window: Tensor, output: Output) -> list[Tensor]:
    """The input's mean over the steps, and the spike rates of all layers; [B, n] each."""
    source = window if window.dim() == 4 else window.mean(0)
    return [source.flatten(1), *(spikes.mean(0) for spikes in output.layers)]


def local_loss(network: Network, window: Tensor, output: Output, labels: Tensor) -> Tensor:
    """−Σ⟨W, ΔW⟩ − Σ⟨b, Δb⟩ with constant ΔW, Δb: its gradient is minus the local change, so that
    the optimiser, the schedule and the guards of the other methods serve this one too.

    Args:
        window: as the network took it. output: recorded, without gradients. labels: [B].
    """
    layers = network.layer_list
    with torch.no_grad():
        free = _states(network, window, output)
        nudged = nudged_states(free, [layer.effective_weight() for layer in layers], labels)
        weights, biases = local_changes(free, nudged)
    total = window.new_zeros(())
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        total = total - (layer.banks[0] * weight).sum() - (layer.bias * bias).sum()
    return total
