"""Our `.nir` files in spikingjelly 2.0.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpsl_export.peers.source import importing, read_source

__all__ = ["load_spikingjelly"]


def load_spikingjelly(path: str | Path) -> Any:
    """Reads a `.nir` file with spikingjelly itself.

    spikingjelly resets to `v_reset`, and fires where v reaches the threshold, not above it. Where
    our metadata says `subtract`, `v_reset` becomes None, spikingjelly's own soft reset; the
    threshold is set to V_th. An IF must have r = 1/dt there, which is how it writes one.

    Args:
        path: a model that mpsl wrote.

    Returns:
        A `torch.fx.GraphModule`, one step a call: (x [B, *input_shape], state or None) →
        (spikes [B, K], state).

    Raises:
        UsageError: spikingjelly is not installed. ModelError: the model is damaged or not one of
            ours, or spikingjelly cannot read it.
    """
    path = Path(path)
    source = read_source(path)
    with importing("spikingjelly", path):
        import nir
        import numpy as np
        from spikingjelly.activation_based.nir_exchange import import_from_nir

        for node in source.graph.nodes.values():
            if isinstance(node, nir.IF):
                node.r = np.full_like(node.r, 1 / source.dt_s)
        module = import_from_nir(source.graph, dt=source.dt_s)
        for population in source.populations:
            cell = module.get_submodule(population.name).module
            if population.reset == "subtract":
                cell.v_reset = None
            cell.v_threshold = population.threshold
            if hasattr(cell, "tau"):
                cell.tau, cell.decay_input = 1 / (1 - population.decay), False
    return module
