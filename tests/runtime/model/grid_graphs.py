"""An int8 model to test with: a convolution, a pool and a fully connected layer on their grids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import nir
import numpy as np

from mpsl_runtime.model.graph import encode_neuron
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata

DT_S = 1e-4


def metadata(**changes: Any) -> ModelMetadata:
    """Of an int8 model for 8x6 pixels and three classes."""
    values = {
        "mpsl": 2,
        "dataset": "nmnist",
        "network": "4C3-AP2-3",
        "input_kind": "events",
        "steps": 5,
        "step_us": 1000,
        "coding": "count",
        "origin": "zero",
        "downsample": 1,
        "sensor_width": 8,
        "sensor_height": 6,
        "crop": "",
        "image_mean": "",
        "image_std": "",
        "input_grid": 1.0,
        "classes": "0,1,2",
        "readout": "count",
        "dt_s": DT_S,
        "recipe_hash": "0" * 64,
        "weights": "int8",
        "input_max": 255,
        **changes,
    }
    return ModelMetadata(**values)


def neuron(threshold: float, shape: tuple[int, ...], grid: int) -> Any:
    about = NeuronMetadata("subtract", "reset-decay-add-fire", 0.75, threshold, DT_S)
    arrays = encode_neuron(threshold, 0.75, shape, DT_S)
    return nir.LIF(**arrays, metadata={**about.to_mapping(), "weight_grid": grid})


def grid_graph(seed: int = 0, **changes: Any) -> nir.NIRGraph:
    """conv 3x3 → LIF → sum pool 2x2 → flatten → dense → LIF; weights are n/128 and n/64."""
    random = np.random.default_rng(seed)

    def draw(exponent: int, *shape: int) -> Any:
        return (random.integers(-127, 128, shape) * 2.0**exponent).astype(np.float32)

    model = metadata(**changes)
    nodes = {
        "n00_input": nir.Input({"input": np.array([2, 6, 8])}),
        "n01_conv": nir.Conv2d(
            input_shape=(6, 8),
            weight=draw(-7, 4, 2, 3, 3),
            stride=(1, 1),
            padding=(1, 1),
            dilation=(1, 1),
            groups=1,
            bias=draw(-7, 4),
            metadata={"weight_grid": -7},
        ),
        "n02_lif": neuron(77 / 128, (4, 6, 8), -7),
        "n03_sumpool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "n04_flatten": nir.Flatten({"input": np.array([4, 3, 4])}, start_dim=0, end_dim=-1),
        "n05_affine": nir.Affine(draw(-6, 3, 48), draw(-6, 3), metadata={"weight_grid": -6}),
        "n06_lif": neuron(45 / 64, (3,), -6),
        "n07_output": nir.Output({"output": np.array([3])}),
    }
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes)), metadata=model.to_mapping())
