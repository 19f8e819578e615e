"""Our `.nir` files in norse 1.1.0."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mpsl_export.peers.source import importing, read_source

__all__ = ["load_norse"]


def load_norse(path: str | Path) -> Any:
    """Reads a `.nir` file with norse itself.

    norse always builds a LIF that resets to a value (its `reset_method` option reaches only
    CubaLIF), and of an IF the reset is no option. Where our metadata says `subtract`, the step of
    the cell is exchanged for one that subtracts; it fires through norse's own threshold, so that
    the surrogate gradient is norse's.

    Args:
        path: a model that mpsl wrote.

    Returns:
        A `torch.nn.Module`, one step a call: (x [B, *input_shape], state or None) →
        (spikes [B, K], state).

    Raises:
        UsageError: norse is not installed. ModelError: the model is damaged or not one of ours, or
            norse cannot read it.
    """
    path = Path(path)
    source = read_source(path)
    with importing("norse", path):
        import torch
        from norse.torch import from_nir

        module = from_nir(source.graph, ignore_warnings=True, dt=source.dt_s)
        for part in module.modules():
            if isinstance(part, torch.nn.Flatten):
                part.start_dim += 1  # NIR counts without a batch
        for population in source.populations:
            if population.reset == "subtract":
                cell = module.get_submodule(population.name)
                cell.activation = partial(_subtracting_step, decay=population.decay)
    return module


def _subtracting_step(x: Any, state: Any, p: Any, dt: float, decay: float) -> tuple[Any, Any]:
    """A step of a LIF, or of an IF where the decay is 1: v is (1 − ρ_m)·U, or U, to the last bit.

    norse's v + dt/tau·(x − v) rounds otherwise, and its `reset_subtract` takes `v_th` away, one
    float below V_th.
    """
    import torch
    from norse.torch.functional.threshold import threshold

    v = decay * state.v + (1 - decay if decay < 1 else 1) * x
    spikes = threshold(v - p.v_th, p.method, p.alpha)
    exact = torch.nextafter(p.v_th, torch.full_like(p.v_th, torch.inf))
    return spikes, state._replace(v=v - spikes * exact)
