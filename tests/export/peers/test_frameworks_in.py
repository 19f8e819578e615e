"""Networks that other frameworks built, trained a little and exported: in by `mpsl import`, on
recordings, through ONNX and on the int8 grid, with every spike that the framework computes.

Weights are multiples of 1/256, so that sums are exact in any order: nothing is left to rounding.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pytest
import torch

from mpsl_export.verify.backends.torch_plan import TorchPlan
from mpsl_runtime.model.filling import Filling, load_filled
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference
from mpsl_train.data import dvs_digits

Command = Callable[..., tuple[int, str, str]]
NAMES = ("snntorch", "norse", "spikingjelly", "sinabs")
TIMES = ("--steps", 8, "--step-us", 40_000)


@pytest.fixture(scope="module")
def frameworks() -> ModuleType:
    """tests/benchmarks/frameworks_in.py, which is a script's neighbour and no package."""
    path = Path(__file__).parents[2] / "benchmarks" / "frameworks_in.py"
    spec = importlib.util.spec_from_file_location("frameworks_in", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dvs-digits with two recordings of each class and split."""
    root = tmp_path_factory.mktemp("data") / "dvs-digits"
    dvs_digits.make(root, seed=5, progress=False, limit=2)
    return root


@dataclass(frozen=True, eq=False)
class Made:
    """A network on disk, and what its framework computes of the test recordings."""

    name: str
    folder: Path
    x: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    expected: np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=NAMES)
def made(
    request: pytest.FixtureRequest,
    frameworks: ModuleType,
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    pytest.importorskip(request.param)
    framework = frameworks.FRAMEWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each of them has some of its own
        network = frameworks.train(framework, *frameworks.labelled(data, "train"), 8)
        with torch.no_grad():
            for name, values in network.named_parameters():
                if name.endswith(("weight", "bias")):
                    values.copy_((values * 256).round() / 256)
        x, labels = frameworks.labelled(data, "test")
        expected = frameworks.write(framework, network, x, folder)
    assert 0 < expected.mean() < 1
    return Made(request.param, folder, x, labels, expected)


def test_three_commands_bring_it_in_with_every_spike(
    made: Made, frameworks: ModuleType, data: Path, mpsl: Command
) -> None:
    model = made.folder / "model.nir"
    code, out, err = mpsl(
        "import", made.folder / "net.nir", "--from", made.name, *TIMES,
        "--expect", made.folder / "run.npz", "--out", model, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["expect"] == {
        "samples": 20, "values": made.expected.size, "differing": 0, "first_difference": None,
    }  # fmt: skip
    code, out, err = mpsl("run", model, data / "Test", "--json")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    scores = [row["prediction"]["scores"] for row in found if "prediction" in row]
    np.testing.assert_array_equal(scores, made.expected.sum(axis=0))
    counts = made.expected.sum(axis=0).argmax(axis=1)
    assert found[-1]["summary"]["accuracy"] == (counts == made.labels).mean()
    assert mpsl("export", model, "--format", "onnx")[0] == 0
    spikes = frameworks.onnx_spikes(made.folder / "model.onnx", made.x)
    np.testing.assert_array_equal(spikes, made.expected)


def test_what_takes_no_option_is_that_framework_by_its_numbers(made: Made) -> None:
    found = load_filled(made.folder / "net.nir", Filling(steps=8, step_us=40_000), timed=True)
    assert found.plan.metadata is not None
    assert found.plan.metadata.imported_from == made.name


def test_as_int8_it_gives_the_same_bits_in_every_program_and_says_its_accuracy(
    made: Made, frameworks: ModuleType, data: Path, mpsl: Command
) -> None:
    model, small = made.folder / "m.nir", made.folder / "m.int8.nir"
    words = ("--from", made.name, *TIMES)
    assert mpsl("import", made.folder / "net.nir", *words, "--out", model)[0] == 0
    line = ("export", model, "--weights", "int8", "--calibrate", data / "Train")
    code, out, err = mpsl(*line, "--format", "nir")
    assert code == 0, err
    assert "same label as float32 on" in out
    assert mpsl(*line, "--format", "onnx")[0] == 0
    plan = load_plan(small)
    expected = Reference(plan).run_batch(made.x)
    assert expected.any()
    engine = Engine(plan)
    for sample in range(made.x.shape[1]):
        given = np.ascontiguousarray(made.x[:, sample])
        np.testing.assert_array_equal(engine.run(given), expected[:, sample])
    spikes = TorchPlan(plan, torch.device("cpu")).run(made.x).spikes
    np.testing.assert_array_equal(spikes.reshape(expected.shape), expected)
    spikes = frameworks.onnx_spikes(made.folder / "m.int8.onnx", made.x)
    np.testing.assert_array_equal(spikes, expected)
    summary = json.loads(mpsl("run", small, data / "Test", "--json")[1].splitlines()[-1])
    right = expected.sum(axis=0).argmax(axis=1) == made.labels
    assert summary["summary"]["accuracy"] == right.mean()


def test_the_synapse_of_norse_adds_its_inputs(tmp_path: Path) -> None:
    """LIFCell becomes a CubaLIF, whose J would be filtered: 37 % of the spikes differ then."""
    norse = pytest.importorskip("norse.torch")
    export_nir = importlib.import_module("norse.torch.utils.export_nir")
    torch.manual_seed(0)
    given = (torch.rand(30, 1, 20) < 0.3).float()

    def cell(size: int) -> Any:
        values = {"tau_mem_inv": 250.0, "tau_syn_inv": 250.0, "v_th": 0.25, "v_leak": 0.0}
        full = {key: torch.full((size,), value) for key, value in values.items()}
        return norse.LIFCell(norse.LIFParameters(**full, v_reset=torch.zeros(size)))

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        layers = torch.nn.Linear(20, 32), torch.nn.Linear(32, 10)
        for layer in layers:
            layer.weight.copy_((layer.weight * 3 * 64).round() / 64)
            layer.bias.copy_((layer.bias * 64).round() / 64)
        network = norse.SequentialState(layers[0], cell(32), layers[1], cell(10))
        state, expected = None, []
        for frame in given:
            spikes, state = network(frame, state)
            expected.append(spikes.numpy().reshape(-1))
        nir.write(str(tmp_path / "net.nir"), export_nir.to_nir(network, given[0]))
    assert 0.05 < np.mean(expected) < 0.9
    frames = given.numpy().reshape(30, 20)
    ours = load_filled(tmp_path / "net.nir", Filling("norse"), timed=True).plan
    np.testing.assert_array_equal(Engine(ours).run(frames), expected)
    as_written = load_filled(tmp_path / "net.nir", Filling("nir", dt_s=1e-6), timed=True).plan
    assert (Engine(as_written).run(frames) != expected).mean() > 0.05
