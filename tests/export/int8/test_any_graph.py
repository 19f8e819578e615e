"""`mpsl export MODEL.nir --weights int8`: graphs of any framework, and the same bits everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from mpsl_export.export import export
from mpsl_export.int8.to_int8 import model_to_int8
from mpsl_export.model_file import read_network
from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime
from mpsl_export.verify.backends.runtime import RuntimeProgram
from mpsl_export.verify.backends.torch_plan import TorchPlan
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.filling import Filling, fill
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

from ...runtime.run.branching import DT_S, frames, grown  # noqa: TID252 - tests are no package

Array = NDArray[np.float32]
Command = Callable[..., tuple[int, str, str]]


def _written(folder: Path, graph: nir.NIRGraph, filling: Filling) -> Path:
    """The graph as `mpsl import` leaves it."""
    path = folder / "model.nir"
    write_graph(fill(graph, "graph.nir", filling, timed=True).graph, path)
    return path


def _same_bits(plan: Plan, given: Array, folder: Path) -> None:
    """Spikes and U of every population, and the output, in every program; given [T, *shape]."""
    expected = RuntimeProgram(plan, "reference").record(given)
    outputs = Reference(plan).run(given)
    assert np.array_equal(Engine(plan).run(given), outputs)
    recorded = {
        "engine": RuntimeProgram(plan, "engine").record(given),
        "torch": TorchPlan(plan, torch.device("cpu")).record(given),
    }
    for path in write_onnx(plan, folder / "model.onnx"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        if "step" not in path.name:
            got = session.run(None, {"x": given[:, None]})[0]
            assert np.array_equal(got.reshape(outputs.shape), outputs)
        if "spikes" in [value.name for value in session.get_outputs()]:
            recorded[path.name] = OnnxRuntime(path).record(given)
    for name, layers in recorded.items():
        for one, other in zip(expected, layers, strict=True):
            assert np.array_equal(one.spikes, other.spikes), (name, one.layer)
            assert np.array_equal(one.membrane, other.membrane), (name, one.layer)


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 6, 8, 10, 12, 14, 18, 24, 26])
def test_branches_loops_and_every_neuron_give_the_same_bits(seed: int, tmp_path: Path) -> None:
    graph, _ = grown(seed)
    path = _written(tmp_path, graph, Filling("nir", dt_s=DT_S, steps=8))
    given = frames(graph)
    np.savez(tmp_path / "calibration.npz", input=given)
    written = export(path, weights="int8", calibrate=tmp_path / "calibration.npz").written
    assert [file.name for file in written] == ["model.int8.nir", "model.int8.json"]
    plan = load_plan(written[0])
    assert layer_grids(plan)
    _same_bits(plan, given, tmp_path)


def _convolutional(random: Any) -> nir.NIRGraph:
    """Convolution, IF with a gain, pool, a second convolution, CubaLIF, weights, LIF."""
    one, two, none = np.array([1, 1]), np.array([2, 2]), np.array([0, 0])

    def drawn(*shape: int) -> Array:
        return random.normal(0, 2 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    def full(value: float, *shape: int) -> Array:
        return np.full(shape, value, np.float32)

    first, second = (6, 8, 8), (8, 4, 4)
    nodes = {
        "a_input": nir.Input({"input": np.array([2, 8, 8])}),
        "b_conv": nir.Conv2d((8, 8), drawn(6, 2, 3, 3), one, one, one, 1, drawn(6)),
        "c_if": nir.IF(full(0.7 / DT_S, *first), full(1, *first), full(0, *first)),
        "d_pool": nir.SumPool2d(two, two, none),
        "e_conv": nir.Conv2d((4, 4), drawn(8, 6, 3, 3), one, one, one, 1, drawn(8)),
        "f_cuba": nir.CubaLIF(
            full(2 * DT_S, *second), full(3 * DT_S, *second), full(1, *second), full(0, *second),
            full(0.3, *second), full(0, *second), full(1, *second),
        ),
        "g_flatten": nir.Flatten({"input": np.array(second)}, 0, -1),
        "h_affine": nir.Affine(drawn(5, 128), drawn(5)),
        "i_lif": nir.LIF(full(3 * DT_S, 5), full(1, 5), full(0.1, 5), full(0.3, 5), full(-0.1, 5)),
        "j_output": nir.Output({"output": np.array([5])}),
    }  # fmt: skip
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)


@pytest.mark.parametrize(
    "filling",
    [
        Filling("nir", dt_s=DT_S, steps=6, step_us=1000),
        Filling("snntorch", dt_s=DT_S, steps=6, step_us=1000),
        Filling("snntorch", dt_s=DT_S, reset="value", steps=6, step_us=1000),
        Filling("norse", dt_s=DT_S, steps=6, step_us=1000),
        Filling("spikingjelly", dt_s=DT_S, steps=6, step_us=1000),
        Filling("sinabs", dt_s=DT_S, spikes="one", steps=6, step_us=1000),
        Filling("sinabs", dt_s=DT_S, spikes="one", reset="value", steps=6, step_us=1000),
    ],
    ids=lambda filling: f"{filling.dialect}-{filling.reset}",
)
def test_a_network_of_each_framework_gives_the_same_bits(filling: Filling, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    path = _written(tmp_path, _convolutional(random), filling)
    given = ((random.random((6, 3, 2, 8, 8)) < 0.2) * random.integers(1, 3, 6)[0]).astype("f4")
    np.savez(tmp_path / "calibration.npz", input=given)
    report = model_to_int8(read_network(path), tmp_path / "calibration.npz", samples=3, seed=0)
    before, after = load_plan(path), report.plan
    names = ("c_if", "f_cuba", "i_lif")
    unchanged = [{node.name: node for node in plan.nodes} for plan in (before, after)]
    for name in names:  # what is behind the weights stays as it is
        for key, value in vars(unchanged[0][name]).items():
            np.testing.assert_array_equal(value, getattr(unchanged[1][name], key))
    # Rounded weights, and the same network: two of the 90 output spikes at most.
    assert all(abs(d.int8_rate - d.rate) < 0.03 for d in report.calibration.drift)
    assert all(0 < d.rate < 1 for d in report.calibration.drift)
    _same_bits(after, np.ascontiguousarray(given[:, 0]), tmp_path)


def test_many_spikes_a_step_have_a_bound_that_the_proof_takes(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    ones = np.ones(20, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([30])}),
        "a": nir.Affine(random.normal(0.1, 0.4, (20, 30)), random.normal(0, 0.2, 20)),
        "b": nir.IF(ones, ones, 0 * ones),
        "c": nir.Affine(random.normal(0.1, 0.4, (5, 20)), random.normal(0, 0.2, 5)),
        "d": nir.IF(ones[:5], ones[:5], 0 * ones[:5]),
        "output": nir.Output({"output": np.array([5])}),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    path = _written(tmp_path, graph, Filling("sinabs", steps=6))
    given = random.integers(0, 3, (6, 3, 30)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", input=given)
    report = model_to_int8(read_network(path), tmp_path / "calibration.npz", samples=3, seed=0)
    assert report.calibration.input_max >= 2
    assert Reference(report.plan).run(np.ascontiguousarray(given[:, 0])).max() > 2
    _same_bits(report.plan, np.ascontiguousarray(given[:, 0]), tmp_path)


def test_a_deep_network_of_many_spikes_is_refused_by_name(tmp_path: Path) -> None:
    """The bound grows with every layer."""
    random = np.random.default_rng(5)
    filling = Filling("sinabs", dt_s=DT_S, steps=6, step_us=1000)
    path = _written(tmp_path, _convolutional(random), filling)
    np.savez(tmp_path / "calibration.npz", input=np.ones((6, 2, 8, 8), np.float32))
    with pytest.raises(ModelError, match=r"sums may not be exact.*'?h_affine"):
        export(path, weights="int8", calibrate=tmp_path / "calibration.npz")


def test_many_spikes_that_come_back_have_no_bound(tmp_path: Path) -> None:
    graph, _ = next((g, late) for g, late in map(grown, range(0, 60, 2)) if late)
    nir.write(tmp_path / "loop.nir", graph)
    given = frames(graph)
    np.savez(tmp_path / "calibration.npz", input=given)
    words = {"dialect": "sinabs", "leak": "exact", "dt_s": DT_S}
    with pytest.raises(ModelError, match=r"no bound|on no grid"):
        export(
            tmp_path / "loop.nir", weights="int8", calibrate=tmp_path / "calibration.npz",
            filling=Filling(**words),
        )  # fmt: skip


def test_a_model_of_events_is_calibrated_on_recordings(
    event_run: Any, mpsl: Command, tmp_path: Path
) -> None:
    model = export(event_run.path, "nir", out=tmp_path / "model.nir").written[0]
    line = ("export", model, "--weights", "int8", "--calibrate", event_run.data / "Train")
    code, out, err = mpsl(*line, "--format", "onnx", "--samples", 6, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [Path(path).name for path in document["written"]] == [
        "model.int8.onnx", "model.int8.step.onnx", "model.int8.json",
    ]  # fmt: skip
    report = document["int8"]
    assert (report["samples"], report["calibrated_on"]) == (6, "Train")
    assert report["accuracy"] == {}
    assert [row["layer"] for row in report["drift"]] == ["n02_lif", "n05_lif", "n09_lif", "n11_lif"]
    for row in report["drift"]:
        rates = row["rate"]
        assert row["rate_difference"] == rates["int8"] - rates["float32"]
        assert (row["first_difference"] is None) == (row["spike_difference"] == 0)
    code, out, err = mpsl(*line, "--format", "nir")
    assert code == 0, err
    assert "calibrated on 24 samples" in out
    assert "spikes that differ" in out
    # An int8 model becomes ONNX as it is.
    assert mpsl("export", tmp_path / "model.int8.nir", "--format", "onnx")[0] == 0


def test_images_are_calibrated_on_an_array(image_run: Any, mpsl: Command, tmp_path: Path) -> None:
    model = export(image_run.path, "nir", out=tmp_path / "model.nir").written[0]
    pixels = np.random.default_rng(0).integers(-27, 180, (1, 5, 1, 28, 28)) / 64
    np.savez(tmp_path / "f.npz", input=np.repeat(pixels, 4, axis=0))
    line = ("export", model, "--format", "nir", "--weights", "int8")
    code, _, err = mpsl(*line, "--calibrate", tmp_path / "f.npz")
    assert code == 0, err
    assert layer_grids(load_plan(tmp_path / "model.int8.nir"))


@pytest.fixture
def places(event_run: Any, tmp_path: Path) -> dict[str, str]:
    """Files that are not enough."""
    export(event_run.path, "nir", out=tmp_path / "model.nir")
    nir.write(tmp_path / "foreign.nir", grown(2)[0])
    graph = load_graph(tmp_path / "model.nir")
    graph.metadata = {}
    nir.write(tmp_path / "untimed.nir", graph)
    spikes = np.zeros((4, 2, 2, 17, 17), np.float32)
    arrays: dict[str, dict[str, Any]] = {
        "empty": {"input": spikes[:0]},
        "nobody": {"input": spikes[:, :0]},
        "other": {"frames": spikes, "labels": np.zeros(2)},
        "small": {"input": spikes[..., :16]},
        "nan": {"input": spikes + np.float32(np.nan)},
        "words": {"input": np.array(["a"])},
        "halves": {"input": spikes + np.float32(0.5)},
        "good": {"input": spikes + np.float32(1)},
    }
    for name, content in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    return {
        path.name.split(".")[0].upper(): str(path) for path in tmp_path.iterdir()
    } | {"ABSENT": str(tmp_path / "absent.npz")}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("MODEL", "int8 is calibrated on samples, and none are given; expected --calibrate"),
        ("MODEL --calibrate EMPTY", "input has no time step; got (0, 2, 2, 17, 17)"),
        ("MODEL --calibrate NOBODY", "input has no sample; got (4, 0, 2, 17, 17)"),
        ("MODEL --calibrate OTHER", "array is not in the file; got no 'input'"),
        ("MODEL --calibrate SMALL", "input does not fit the model; got (4, 2, 2, 17, 16)"),
        ("MODEL --calibrate NAN", "not finite"),
        ("MODEL --calibrate WORDS", "array has no numbers"),
        ("MODEL --calibrate HALVES", "must be on a grid; got 0.5; expected multiples of 1"),
        ("MODEL --calibrate FOLDER", "no recordings"),
        ("MODEL --calibrate ABSENT", "no such"),
        ("MODEL --calibrate TEXT", "header of the text is not that of events"),
        ("MODEL --calibrate udp://localhost:1", "live source"),
        ("FOREIGN --calibrate GOOD --from nir --dt-s 1e-4", "input does not fit the model"),
        (
            "UNTIMED --calibrate GOOD --dt-s 1e-4",
            "does not say what its input is, which int8",
        ),
    ],
)
def test_what_is_missing_is_one_line(
    places: dict[str, str], mpsl: Command, tmp_path: Path, arguments: str, words: str
) -> None:
    before = sorted(tmp_path.iterdir())
    line = [places.get(word, word) for word in arguments.split()]
    code, out, err = mpsl("export", *line, "--format", "nir", "--weights", "int8")
    assert code == 2, err
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_int8_neither_goes_back_nor_is_calibrated_again(
    places: dict[str, str], mpsl: Command, tmp_path: Path
) -> None:
    line = ("export", "--format", "onnx")
    good = ("--calibrate", places["GOOD"])
    assert mpsl(*line, places["MODEL"], "--weights", "int8", *good)[0] == 0
    assert mpsl("export", "--format", "nir", places["MODEL"], "--weights", "int8", *good)[0] == 0
    int8 = tmp_path / "model.int8.nir"
    for options, words in (
        (("--weights", "float32"), "what its float32 weights were is not in it"),
        (good, "only float32 becomes int8 by calibration; got --calibrate for int8"),
    ):
        code, _, err = mpsl(*line, int8, *options)
        assert code == 2
        assert words in err
    code, _, err = mpsl(*line, places["MODEL"], *good)
    assert code == 2
    assert "got --calibrate for float32 weights; expected --weights int8" in err
