"""What a window's changes of banks give λ, η, β, λ_f and λ_p. The equations stand in `window`.

Everything that they get is a sum of vectors, one a step: the steps note them, and the sums are made
at the end, of all steps at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mpsl_train.network.plasticity.sbp import normalise
from mpsl_train.network.plasticity.sbp import received as summed

if TYPE_CHECKING:
    from mpsl_train.network.window_layer import WindowLayer

__all__ = ["Change", "rule_gradients"]


class Change(NamedTuple):
    """One step's change of the banks, as the loss sees it.

    Attributes:
        with_change, with_mean: ⟨E, D⟩ and ⟨E, P⟩ on each output, [Co].
        P, factor, received: of the step.
    """

    with_change: Tensor
    with_mean: Tensor
    P: Tensor
    factor: Tensor | float
    received: Tensor | None


def rule_gradients(
    layer: WindowLayer, asked: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor] | None:
    """What the changes of the banks in all steps give λ, η, β, λ_f and λ_p.

    Args:
        asked: by the layer below, whose δ is made of this layer's changes: ∂L/∂r and r/η
            [steps, Ci].

    Returns:
        The same for the layer above.
    """
    if not layer.changes:
        return None
    eta, sums = layer.number["eta"], layer.sums
    with_change, with_mean = (
        torch.stack(rows) for rows in zip(*(c[:2] for c in layer.changes), strict=True)
    )
    q = eta * with_change
    reach: Any = layer.rows[1]  # M = λ2 + λ3·c
    sums["lambda"][1] = q.sum(0)
    passed = None
    if layer.sbp is not None:
        outer = layer.rows[2]
        each = [torch.as_tensor(c.factor, dtype=q.dtype, device=q.device) for c in layer.changes]
        factors = torch.stack(each).view(len(q), -1)
        reach = reach + outer * factors
        sums["lambda"][2] = (factors * q).sum(0)
        sums["fraction"] = (outer * factors * q).sum() / layer.number["fraction"]
        known = [c.received for c in layer.changes if c.received is not None]
        if known:
            received = torch.stack(known)
            passed = _steering_gradients(layer, outer * q, received), received
    sums["eta"] = (reach * with_change).sum()
    sums["beta"] = (eta * reach * with_mean).sum(0)
    if asked is not None:
        wanted, received = asked
        meant = torch.stack([summed(c.P, wanted.shape[1]) for c in layer.changes])
        sums["eta"] += (wanted * received).sum()
        sums["beta"] += eta * (wanted * meant).sum()
    return passed


def _steering_gradients(layer: WindowLayer, q: Tensor, received: Tensor) -> Tensor:
    """λ_p's part; ∂L/∂r for the layer above."""
    if layer.above is None or layer.sbp is None:
        raise RuntimeError("nothing steers this layer")
    fraction, steering = layer.number["fraction"], layer.number["steering"]
    with torch.enable_grad():
        r = (received * layer.above.number["eta"]).requires_grad_()
        delta = normalise(r, layer.sbp.settings.delta)
    layer.sums["steering"] = fraction * (delta.detach() * q).sum()
    passed: Tensor
    (passed,) = torch.autograd.grad(delta, r, fraction * steering * q)
    return passed
