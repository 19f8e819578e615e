"""Our `.nir` files in sinabs 3.1.3."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mpsl_export.peers.source import importing, read_source

__all__ = ["load_sinabs"]


def load_sinabs(path: str | Path, batch_size: int = 1) -> Any:
    """Reads a `.nir` file with sinabs itself.

    sinabs takes tau in steps, decays by e^(−1/tau), fires as often in a step as the threshold fits
    into v, and clips the v of an IF at −v_threshold. Decay, threshold, one spike a step, no bound
    and the reset are set to what our metadata says.

    Args:
        path: a model that mpsl wrote.
        batch_size: recordings side by side; `sinabs.set_batch_size(network, B)` changes it.

    Returns:
        A `torch.nn.Module`, whole recordings a call, as is sinabs's way: x [B·T, *input_shape] →
        (spikes [B·T, K], state). Call `sinabs.reset_states(network)` before others.

    Raises:
        UsageError: sinabs is not installed. ModelError: the model is damaged or not one of ours, or
            sinabs cannot read it.
    """
    path = Path(path)
    source = read_source(path)
    with importing("sinabs", path):
        import nir
        import torch
        from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike
        from sinabs.nir import from_nir

        for node in source.graph.nodes.values():
            if isinstance(node, nir.LIF):
                node.v_leak = node.v_leak.reshape(-1)  # it asks whether any() is 0, row by row
        module = from_nir(source.graph, batch_size=batch_size)
        for population in source.populations:
            cell = module.get_submodule(population.name)
            if cell.tau_mem is not None:
                # The form in which sinabs takes the decay itself: e^(−1/tau) would round.
                cell.train_alphas, cell.alpha_syn = True, None
                cell.alpha_mem = torch.nn.Parameter(_number(population.decay))
                cell.tau_mem = torch.nn.Parameter(_number(-1 / math.log(population.decay)))
            cell.spike_threshold = torch.nn.Parameter(_number(population.threshold), False)
            cell.spike_fn, cell.min_v_mem = SingleSpike, None
            cell.reset_fn = (
                MembraneSubtract() if population.reset == "subtract" else MembraneReset()
            )
    return module


def _number(value: float) -> Any:
    import torch

    return torch.tensor(value, dtype=torch.float32)
