"""Small networks of other frameworks on dvs-digits, each trained and exported by its own means,
then brought in by `mpsl import`; what the framework itself computes beside what mpsl does.

    mpsl data make dvs-digits --data DIR
    python tests/benchmarks/frameworks_in.py --data DIR

prints the table of mpsl_export/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_runtime.data.datasets import open_split
from mpsl_runtime.events.binning import Binning, frames

__all__ = ["FRAMEWORKS", "Framework", "labelled", "onnx_spikes", "spikes_of", "train", "write"]

STEPS, STEP_US, HIDDEN, CLASSES = 8, 40_000, 24, 10
SHAPE = (2, 34, 34)
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Framework:
    """How one of them is used; its own defaults wherever it has some.

    Attributes:
        build: a network of two layers of neurons.
        forward: (network, x [T, B, 2, 34, 34]) → spikes [T, B, 10], from rest.
        export: (network, one sample of one step) → its own NIR graph.
        dialect: as `mpsl import --from` calls it.
    """

    build: Callable[[], torch.nn.Module]
    forward: Callable[[Any, torch.Tensor], torch.Tensor]
    export: Callable[[Any, torch.Tensor], nir.NIRGraph]
    dialect: str


def _snntorch() -> torch.nn.Module:
    import snntorch

    neurons = [snntorch.Leaky(beta=torch.full((n,), 0.75), threshold=torch.full((n,), 1.0),
                              init_hidden=True) for n in (HIDDEN, CLASSES)]  # fmt: skip
    return _layers(*neurons)


def _layers(first: torch.nn.Module, second: torch.nn.Module) -> torch.nn.Module:
    size = int(np.prod(SHAPE))
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(size, HIDDEN), first,
        torch.nn.Linear(HIDDEN, CLASSES), second,
    )  # fmt: skip


def _run_snntorch(network: Any, x: torch.Tensor) -> torch.Tensor:
    from snntorch import utils

    utils.reset(network)
    return torch.stack([network(frame) for frame in x])


def _export_snntorch(network: Any, sample: torch.Tensor) -> nir.NIRGraph:
    from snntorch.export_nir import export_to_nir

    return export_to_nir(network, sample, ignore_dims=[0])


def _norse() -> torch.nn.Module:
    """Its exporter knows no Flatten: the second layer is a convolution over the whole map. Numbers
    for each neuron, since nir writes no arrays without dimensions."""
    import norse.torch as norse

    def neurons(*shape: int) -> torch.nn.Module:
        values = {"tau_mem_inv": 250.0, "v_th": 0.25, "v_leak": 0.0, "v_reset": 0.0}
        full = {key: torch.full(shape, value) for key, value in values.items()}
        return norse.LIFBoxCell(norse.LIFBoxParameters(**full))

    return norse.SequentialState(
        torch.nn.Conv2d(2, 8, 5, stride=3), neurons(8, 10, 10),
        torch.nn.Conv2d(8, CLASSES, 10), neurons(CLASSES, 1, 1),
    )  # fmt: skip


def _run_norse(network: Any, x: torch.Tensor) -> torch.Tensor:
    state, found = None, []
    for frame in x:
        spikes, state = network(frame, state)
        found.append(spikes.flatten(1))
    return torch.stack(found)


def _export_norse(network: Any, sample: torch.Tensor) -> nir.NIRGraph:
    from norse.torch.utils.export_nir import to_nir

    graph = to_nir(network, sample)
    # The exporter leaves these open, and nir cannot write what is open.
    graph.nodes["0"].input_shape, graph.nodes["2"].input_shape = (34, 34), (10, 10)
    return graph


def _spikingjelly() -> torch.nn.Module:
    from spikingjelly.activation_based import neuron

    return _layers(neuron.LIFNode(tau=2.0), neuron.LIFNode(tau=2.0))


def _run_spikingjelly(network: Any, x: torch.Tensor) -> torch.Tensor:
    from spikingjelly.activation_based import functional

    functional.reset_net(network)
    return torch.stack([network(frame) for frame in x])


def _export_spikingjelly(network: Any, sample: torch.Tensor) -> nir.NIRGraph:
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    functional.reset_net(network)
    return export_to_nir(network, sample)


def _sinabs() -> torch.nn.Module:
    import sinabs.layers

    return _layers(*(sinabs.layers.IAFSqueeze(num_timesteps=STEPS) for _ in range(2)))


def _run_sinabs(network: Any, x: torch.Tensor) -> torch.Tensor:
    import sinabs

    sinabs.reset_states(network)
    steps, batch = x.shape[:2]
    found = network(x.transpose(0, 1).reshape(-1, *SHAPE))
    return found.reshape(batch, steps, -1).transpose(0, 1)


def _export_sinabs(network: Any, sample: torch.Tensor) -> nir.NIRGraph:
    import sinabs
    from sinabs.nir import to_nir

    sinabs.reset_states(network)
    graph = to_nir(network, sample.repeat(STEPS, 1, 1, 1))
    graph.infer_types()
    return graph


FRAMEWORKS = {
    "snntorch": Framework(_snntorch, _run_snntorch, _export_snntorch, "snntorch"),
    "norse": Framework(_norse, _run_norse, _export_norse, "norse"),
    "spikingjelly": Framework(
        _spikingjelly, _run_spikingjelly, _export_spikingjelly, "spikingjelly"
    ),
    "sinabs": Framework(_sinabs, _run_sinabs, _export_sinabs, "sinabs"),
}


def labelled(root: Path, split: Any, limit: int | None = None) -> tuple[Array, NDArray[np.int64]]:
    """Frames [T, N, 2, 34, 34] and labels [N]."""
    found = open_split("dvs-digits", root, split)
    binning = Binning(34, 34, STEP_US, STEPS)
    indices = range(len(found))[:limit]
    stacked = np.stack([frames(found.events(index), binning) for index in indices], axis=1)
    return stacked, np.asarray(found.labels)[: len(indices)]


def train(
    framework: Framework, x: Array, labels: NDArray[np.int64], epochs: int, *, seed: int = 0
) -> Any:
    """Its network, by its own surrogate gradients: cross entropy of the counts, Adam."""
    torch.manual_seed(seed)
    network = framework.build()
    network(torch.zeros(STEPS if framework.dialect == "sinabs" else 1, *SHAPE))
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    given, targets = torch.from_numpy(x), torch.from_numpy(labels)
    for _ in range(epochs):
        for chosen in torch.randperm(len(targets)).split(64):
            counts = framework.forward(network, given[:, chosen]).sum(0)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(counts, targets[chosen]).backward()
            optimizer.step()
    return network


def spikes_of(framework: Framework, network: Any, x: Array) -> Array:
    """What the framework itself computes, [T, N, 10], a sample at a time."""
    with torch.no_grad():
        parts = [
            framework.forward(network, torch.from_numpy(x[:, i : i + 1])) for i in range(x.shape[1])
        ]
    return torch.cat(parts, dim=1).numpy()


def write(framework: Framework, network: Any, x: Array, folder: Path) -> Array:
    """`net.nir` as its exporter writes it, and `run.npz`, what it computed of x; returns that."""
    expected = spikes_of(framework, network, x)
    np.savez(folder / "run.npz", input=x, expected=expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated calls of one into the other
        graph = framework.export(network, torch.from_numpy(x[0, :1]))
        nir.write(str(folder / "net.nir"), graph)
    return expected


def onnx_spikes(path: Path, x: Array) -> Array:
    """What ONNX Runtime computes with an exported sequence, [T, N, 10]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0].reshape(*x.shape[:2], -1)
    return found


def _mpsl(*words: object) -> dict[str, Any]:
    """The last JSON line of a command."""
    command = [sys.executable, "-c", "from mpsl_runtime.cli import main; main()"]
    done = subprocess.run(
        [*command, *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(name: str, data: Path, epochs: int, folder: Path) -> str:
    framework = FRAMEWORKS[name]
    network = train(framework, *labelled(data, "train"), epochs)
    x, labels = labelled(data, "test")
    expected = write(framework, network, x, folder)
    own = float((expected.sum(0).argmax(1) == labels).mean())
    model, test = folder / "model.nir", data / "Test"
    replayed = _mpsl(
        "import", folder / "net.nir", "--from", framework.dialect, "--steps", STEPS,
        "--step-us", STEP_US, "--expect", folder / "run.npz", "--out", model,
    )["expect"]  # fmt: skip
    ran = _mpsl("run", model, test)["summary"]["accuracy"]
    _mpsl("export", model, "--format", "onnx")
    differ = int((onnx_spikes(folder / "model.onnx", x) != expected).sum())
    _mpsl("export", model, "--format", "nir", "--weights", "int8", "--calibrate", data / "Train")
    proven = _mpsl("verify", folder / "model.int8.nir")
    int8 = _mpsl("run", folder / "model.int8.nir", test)["summary"]["accuracy"]
    return (
        f"| {name} | {own:.2%} | {replayed['differing']} of {replayed['values']:,} | {ran:.2%} | "
        f"{differ} | {int8:.2%}, {'equal' if proven['passed'] else 'NOT EQUAL'} |"
    )


def main() -> None:
    """Prints a row for each framework."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[*FRAMEWORKS])
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(_row(name, options.data, options.epochs, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
