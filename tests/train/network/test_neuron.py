"""The neuron's step and its surrogate gradient, against autograd of the plain equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpsl_train.network import neuron


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, above, width):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(above)
        ctx.width = width
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (above,) = ctx.saved_tensors
        return gradient * (above.abs() < ctx.width / 2) / ctx.width, None


def _plain(currents: Tensor, decay: float, threshold: float, width: float, reset: str) -> Tensor:
    potential = spikes = torch.zeros_like(currents[0])
    out = []
    for current in currents:
        left = potential - spikes * threshold if reset == "subtract" else potential * (1 - spikes)
        potential = decay * left + current
        spikes = _Spike.apply(potential - threshold, width)
        out.append(spikes)
    return torch.stack([*out, potential])


def _ours(currents: Tensor, decay: float, threshold: float, width: float, reset: str) -> Tensor:
    carried = None
    out = []
    for current in currents:
        spikes, carried, potential = neuron.step(
            carried, current, decay=decay, threshold=threshold, surrogate_width=width, reset=reset
        )
        out.append(spikes)
    return torch.stack([*out, potential])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize(("decay", "width"), [(0.75, 1.0), (0.6, 0.5)])
def test_spikes_and_gradients_are_those_of_the_equations(
    reset: str, decay: float, width: float
) -> None:
    torch.manual_seed(0)
    values = torch.rand(6, 5, 7, dtype=torch.float64) * 0.8 - 0.1
    weight = torch.randn(7, 5, 7, dtype=torch.float64)
    results = []
    for run in (_plain, _ours):
        currents = values.clone().requires_grad_()
        out = run(currents, decay, 0.3, width, reset)
        (out * weight).sum().backward()
        assert currents.grad is not None
        results.append((out.detach(), currents.grad))
    assert 0.1 < float(results[0][0][:6].mean()) < 0.9
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=1e-15)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=1e-12)
    assert bool((results[0][1] != 0).any(dim=(1, 2)).all())


def test_a_membrane_exactly_at_the_threshold_fires() -> None:
    spikes, left, _ = neuron.step(None, torch.tensor([0.25, 0.249]), decay=0.75, threshold=0.25)
    assert spikes.tolist() == [1.0, 0.0]
    assert left[0] == 0.0
