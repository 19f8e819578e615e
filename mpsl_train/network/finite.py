"""Numbers that are not finite: found once a window, and named by layer, bank or time step.

In training of several processes all ask the same questions (`together`), so that all stop at the
same answer; each validates in its own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from mpsl_runtime.errors import MpslError
from mpsl_train.network.layers import LayerState, SpikingLayer, membrane_of
from mpsl_train.network.processes import everyone

__all__ = ["NonFiniteError", "check_membrane", "check_parameters", "is_finite", "name_bank"]


class NonFiniteError(MpslError):
    """NaN or infinity in a membrane potential, a bank or a parameter."""


def is_finite(states: Sequence[LayerState], together: bool) -> bool:
    """Whether a window's numbers are. A membrane that was NaN or infinite once stays so, so the
    last step tells of all T; the loss does not: NaN ≥ V_th is false, and a silent network has a
    finite loss."""
    with torch.no_grad():
        seen = [membrane_of(state) for state in states]
        seen += [bank.detach() for state in states for bank in state.banks]
        # NaN is both extremes. Faster than |x| and `max`, most of all for channels last.
        extremes = [extreme for x in seen for extreme in (x.amax(), x.amin())]
        holds = bool(torch.isfinite(torch.stack(extremes)).all())
    return _agreed(holds, seen[0].device, together)


def name_bank(
    layers: Sequence[SpikingLayer], states: Sequence[LayerState], together: bool
) -> NoReturn:
    """Raises NonFiniteError that says what is broken, of a window that is."""
    for layer, state in zip(layers, states, strict=True):
        for mechanism, bank in zip(layer.mechanisms, state.banks, strict=True):
            if not _agreed(bool(torch.isfinite(bank).all()), bank.device, together):
                raise NonFiniteError(
                    f"the bank of {mechanism} is not finite", where=f"layer {layer.spec.name}"
                )
        check_membrane(layer, membrane_of(state), None, together)
    raise NonFiniteError("a number of this window is not finite")


def check_membrane(
    layer: SpikingLayer, potential: Tensor, step: int | None, together: bool
) -> None:
    """Raises NonFiniteError if U has a number that is not finite.

    Args:
        step: that U is of, from 0; None: the last.
    """
    if not _agreed(bool(torch.isfinite(potential).all()), potential.device, together):
        when = "" if step is None else f" of time step {step + 1}"
        raise NonFiniteError(
            f"the membrane potential U{when} is not finite", where=f"layer {layer.spec.name}"
        )


def check_parameters(network: nn.Module, layers: Sequence[SpikingLayer]) -> None:
    """Raises NonFiniteError when a parameter or a bank is NaN or infinite, naming its layer."""
    values = [
        value.detach() for value in network.state_dict().values() if value.is_floating_point()
    ]
    # Sums of absolute values: NaN and infinity stay what they are.
    if bool(torch.isfinite(torch.stack(torch._foreach_norm(values, 1))).all()):
        return
    for layer in layers:
        for name, value in layer.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"{name} is not finite", where=f"layer {layer.spec.name}")


def _agreed(holds: bool, device: torch.device, together: bool) -> bool:
    return everyone(holds, device) if together else holds
