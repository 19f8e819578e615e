"""Other frameworks, each reading the `.nir` file by itself: the networks of `mpsl_export.peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_export.peers import load_norse, load_sinabs, load_snntorch, load_spikingjelly
from mpsl_export.verify.backends import LayerActivity, Outcome
from mpsl_export.verify.backends.torch_plan import exact_float32, from_numpy
from mpsl_runtime.model.graph import load_plan

__all__ = ["PeerProgram"]


@dataclass(frozen=True)
class _Peer:
    """How a framework's network is run.

    Attributes:
        load: reads a file. rest: before another batch of B samples; arguments are the network, B.
        membrane: v of a population after its last step; arguments are the cell and the state that
            it is called with. None, or of another shape, is 0.
        normalised: v of a LIF is (1 − ρ_m)·U, as in the file; else it is U.
    """

    load: Callable[[Path], Any]
    rest: Callable[[Any, int], None]
    membrane: Callable[[Any, Any], Any]
    normalised: bool = False


def _rest_snntorch(network: Any, batch: int) -> None:
    from snntorch import utils

    utils.reset(network)


def _rest_sinabs(network: Any, batch: int) -> None:
    import sinabs

    sinabs.set_batch_size(network, batch)
    sinabs.reset_states(network)


_PEERS = {
    "norse": _Peer(
        load_norse,
        rest=lambda network, batch: None,
        membrane=lambda cell, state: None if state is None else state.v,
        normalised=True,
    ),
    "sinabs": _Peer(load_sinabs, _rest_sinabs, membrane=lambda cell, state: cell.v_mem),
    "snntorch": _Peer(load_snntorch, _rest_snntorch, membrane=lambda cell, state: cell.mem),
    "spikingjelly": _Peer(
        load_spikingjelly,
        rest=lambda network, batch: None,
        membrane=lambda cell, state: None if state is None else state[0],
    ),
}


class PeerProgram:
    """The model in another framework, many samples at once, on the CPU.

    Args:
        name: norse, sinabs, snntorch or spikingjelly.

    Raises:
        UsageError: the framework is not installed.
        ModelError: the framework cannot read the model.
    """

    device = "cpu"

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._peer = _PEERS[name]
        self._populations = load_plan(path).spiking
        self._network = self._peer.load(path)
        self._spikes: dict[str, torch.Tensor] = {}
        self._membrane: torch.Tensor | None = None
        for neuron in self._populations:
            cell = self._network.get_submodule(neuron.name)
            cell.register_forward_hook(self._keep(neuron.name))
        cell.register_forward_pre_hook(self._keep_membrane, with_kwargs=True)

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        last = self._populations[-1].name
        spikes = [step[last] for step in self._steps(frames)]
        membrane = None if self._membrane is None else self._membrane.numpy()
        return Outcome(torch.stack(spikes).numpy().astype(np.uint8), membrane)

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`."""
        steps = list(self._steps(frames[:, None]))
        return [
            LayerActivity(
                neuron.name, np.stack([step[neuron.name].numpy().reshape(-1) > 0 for step in steps])
            )
            for neuron in self._populations
        ]

    def _steps(self, frames: NDArray[np.float32]) -> Iterator[dict[str, torch.Tensor]]:
        """Spikes of every population by step."""
        state = None
        with exact_float32():
            self._peer.rest(self._network, frames.shape[1])
        for frame in frames:
            self._spikes = {}
            with exact_float32():
                _, state = self._network(from_numpy(frame, torch.device("cpu")), state)
            yield self._spikes

    def _keep(self, name: str) -> Any:
        """A hook that keeps the spikes of a population."""

        def hook(cell: Any, inputs: tuple[Any, ...], outputs: Any) -> None:
            self._spikes[name] = outputs[0] if isinstance(outputs, tuple) else outputs

        return hook

    def _keep_membrane(self, cell: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """U = ρ_m·V + I of the last population: no framework shows it before the reset."""
        current, *more = inputs
        rho = self._populations[-1].rho or 0.0
        before = self._peer.membrane(cell, more[0] if more else named.get("state"))
        if before is None or before.shape != current.shape:  # at rest
            self._membrane = current
            return
        scale = 1 / (1 - rho) if self._peer.normalised and rho < 1 else 1.0
        self._membrane = rho * scale * before + current
