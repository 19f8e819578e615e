"""The networks of the speed targets, with random weights, as NIR graphs that mpsl could have
written.

    A    2x34x34, 128C3-AP2-256C3-AP2-256C3-AP2-512FC-10, the paper's network for N-MNIST
    B32  2x32x32, 64C3S2-128C3-256C3-256C3-256C3-256C3-AP2-800FC-512FC-11, for DVS gestures

Weights are whole multiples of a power of two, at most 127 of them, in both forms: the float32 form
holds the same numbers and only does not say so. So every program must compute the same bits, in
whatever order it sums. Thresholds and biases are set so that every layer fires with the density
asked for on synthetic events.

    python tests/benchmarks/networks.py A --weights int8 --density 0.05 --out runs/bench/a.nir
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import nir
import numpy as np

from mpsl_runtime.bench.density import force_density
from mpsl_runtime.bench.inputs import synthetic
from mpsl_runtime.model.graph import encode_neuron, plan_of
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Neuron

DT_S = 1e-4
DECAY = 0.75
WEIGHT_EXPONENT = -7  # of a quantum, before the 1/4 of an average over 2x2

# What: ("conv", channels, stride), ("pool",) or ("dense", neurons); the input; the notation.
Layers = tuple[tuple[Any, ...], ...]
NETWORKS: dict[str, tuple[tuple[int, int, int], Layers, str]] = {
    "A": (
        (2, 34, 34),
        (
            ("conv", 128, 1), ("pool",), ("conv", 256, 1), ("pool",), ("conv", 256, 1), ("pool",),
            ("dense", 512), ("dense", 10),
        ),
        "128C3-AP2-256C3-AP2-256C3-AP2-512FC-10",
    ),
    "B32": (
        (2, 32, 32),
        (
            ("conv", 64, 2), ("conv", 128, 1), ("conv", 256, 1), ("conv", 256, 1),
            ("conv", 256, 1), ("conv", 256, 1), ("pool",),
            ("dense", 800), ("dense", 512), ("dense", 11),
        ),
        "64C3S2-128C3-256C3-256C3-256C3-256C3-AP2-800FC-512FC-11",
    ),
}  # fmt: skip


def network(
    name: str, density: float, weights: Literal["float32", "int8"] = "float32", seed: int = 0
) -> nir.NIRGraph:
    """One of `NETWORKS`, whose every layer fires with `density` on `inputs.synthetic`."""
    input_shape, layers, notation = NETWORKS[name]
    drawn = _drawn(input_shape, layers, _metadata(input_shape, layers, notation), seed)
    plan = plan_of(drawn, source=name)
    calibrated = force_density(plan, synthetic(plan), density)
    nodes = dict(drawn.nodes)
    for node in calibrated.nodes:
        if isinstance(node, Convolution | Dense):
            nodes[node.name] = replace(nodes[node.name], bias=node.bias)
        elif isinstance(node, Neuron):
            grid = nodes[node.name].metadata["weight_grid"]
            nodes[node.name] = _neurons(node.output_shape, float(node.threshold.flat[0]), grid)
    metadata = drawn.metadata
    if weights == "float32":
        for key, node in nodes.items():
            kept = {k: v for k, v in node.metadata.items() if k != "weight_grid"}
            nodes[key] = replace(node, metadata=kept)
        metadata = {k: v for k, v in metadata.items() if k not in ("weights", "input_max")}
    return nir.NIRGraph(nodes=nodes, edges=list(drawn.edges), metadata=metadata)


def _drawn(
    shape: tuple[int, ...], layers: Layers, metadata: ModelMetadata, seed: int
) -> nir.NIRGraph:
    """The int8 network before calibration: random weights, no bias, any threshold."""
    random = np.random.default_rng(seed)
    nodes: list[tuple[str, Any]] = [("input", nir.Input({"input": np.array(shape)}))]
    exponent = WEIGHT_EXPONENT
    for kind, *sizes in layers:
        if kind == "pool":
            window = np.array([2, 2])
            nodes.append(("sumpool", nir.SumPool2d(window, window.copy(), np.array([0, 0]))))
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
            exponent = WEIGHT_EXPONENT - 2
            continue
        if kind == "dense" and len(shape) == 3:
            flatten = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
            nodes.append(("flatten", flatten))
            shape = (math.prod(shape),)
        out = sizes[0]
        fan_in = (shape[0], 3, 3) if kind == "conv" else shape
        quanta = np.clip(np.round(random.normal(0, 40, (out, *fan_in))), -127, 127)
        weight = np.ldexp(quanta, exponent).astype(np.float32)
        bias = np.zeros(out, np.float32)
        grid = {"weight_grid": exponent}
        if kind == "conv":
            stride = sizes[1]
            node = nir.Conv2d((shape[1], shape[2]), weight, stride, 1, 1, 1, bias, metadata=grid)
            shape = tuple(int(size) for size in node.output_type["output"])
        else:
            node = nir.Affine(weight, bias, metadata=grid)
            shape = (out,)
        nodes += [(kind, node), ("lif", _neurons(shape, 1.0, exponent))]
        exponent = WEIGHT_EXPONENT
    nodes.append(("output", nir.Output({"output": np.array(shape)})))
    named = {f"n{i:02d}_{kind}": node for i, (kind, node) in enumerate(nodes)}
    return nir.NIRGraph(nodes=named, edges=list(pairwise(named)), metadata=metadata.to_mapping())


def _neurons(shape: tuple[int, ...], threshold: float, exponent: int) -> nir.LIF:
    about = NeuronMetadata("subtract", "reset-decay-add-fire", DECAY, threshold, DT_S)
    return nir.LIF(
        **encode_neuron(threshold, DECAY, shape, DT_S),
        metadata={**about.to_mapping(), "weight_grid": exponent},
    )


def _metadata(input_shape: tuple[int, int, int], layers: Layers, notation: str) -> ModelMetadata:
    _, rows, columns = input_shape
    return ModelMetadata(
        mpsl=2,
        dataset="synthetic",
        network=notation,
        input_kind="events",
        steps=8,
        step_us=37_500,
        coding="count",
        origin="zero",
        downsample=1,
        sensor_width=columns,
        sensor_height=rows,
        crop="",
        image_mean="",
        image_std="",
        input_grid=1.0,
        classes=",".join(str(i) for i in range(layers[-1][1])),
        readout="count",
        dt_s=DT_S,
        recipe_hash="0" * 64,
        weights="int8",
        input_max=15,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(NETWORKS))
    parser.add_argument("--weights", choices=("float32", "int8"), default="float32")
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)

    nir.write(arguments.out, network(arguments.name, arguments.density, arguments.weights))


if __name__ == "__main__":
    main()
