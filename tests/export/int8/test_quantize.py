"""int8: what is written, how its scales are chosen, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mpsl_export import cli
from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.int8.calibrate import calibrate, input_bound
from mpsl_export.int8.quantize import integers, quantised_graph, quantised_plan, scale_of, stages
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.write.onnx_file import read_model
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import DataError, ModelError, RunError, UsageError
from mpsl_runtime.model.graph import encode_neuron, load_plan, plan_of
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Dense
from mpsl_runtime.model.quanta import EXACT_LIMIT

Copy = Callable[[Any], Any]


def _int8(run: Any, **options: Any) -> Any:
    options = {"data": run.data, "samples": 24, "seed": 0, **options}
    return to_int8(run.path, read_checkpoint(run.path), **options)


def _export(run: Any) -> None:
    """Both int8 exports of a run."""
    result = _int8(run)
    write_nir(result.graph, run.path / "model.int8.nir")
    write_onnx(result.plan, run.path / "model.int8.onnx")


@pytest.mark.parametrize("name", ["event_run", "image_run"])
def test_a_file_holds_whole_numbers_and_says_their_grid(
    name: str, request: pytest.FixtureRequest, copied: Copy
) -> None:
    run = copied(request.getfixturevalue(name))
    _export(run)
    graph = nir.read(run.path / "model.int8.nir")
    trained = graph_of(read_checkpoint(run.path))
    assert graph.metadata["weights"] == "int8"
    layers = 0
    for weighted, neurons in pairwise(sorted(graph.nodes)):
        node = graph.nodes[weighted]
        if not isinstance(node, nir.Conv2d | nir.Affine):
            continue
        layers += 1
        lif = graph.nodes[neurons]
        quantum = 2.0 ** int(node.metadata["weight_grid"])
        assert lif.metadata["weight_grid"] == node.metadata["weight_grid"]
        quanta = node.weight.astype(np.float64) / quantum
        assert np.array_equal(quanta, np.rint(quanta))
        assert 64 <= np.abs(quanta).max() <= 127
        assert node.weight.dtype == np.float32
        for value in (node.bias, lif.metadata["threshold"]):
            assert np.array_equal(np.rint(value / quantum), value / quantum)
        # About the trained values: a layer is rescaled by less than the root of two.
        before = float(trained.nodes[neurons].metadata["threshold"])
        assert 2**-0.51 < float(lif.metadata["threshold"]) / before < 2**0.51
        encoded = encode_neuron(float(lif.metadata["threshold"]), 0.75, lif.tau.shape, 1e-4)
        for key, value in encoded.items():
            np.testing.assert_array_equal(getattr(lif, key), value)
    assert layers == len(read_checkpoint(run.path).layers)
    plan = load_plan(run.path / "model.int8.nir")
    assert [grid.weight.dtype for grid in layer_grids(plan)] == [np.dtype(np.int8)] * layers
    properties = {
        entry.key: entry.value for entry in read_model(run.path / "model.int8.onnx").metadata_props
    }
    assert properties["weights"] == "int8"
    assert len([key for key in properties if key.startswith("weight_grid.")]) == layers


def test_a_network_on_a_grid_already_is_written_without_any_error(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    random = np.random.default_rng(3)
    for layer in run.description["layers"]:
        name, out = layer["name"], layer["shape"][0]
        layer.update(mechanisms=["stbp"], batchnorm_eps=None, threshold=64 / 128)
        for key in [key for key in run.tensors if key.startswith(name)]:
            del run.tensors[key]
        weight = random.integers(-127, 128, layer["shape"]) / 128 / 8
        weight.flat[0] = 127 / 128 / 8
        # The pool's 1/4 is folded into the weights; made up for here.
        run.tensors[f"{name}.W1"] = np.float32(weight * 8 * layer["pool_before"] ** 2)
        run.tensors[f"{name}.lambda"] = np.ones(1, np.float32)
        run.tensors[f"{name}.bias"] = np.float32(random.integers(-9, 9, out) / 128)
    run = run.write(run.path)
    result = _int8(run)
    expected = plan_of(graph_of(read_checkpoint(run.path)), source="test")
    for one, two in zip(expected.nodes, result.plan.nodes, strict=True):
        if isinstance(one, Convolution | Dense):
            np.testing.assert_array_equal(one.weight, two.weight)
            np.testing.assert_array_equal(one.bias, two.bias)
    assert [tried[0].spike_error for tried in result.calibration.tried] == [0.0] * 4
    assert [tried[0].current_error for tried in result.calibration.tried] == [0.0] * 4
    assert [drift.differing for drift in result.calibration.drift] == [0.0] * 4
    assert result.calibration.agreement == 1.0


def test_the_chosen_scale_makes_the_smallest_error_of_those_tried(event_run: Any) -> None:
    result = _int8(event_run)
    for best, *others in result.calibration.tried:
        assert len(others) >= 5
        assert best.spike_error == min(c.spike_error for c in (best, *others))
        assert any(other.spike_error > best.spike_error for other in others)
        assert min(c.clipped for c in (best, *others)) == 0.0
    # Enough quanta to speak of: the layer's own error is small.
    assert all(tried[0].spike_error < 0.02 for tried in result.calibration.tried)


def test_the_threshold_costs_no_error_and_weights_half_a_quantum(event_run: Any) -> None:
    graph = graph_of(read_checkpoint(event_run.path))
    found = stages(plan_of(graph, source="test"))
    for stage in found:
        for threshold in (1, 37, 1000):
            scale = scale_of(stage, threshold)
            weight, bias, clipped = integers(stage, scale)
            assert scale.threshold * scale.step == pytest.approx(stage.threshold, rel=1e-15)
            inside = np.abs(stage.weighted.weight / scale.step) <= 127
            error = np.abs(weight * scale.step - stage.weighted.weight)[inside]
            assert error.max(initial=0) <= scale.step / 2 * (1 + 1e-6)
            assert clipped == pytest.approx((~inside).mean(), abs=0.01)
            assert np.abs(bias * scale.step - stage.weighted.bias).max() <= 0.51 * scale.step


def test_the_graph_that_is_written_is_the_plan_that_verification_expects(event_run: Any) -> None:
    graph = graph_of(read_checkpoint(event_run.path))
    plan = plan_of(graph, source="test")
    scales = [scale_of(stage, 30 + i) for i, stage in enumerate(stages(plan))]
    expected = quantised_plan(plan, scales, 7)
    written = plan_of(quantised_graph(graph, scales, 7), source="test")
    assert written.metadata == expected.metadata
    assert expected.metadata is not None
    assert (expected.metadata.weights, expected.metadata.input_max) == ("int8", 7)
    for mine, theirs in zip(expected.nodes, written.nodes, strict=True):
        for key, value in vars(mine).items():
            np.testing.assert_array_equal(value, getattr(theirs, key), err_msg=key)
    assert [stage.threshold for stage in stages(expected)] == [
        scale.stored_threshold for scale in scales
    ]


def test_potentials_that_are_scores_are_not_rescaled(image_run: Any) -> None:
    graph = graph_of(read_checkpoint(image_run.path))
    first, last = stages(plan_of(graph, source="test"))
    assert (first.is_score, last.is_score) == (False, True)
    scale = scale_of(last, 100)
    assert scale.step == 2.0**scale.exponent
    assert scale.threshold == round(last.threshold / scale.step)


@pytest.mark.parametrize("decay", [0.9, 0.7])
def test_a_decay_without_binary_form_is_refused_and_explained(
    event_run: Any, copied: Copy, decay: float
) -> None:
    run = copied(event_run)
    run.description["layers"][1]["decay"] = decay
    run = run.write(run.path)
    with pytest.raises(ModelError, match=rf"got {decay}.*0\.5, 0\.75.*n05_lif"):
        _int8(run)


def test_a_layer_whose_sums_may_round_is_refused_by_name(event_run: Any) -> None:
    shape, size = (2, 150, 150), 45_000
    sensor = {"sensor_width": 150, "sensor_height": 150, "downsample": 1}
    meta = replace(read_checkpoint(event_run.path).model, **sensor, classes="0,1")
    about = NeuronMetadata("subtract", "reset-decay-add-fire", 0.75, 0.3, 1e-4).to_mapping()
    nodes = {
        "n00_input": nir.Input({"input": np.array(shape)}),
        "n01_flatten": nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1),
        "n02_affine": nir.Affine(np.full((2, size), 0.01, np.float32), np.zeros(2, np.float32)),
        "n03_lif": nir.LIF(**encode_neuron(0.3, 0.75, (2,), 1e-4), metadata=about),
        "n04_output": nir.Output({"output": np.array([2])}),
    }

    def calibrated(meta: ModelMetadata) -> Any:
        graph = nir.NIRGraph(nodes, list(pairwise(nodes)), metadata=meta.to_mapping())
        plan = plan_of(graph, source="test")
        return calibrate(plan, np.zeros((2, 1, *shape), np.float32), np.zeros(1, np.int64))

    with pytest.raises(ModelError, match=rf"{EXACT_LIMIT:,}; in n02_affine"):
        calibrated(meta)
    # With inputs of 0 and 1 alone the same layer is fine.
    assert calibrated(replace(meta, coding="binary")).input_max == 1


def test_the_bound_on_the_input_is_generous_and_known_for_images(
    event_run: Any, image_run: Any
) -> None:
    events = read_checkpoint(event_run.path).model
    assert input_bound(events, 9) == 255
    assert input_bound(events, 100) == 512
    assert input_bound(replace(events, coding="binary"), 1) == 1
    images = read_checkpoint(image_run.path).model
    assert input_bound(images, 3) == round((1 - 0.1307) / 0.3081 * 64)
    assert input_bound(replace(images, image_mean="", image_std="", input_grid=1 / 256), 3) == 255
    result = _int8(event_run)
    assert result.calibration.input_max >= 255
    assert result.calibration.input_max > 4 * result.calibration.largest_input > 0
    assert result.plan.metadata.input_max == result.calibration.input_max


def test_calibration_sees_held_out_training_samples_alone(
    event_run: Any, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)
    (run.path / "recipe.toml").write_text("seed = 4\n[data]\nvalidation = 0.34\ntrain_limit = 0\n")
    opened: list[str] = []
    read: list[int] = []
    open_split, take = datasets.open_split, datasets.Split.input

    def watched(name: str, root: Path, split: Any) -> Any:
        opened.append(split)
        return open_split(name, root, split)

    def taken(self: Any, index: int, metadata: Any) -> Any:
        read.append(index)
        return take(self, index, metadata)

    monkeypatch.setattr(datasets, "open_split", watched)
    monkeypatch.setattr(datasets.Split, "input", taken)
    result = _int8(run, samples=100)
    assert opened == ["train"]
    labels = open_split("nmnist8", run.data, "train").labels
    held_out = stratified_split(labels, 0.34, 4)[1]
    assert sorted(read) == held_out.tolist()
    assert result.calibration.samples == len(held_out) == 8
    assert result.source == "validation part of nmnist8"
    read.clear()
    _int8(run, samples=3, seed=1)
    first = list(read)
    assert len(first) == 3
    assert set(first) < set(held_out.tolist())
    read.clear()
    _int8(run, samples=3, seed=2)
    assert read != first


def test_two_exports_are_the_same_bit_for_bit(event_run: Any) -> None:
    one, two = _int8(event_run), _int8(event_run)
    assert one.to_mapping() == two.to_mapping()
    for name, node in one.graph.nodes.items():
        if isinstance(node, nir.Conv2d | nir.Affine):
            np.testing.assert_array_equal(node.weight, two.graph.nodes[name].weight)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"samples": 0}, UsageError),
        ({"data": Path("/nowhere")}, DataError),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    event_run: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _int8(event_run, **options)


def test_a_damaged_recipe_is_refused(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    (run.path / "recipe.toml").write_text("seed = = 4")
    with pytest.raises(RunError, match=r"recipe.toml"):
        _int8(run)


def _app() -> typer.Typer:
    app = typer.Typer()
    cli.register(app)
    return app


def test_the_command_writes_models_and_the_report_of_every_layer(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    line = ["export", str(run.path), "--weights", "int8", "--data", str(run.data)]
    result = CliRunner().invoke(_app(), [*line, "--format", "nir"])
    assert result.exit_code == 0, result.output
    for words in (
        "model.int8.nir",
        "n04_conv",
        "current error",
        "spike error",
        "2^24",
        "same label",
    ):
        assert words in result.output
    report = json.loads((run.path / "model.int8.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == [
        "n01_conv",
        "n04_conv",
        "n08_affine",
        "n10_affine",
    ]
    for layer in report["layers"]:
        assert 0 <= layer["spike_error"] <= 1
        assert layer["current_error"] >= 0
        assert 0 < layer["worst_sum"] < EXACT_LIMIT
        assert len(layer["tried"]) > 3
    result = CliRunner().invoke(_app(), [*line, "--format", "onnx", "--json", "--samples", "8"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [Path(path).name for path in document["written"]] == [
        "model.int8.onnx",
        "model.int8.step.onnx",
        "model.int8.json",
    ]
    assert document["int8"]["samples"] == 8
    assert all(Path(path).is_file() for path in document["written"])
