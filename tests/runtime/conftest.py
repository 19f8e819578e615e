"""Small models and recordings for the tests of the runtime, made with nir and numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime import cli
from mpsl_runtime.bench import programs
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.model.graph import encode_neuron
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata

DT_S = 1e-4


def metadata(**changes: Any) -> ModelMetadata:
    """Of a model for 12x10 pixels, three classes, five steps of 1 ms."""
    return replace(
        ModelMetadata(
            mpsl=2,
            dataset="nmnist",
            network="3",
            input_kind="events",
            steps=5,
            step_us=1000,
            coding="count",
            origin="zero",
            downsample=1,
            sensor_width=12,
            sensor_height=10,
            crop="",
            image_mean="",
            image_std="",
            input_grid=1.0,
            classes="0,1,2",
            readout="count",
            dt_s=DT_S,
            recipe_hash="0" * 64,
        ),
        **changes,
    )


def dense_graph(meta: ModelMetadata | None, shape: tuple[int, int, int], seed: int = 0) -> Any:
    """input → flatten → dense → LIF, with as many neurons as classes."""
    classes = len(meta.class_names) if meta is not None else 3
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    weight = rng.normal(0.02, 0.15, (classes, size)).astype(np.float32)
    bias = rng.normal(0.02, 0.01, classes).astype(np.float32)
    neuron: Any = nir.LIF(**encode_neuron(0.4, 0.75, (classes,), DT_S))
    if meta is not None:
        about = NeuronMetadata("subtract", "reset-decay-add-fire", 0.75, 0.4, DT_S)
        neuron.metadata = about.to_mapping()
    nodes = {
        "n00_input": nir.Input(input_type={"input": np.array(shape)}),
        "n01_flatten": nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1),
        "n02_fc": nir.Affine(weight=weight, bias=bias),
        "n03_lif": neuron,
        "n04_output": nir.Output(output_type={"output": np.array([classes])}),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)))
    graph.metadata = meta.to_mapping() if meta is not None else {}
    return graph


@pytest.fixture
def mpsl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`mpsl("bench", …)` → (exit code, stdout, stderr), in this process, without add-ons and
    without data sets."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MPSL_DATA", raising=False)
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    monkeypatch.setattr(programs, "entry_points", lambda group: [])

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def make_metadata() -> Callable[..., ModelMetadata]:
    """`make_metadata(**changes)`: of a model for 12x10 pixels, three classes, five steps."""
    return metadata


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """`write_model(name="model.nir", **metadata changes)` → path; `foreign=True`: no metadata."""

    def write(name: str = "model.nir", *, foreign: bool = False, **changes: Any) -> Path:
        meta = metadata(**changes)
        shape = (2, meta.sensor_height, meta.sensor_width)
        if meta.input_kind == "image":
            shape = (1, 28, 28)
        graph = dense_graph(None if foreign else meta, shape)
        nir.write(str(tmp_path / name), graph)
        return tmp_path / name

    return write


@pytest.fixture
def model_file(write_model: Callable[..., Path]) -> Path:
    """A model for 12x10 pixels, three classes, five steps of 1 ms."""
    return write_model()


def random_events(seed: int, number: int = 300, last_us: int = 4_900) -> Events:
    """Events of a 12x10 sensor between 0 and `last_us`."""
    rng = np.random.default_rng(seed)
    return Events.from_columns(
        np.sort(rng.integers(0, last_us + 1, number)),
        rng.integers(0, 12, number),
        rng.integers(0, 10, number),
        rng.integers(0, 2, number),
    )


@pytest.fixture
def make_events() -> Callable[..., Events]:
    """`make_events(seed, number=300, last_us=4900)`."""
    return random_events


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Path:
    """`data/Test/<label>/<file>.bin`: two recordings of each of three classes."""
    for label in "012":
        for number in (0, 1):
            path = tmp_path / "data" / "Test" / label / f"{number:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nmnist_bin(path, random_events(10 * int(label) + number))
    return tmp_path / "data"
