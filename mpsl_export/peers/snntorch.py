"""Our `.nir` files in snntorch 1.0.0."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpsl_export.peers.source import importing, read_source

__all__ = ["load_snntorch"]


def load_snntorch(path: str | Path) -> Any:
    """Reads a `.nir` file with snntorch itself.

    snntorch gives every LIF `reset_mechanism="zero"`, and every IF its default and beta = 0.9. Both
    are set to what our metadata says. With `reset_delay=False`, which its importer chooses, the
    threshold is subtracted before the decay, as in our neuron. snntorch fires above the threshold:
    the file's is one float below V_th, which is what must be subtracted, so here it is V_th and the
    surrogate is asked a hair above.

    Args:
        path: a model that mpsl wrote.

    Returns:
        A `torch.nn.Module`, one step a call: (x [B, *input_shape], state or None) →
        (spikes [B, K], state). The neurons hold their membranes themselves: call
        `snntorch.utils.reset(network)` before another sample.

    Raises:
        UsageError: snntorch is not installed. ModelError: the model is damaged or not one of ours,
            or snntorch cannot read it.
    """
    path = Path(path)
    source = read_source(path)
    # Its importer prints notes of its own to stdout, which may be a document for programs.
    with importing("snntorch", path), contextlib.redirect_stdout(io.StringIO()):
        import torch
        from snntorch.import_nir import import_from_nir

        module = import_from_nir(source.graph)
        for part in module.modules():
            if isinstance(part, torch.nn.Flatten):
                part.start_dim += 1  # NIR counts without a batch
        for population in source.populations:
            cell = module.get_submodule(population.name)
            cell.init_hidden, cell.output = True, False
            cell.beta = torch.tensor(population.decay, dtype=torch.float32)
            subtracts = population.reset == "subtract"
            cell.reset_mechanism = "subtract" if subtracts else "zero"
            cell.state_function = cell._base_sub if subtracts else cell._base_zero
            cell.mem_reset = torch.zeros_like  # what has fired was reset in its own step
            cell.threshold = torch.tensor(population.threshold, dtype=torch.float32)
            cell.spike_grad = partial(_fires_at_threshold, surrogate=cell.spike_grad)
    return module


def _fires_at_threshold(above: Any, surrogate: Callable[[Any], Any]) -> Any:
    """snntorch's surrogate at mem − V_th, with a spike at 0: no other float is changed by it."""
    return surrogate(above + 1e-30)
