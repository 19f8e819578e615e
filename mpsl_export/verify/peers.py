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
    cell's reset is exchanged, which is the whole fix. norse needs torchvision only for its own
    example tasks: `norse.torch` imports without it.

    Args:
        path: a model whose neurons carry mpsl metadata; dt is taken from it.

    Returns:
        A `torch.nn.Module`: (x [C, H, W], state or None) → (spikes [K], state). Its `Flatten`
        counts dimensions as NIR does, without a batch.

    Raises:
        UsageError: norse or nirtorch is not installed.
        ModelError: the model has no mpsl metadata, or norse cannot read it.
    """
    import nir

    from mpsl_runtime.model.graph import load_graph
    from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata

    # Our own checks first: norse trusts a file.
    graph = load_graph(path)
    if not graph.metadata:
        raise ModelError(
            "norse needs the time step of the model", got="no mpsl metadata", where=path
        )
    dt = ModelMetadata.from_mapping(graph.metadata, str(path)).dt
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
            module = from_nir(nir.read(path), ignore_warnings=True, dt=dt)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError("norse cannot read the model", got=error, where=path) from error
    for name, node in graph.nodes.items():
        if isinstance(node, nir.LIF) and node.metadata:
            cell = module.get_submodule(name)
            if NeuronMetadata.from_mapping(node.metadata, name).reset == "subtract":
                cell.p = cell.p._replace(reset_method=reset_subtract)
    return module
