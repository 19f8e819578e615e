"""Damaged model files: one clear line, or a network that equals the reference. Never a crash.

Bytes, bytes where structures begin, and the structure itself are changed. 500 files a run, the same
every time; `make fuzz` (MPSL_FUZZ=N) reads N new ones.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.model.graph import encode_neuron
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata

from . import hdf5_mutation
from .child import read
from .mutation import BYTES, Random, near

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int(os.environ.get("MPSL_SEED") or 0) or (
    int.from_bytes(os.urandom(4), "little") if FUZZ else 7
)
FILES = FUZZ or 500
AT_A_TIME = 500
MARKS = [
    b"\x89HDF", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB",
    b"BTHD", b"BTLF", b"FAHD", b"FADB", b"\x01\0\x08\0", b"\x03\0\x18\0", b"\x08\0\x18\0",
]  # fmt: skip
AFTERWARDS = [hdf5_mutation.alias_texts, hdf5_mutation.many_heaps, near(MARKS), near(MARKS), *BYTES]


def ours() -> nir.NIRGraph:
    """flatten → dense → LIF, with metadata of mpsl."""
    dt_s = 1e-4
    metadata = ModelMetadata(
        mpsl=2, dataset="nmnist", network="3", input_kind="events", steps=5, step_us=1000,
        coding="count", origin="zero", downsample=1, sensor_width=4, sensor_height=3, crop="",
        image_mean="", image_std="", input_grid=1.0, classes="0,1,2", readout="count", dt_s=dt_s,
        recipe_hash="0" * 64,
    )  # fmt: skip
    weight = np.random.default_rng(0).normal(0.02, 0.15, (3, 24)).astype(np.float32)
    neuron = nir.LIF(**encode_neuron(0.4, 0.75, (3,), dt_s))
    neuron.metadata = NeuronMetadata(
        "subtract", "reset-decay-add-fire", 0.75, 0.4, dt_s
    ).to_mapping()
    nodes = {
        "input": nir.Input(input_type={"input": np.array((2, 3, 4))}),
        "n01_flatten": nir.Flatten({"input": np.array((2, 3, 4))}, 0, -1),
        "n02_fc": nir.Affine(weight, np.full(3, 0.02, np.float32)),
        "n03_lif": neuron,
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    graph.metadata = metadata.to_mapping()
    return graph


def int8() -> nir.NIRGraph:
    """Like `ours`, on a grid of 1/16: what the engine runs in whole numbers."""
    graph = ours()
    grid = {"weight_grid": -4}
    affine = graph.nodes["n02_fc"]
    affine.weight = (np.rint(affine.weight * 64) / 16).astype(np.float32)
    affine.bias = np.full(3, 0.0625, np.float32)
    affine.metadata = dict(grid)
    about = NeuronMetadata("subtract", "reset-decay-add-fire", 0.75, 0.5, 1e-4)
    graph.nodes["n03_lif"] = nir.LIF(**encode_neuron(0.5, 0.75, (3,), 1e-4))
    graph.nodes["n03_lif"].metadata = {**about.to_mapping(), **grid}
    graph.metadata = {**graph.metadata, "weights": "int8", "input_max": 64}
    return graph


def foreign() -> nir.NIRGraph:
    """Of another program, with a node of many kinds."""
    random = np.random.default_rng(3)

    def f32(*shape: int) -> NDArray[np.float32]:
        return (random.integers(-4, 5, shape) / 4).astype(np.float32)

    def lif(*shape: int) -> nir.LIF:
        full = {key: np.full(shape, value) for key, value in {"tau": 2e-4, "v_leak": 0}.items()}
        return nir.LIF(r=np.ones(shape), v_threshold=np.full(shape, 0.5), **full)

    nodes: dict[str, nir.NIRNode] = {
        "n0_input": nir.Input(input_type={"input": np.array([2, 6, 5])}),
        "n1_conv": nir.Conv2d((6, 5), f32(4, 2, 3, 3), 1, 1, 1, 1, f32(4)),
        "n2_lif": lif(4, 6, 5),
        "n3_pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "n4_flatten": nir.Flatten({"input": np.array([4, 3, 2])}, 0, -1),
        "n5_fc": nir.Affine(f32(3, 24), f32(3)),
        "n6_lif": lif(3),
        "n7_output": nir.Output(output_type={"output": np.array([3])}),
    }
    return nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)


def branches() -> nir.NIRGraph:
    """A loop, a sum, a delay, a graph in the graph, neurons with synapses, a row of pixels."""
    random = np.random.default_rng(5)

    def f32(*shape: int) -> NDArray[np.float32]:
        return (random.integers(-4, 5, shape) / 4).astype(np.float32)

    def full(*names: str, **values: float) -> dict[str, NDArray[np.float64]]:
        return {name: np.full(4, values.get(name, 1.0)) for name in names}

    inner = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([4])}),
            "fc": nir.Linear(f32(4, 4)),
            "output": nir.Output({"output": np.array([4])}),
        },
        [("input", "fc"), ("fc", "output")],
        type_check=False,
    )
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input({"input": np.array([2, 5])}),
        "conv": nir.Conv1d(5, f32(2, 2, 2), 1, 0, 1, 1, f32(2)),
        "flat": nir.Flatten({"input": np.array([2, 4])}, 0, -1),
        "fc": nir.Affine(f32(4, 8), f32(4)),
        "if": nir.IF(**full("r", "v_threshold", "v_reset", r=1e4, v_reset=0.0)),
        "back": nir.Linear(f32(4, 4)),
        "late": nir.Delay(np.full(4, 2e-4)),
        "inner": inner,
        "cuba": nir.CubaLIF(
            **full("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in",
                   tau_syn=2e-4, tau_mem=4e-4, v_leak=0.0, v_reset=0.0)
        ),
        "scale": nir.Scale(f32(4)),
        "li": nir.LI(**full("tau", "r", "v_leak", tau=2e-4, v_leak=0.5)),
        "output": nir.Output({"output": np.array([4])}),
    }  # fmt: skip
    edges = [("input", "conv"), ("conv", "flat"), ("flat", "fc"), ("fc", "if"), ("if", "back"),
             ("back", "if"), ("if", "late"), ("late", "inner"), ("inner", "cuba"), ("if", "scale"),
             ("cuba", "li"), ("scale", "li"), ("li", "output")]  # fmt: skip
    return nir.NIRGraph(nodes, edges, type_check=False)


def written(graph: nir.NIRGraph, path: Path) -> bytes:
    nir.write(str(path), graph)
    return path.read_bytes()


def newer(source: Path, path: Path) -> bytes:
    """The same content in the newest form of HDF5."""
    with h5py.File(source, "r") as old, h5py.File(path, "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
    return path.read_bytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("models")
    found = {
        "ours": written(ours(), folder / "ours.nir"),
        "ours-int8": written(int8(), folder / "int8.nir"),
        "foreign": written(foreign(), folder / "foreign.nir"),
        "branches": written(branches(), folder / "branches.nir"),
    }
    found["ours-newer"] = newer(folder / "ours.nir", folder / "ours-newer.nir")
    found["foreign-newer"] = newer(folder / "foreign.nir", folder / "foreign-newer.nir")
    return found


def damage(path: Path, model: bytes, random: Random) -> str:
    """Writes a damaged `model` to `path`; what was done."""
    way = random.random()
    path.write_bytes(model)
    done = []
    if way < 0.6:
        done.append(hdf5_mutation.change(path, random))
    if way > 0.5:
        function: Any = AFTERWARDS[int(random.integers(len(AFTERWARDS)))]
        path.write_bytes(function(bytearray(path.read_bytes()), random))
        done.append(function.__name__)
    return "-".join(done)


def test_the_models_themselves_equal_the_reference(
    models: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in models.items():
        (tmp_path / f"{name}.nir").write_bytes(content)
    assert [verdict.word for verdict in read("models", tmp_path)] == ["equal"] * 6


def test_damaged_files_are_refused_or_equal_the_reference(
    models: dict[str, bytes], tmp_path: Path
) -> None:
    random = np.random.default_rng(SEED)
    words: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    faults = []
    for first in range(0, FILES, AT_A_TIME):
        folder = tmp_path / f"{first}"
        folder.mkdir()
        for index in range(first, min(first + AT_A_TIME, FILES)):
            name = list(models)[int(random.integers(6))]
            path = folder / "damaged.nir"
            done = damage(path, models[name], random)
            kinds.update(done.split("-"))
            path.rename(folder / f"{index:07}-{done}-{name}.nir")
        found = read("models", folder)
        words.update(verdict.word for verdict in found)
        faults += [verdict for verdict in found if verdict.word == "FAULT"]
        kept = {verdict.file for verdict in faults}
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
    print(dict(words))
    assert faults == [], f"seed {SEED}: {faults[:5]} of {len(faults)} in {tmp_path}"
    assert sum(words.values()) == FILES
    # Both outcomes, and every kind of damage, are tried.
    assert words["refused"] > FILES / 3, words
    assert words["equal"] + words["tie"] > FILES / 20, words
    wanted = {function.__name__ for function in (*hdf5_mutation.CHANGES, *AFTERWARDS)}
    assert wanted <= set(kinds), wanted - set(kinds)
