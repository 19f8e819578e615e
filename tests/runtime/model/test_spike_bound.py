"""No neuron fires more often in a step than was said, whatever comes and in whatever order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.model.spike_bound import most_spikes
from mpsl_runtime.run.reference import Reference

SIZE = 40


def population(seed: int, reset: Any) -> Neuron:
    random = np.random.default_rng(seed)

    def between(low: float, high: float) -> Any:
        return random.uniform(low, high, SIZE).astype(np.float32)

    threshold = between(0.2, 2)
    neuron = Neuron(
        "n", "spiking", between(0, 1), threshold, reset, between(-1, 1), between(-1, 2),
        between(-0.5, 0.5), bool(seed % 2), None, None, (SIZE,), (SIZE,),
        initial=between(-1, 3), drop=threshold * np.float32(0.9), many=True,
    )  # fmt: skip
    if seed % 3 == 0:
        neuron = replace(neuron, synaptic_decay=between(0, 0.9), synaptic_gain=between(-1, 2))
    return neuron


@pytest.mark.parametrize("reset", ["subtract", "value", "subtract-undecayed", "lost"])
@pytest.mark.parametrize("seed", range(12))
def test_the_bound_holds_for_currents_at_their_limits(seed: int, reset: Any) -> None:
    neuron, largest = population(seed, reset), 5.0
    plan = Plan((neuron,), (SIZE,), (SIZE,), None, "test")
    random = np.random.default_rng(seed + 100)
    always = np.full((60, SIZE), largest, np.float32)
    given = [always, -always, always * random.choice([-1, 1], always.shape).astype(np.float32)]
    found = max(float(Reference(plan).run(np.float32(frames)).max()) for frames in given)
    bound = most_spikes(neuron, largest)
    assert bound is not None
    assert 1 < found <= bound
    # Not far from what is reached, but for the parts that no one neuron has together.
    assert bound < 20 * found + 20


def test_there_is_no_bound_where_u_grows_or_the_current_has_none() -> None:
    neuron = population(0, "subtract")
    assert most_spikes(neuron, np.inf) is None
    assert most_spikes(replace(neuron, decay=neuron.decay + 1), 1.0) is None
    assert neuron.synaptic_decay is not None
    endless = replace(neuron, synaptic_decay=np.ones(SIZE, np.float32))
    assert most_spikes(endless, 1.0) is None
    assert most_spikes(replace(neuron, kind="integrating", many=False), 1.0) is None
    assert most_spikes(replace(neuron, many=False), np.inf) == 1
