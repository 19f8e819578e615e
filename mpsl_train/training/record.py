"""What training leaves for those who come after: the banks, and the record of the test set.

Both are made of the three-bank network as trained, in float32, with batch normalisation unfolded,
no autocast and TF32 off. `mpsl export` reads the banks, `mpsl verify` replays the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.model import readout
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.batches import BatchOrder, Samples, to_window
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.network.network import Network
from mpsl_train.network.plasticity import Rule
from mpsl_train.network.plasticity.hebbian import Hebbian
from mpsl_train.network.plasticity.sbp import SelfBackpropagation

__all__ = ["Evaluation", "evaluate", "exact_arithmetic", "save_banks", "save_evaluation"]

FORMAT = 1
PROBES = 8
R = TypeVar("R", bound=Rule)
# Values of one layer over a window that are in memory at once.
_LARGEST_WINDOW = 1 << 25


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The network's answers to a whole split.

    Attributes:
        labels, predictions: int64 [N]. spikes: uint8 [N, T, K]. scores: float32 [N, K].
        probes: indices of the probe samples; probe_layers: their spikes, for each layer a bool
            array [8, T, neurons].
        rates: mean spikes per neuron and step, of each layer.
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    scores: NDArray[np.float32]
    probes: NDArray[np.int64]
    probe_layers: tuple[NDArray[np.bool_], ...]
    rates: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Fraction of right predictions."""
        return float(np.mean(self.predictions == self.labels)) if len(self.labels) else 0.0


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """float32 sums of products, rounded as float32 is, in some order. A spike is a comparison: TF32
    has 10 bits of mantissa, and cuDNN's Winograd convolutions add fractions of the products."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.enabled
    matmul.allow_tf32 = cudnn.enabled = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.enabled = before


@torch.no_grad()
def evaluate(network: Network, samples: Samples, metadata: ModelMetadata) -> Evaluation:
    """Runs every sample through the network, which is not plastic here."""
    network.eval()
    device = next(network.parameters()).device
    count = len(samples.labels)
    layers = network.layer_list
    largest = max(prod(layer.spec.neurons) for layer in layers)
    batch = max(1, min(100, _LARGEST_WINDOW // (largest * metadata.steps)))
    probes = np.unique(np.linspace(0, count - 1, PROBES).astype(np.int64)) if count else \
        np.zeros(0, np.int64)  # fmt: skip
    classes = layers[-1].spec.neurons[0]
    spikes = np.zeros((count, metadata.steps, classes), np.uint8)
    scores = np.zeros((count, classes), np.float32)
    traces: list[list[NDArray[np.bool_]]] = [[] for _ in layers]
    totals = np.zeros(len(layers))
    with exact_arithmetic():
        for _, indices in BatchOrder(np.arange(count), batch):
            values, _ = samples[(None, indices)]
            output = network(to_window(values.to(device)), metadata.steps, record=True)
            window = output.spikes.to(torch.uint8).cpu().numpy()
            spikes[indices] = window.swapaxes(0, 1)
            membrane = output.membrane.float().cpu().numpy()
            scores[indices] = readout.scores(metadata.readout, window, membrane)
            chosen = np.flatnonzero(np.isin(indices, probes))
            for number, layer in enumerate(output.layers):
                totals[number] += float(layer.mean()) * len(indices)
                kept = layer[:, torch.from_numpy(chosen).to(device)].flatten(2).bool()
                traces[number].append(kept.cpu().numpy().swapaxes(0, 1))
    return Evaluation(
        labels=samples.labels,
        predictions=readout.label(scores),
        spikes=spikes,
        scores=scores,
        probes=probes,
        probe_layers=tuple(np.concatenate(trace) for trace in traces) if count else (),
        rates=tuple((totals / max(1, count)).tolist()),
    )


def save_evaluation(
    path: Path, evaluation: Evaluation, ids: list[str], facts: Mapping[str, Any]
) -> None:
    """Writes evaluation.npz.

    Args:
        ids: of the samples. facts: the JSON of `record`: device, versions, data set, hashes.
    """
    arrays: dict[str, NDArray[Any]] = {
        "ids": np.array(ids, dtype=np.str_),
        "labels": evaluation.labels,
        "spikes": evaluation.spikes,
        "scores": evaluation.scores,
        "predictions": evaluation.predictions,
        "probe_ids": np.array([ids[index] for index in evaluation.probes], dtype=np.str_),
        "record": np.array(json.dumps({**facts, "accuracy": evaluation.accuracy})),
    }
    for number, trace in enumerate(evaluation.probe_layers):
        arrays[f"probe_L{number:02d}"] = np.packbits(trace, axis=-1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _layer_facts(layer: SpikingLayer) -> dict[str, Any]:
    spec, neuron = layer.spec, layer.settings
    return {
        "name": spec.name,
        "kind": spec.kind,
        "shape": list(spec.weight_shape),
        "stride": list(spec.stride),
        "padding": list(spec.padding),
        "pool_before": spec.pool_before,
        "flatten_before": spec.flatten_before,
        "batchnorm_eps": layer.batchnorm.eps if layer.batchnorm is not None else None,
        "mechanisms": list(layer.mechanisms),
        "threshold": neuron.threshold,
        "decay": neuron.decay,
        "reset": neuron.reset,
        "neurons": list(spec.neurons),
        "scale": asdict(layer.scale()) if layer.quantised else None,
        "rules": _rule_facts(layer),
    }


@torch.no_grad()
def _rule_facts(layer: SpikingLayer) -> dict[str, Any] | None:
    """What the local rules need to go on from here, but for β; None: nothing here can."""
    hebbian = _rule(layer, Hebbian)
    if hebbian is None or layer.quantised:
        return None
    facts = {
        "tau_w_steps": hebbian.settings.tau_w_steps,
        "eta": float(hebbian.eta),
        "activity": "clipped" if layer.clipped else "tanh",
        "cap": layer.limits.cap,
        "bound": "output" if layer.limits.per_output else "bank",
        "delta": hebbian.settings.delta,
    }
    sbp = _rule(layer, SelfBackpropagation)
    if sbp is not None:
        facts |= {"fraction": float(sbp.fraction), "steering": float(sbp.steering)}
    return facts


def _rule(layer: SpikingLayer, kind: type[R]) -> R | None:
    return next((rule for rule in layer.rule_list if isinstance(rule, kind)), None)


def save_banks(
    path: Path, network: Network, metadata: ModelMetadata, shape: tuple[int, int, int]
) -> None:
    """Writes banks.safetensors: `L00.W1`, …, `L00.lambda`, `L00.bias`, `L00.bn.*`, and `L00.beta`
    of the Hebbian rule, all float32.

    Args:
        shape: [C, H, W] of the input.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    for layer in network.layer_list:
        name = layer.spec.name
        for index, bank in enumerate(layer.banks, start=1):
            tensors[f"{name}.W{index}"] = bank
        tensors[f"{name}.lambda"] = layer.coefficients
        tensors[f"{name}.bias"] = layer.bias
        hebbian = _rule(layer, Hebbian)
        if hebbian is not None:
            tensors[f"{name}.beta"] = hebbian.beta
        norm = layer.batchnorm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            tensors[f"{name}.bn.weight"], tensors[f"{name}.bn.bias"] = norm.weight, norm.bias
            tensors[f"{name}.bn.mean"] = norm.running_mean
            tensors[f"{name}.bn.var"] = norm.running_var
    facts = {
        "format": FORMAT,
        "network": metadata.network,
        "input_shape": list(shape),
        "model": metadata.to_mapping(),
        "layers": [_layer_facts(layer) for layer in network.layer_list],
    }
    plain = {name: value.detach().float().cpu().contiguous().clone()
             for name, value in tensors.items()}  # fmt: skip
    content = save(plain, metadata={"mpsl": json.dumps(facts)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)
