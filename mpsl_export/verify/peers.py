"""Loads our NIR files into other frameworks, each with the one-line fix that it needs.

Tests and `mpsl verify --backend norse` use this; `make peers` installs the frameworks.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import ModelError, UsageError

__all__ = ["load_norse"]


def load_norse(path: Path) -> Any:
    """Reads a `.nir` file with norse itself, for models that mpsl wrote.

    norse 1.1.0 always builds a LIF that resets to a value (its `reset_method` option reaches only
    CubaLIF), and NIR cannot say anything else; our metadata does. Where it says `subtract` the
    cell's reset is exchanged, which is the whole fix; an IF's whole step, since its reset is no
    option. norse needs torchvision only for its own
    example tasks: `norse.torch` imports without it.

    Args:
        path: a model whose neurons carry mpsl metadata, which says the length of a step.

    Returns:
        A `torch.nn.Module`: (x [C, H, W], state or None) → (spikes [K], state). Its `Flatten`
        counts dimensions as NIR does, without a batch.

    Raises:
        UsageError: norse or nirtorch is not installed.
        ModelError: the model has no mpsl metadata, or norse cannot read it.
    """
    import nir

    from mpsl_runtime.model.graph import load_graph, plan_of
    from mpsl_runtime.model.plan import Neuron

    # Our own checks first: norse trusts a file.
    graph = load_graph(path)
    plan = plan_of(graph, source=str(path)) if graph.metadata else None
    if plan is None or plan.metadata is None:
        raise ModelError(
            "norse needs the time step of the model", got="no mpsl metadata", where=path
        )
    with warnings.catch_warnings():
        # torch.jit.script and nirtorch.load are deprecated, and norse 1.1.0 uses both.
        warnings.simplefilter("ignore")
        try:
            from norse.torch import from_nir
            from norse.torch.functional.reset import reset_subtract
        except ImportError as error:
            raise UsageError(
                "norse is not installed here", got=error, expected="`make peers` in the checkout"
            ) from error
        try:
            module = from_nir(nir.read(path), ignore_warnings=True, dt=plan.metadata.dt_s)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError("norse cannot read the model", got=error, where=path) from error
    for node in plan.nodes:
        if isinstance(node, Neuron) and node.reset == "subtract":
            cell = module.get_submodule(node.name)
            if hasattr(cell.p, "reset_method"):
                cell.p = cell.p._replace(reset_method=reset_subtract)
            else:
                cell.activation = _integrate_and_subtract
    return module


def _integrate_and_subtract(x: Any, state: Any, p: Any, dt: float) -> tuple[Any, Any]:
    """norse's own step of an IF, but for its last line: what it fires is subtracted, not v set to
    `v_reset`. Its parameters have no `reset_method`. What is subtracted is V_th, one float above
    the file's `v_threshold`, so that v is U to the last bit."""
    import torch

    v = state.v + x
    spikes = (v > p.v_th).to(v.dtype)
    exact = torch.nextafter(p.v_th, torch.full_like(p.v_th, torch.inf))
    return spikes, state._replace(v=v - spikes * exact)
