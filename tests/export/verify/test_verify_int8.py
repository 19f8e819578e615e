"""`mpsl verify` on int8 models: nothing may differ in any program, and what is altered fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.int8.quantize import quantised_graph, scale_of, stages
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.verify import judge_int8
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.model.plan import Neuron
from mpsl_runtime.run.reference import Reference

Copy = Callable[[Any], Any]
Change = Callable[[nir.NIRGraph], None]


def _int8(run: Any, **options: Any) -> Any:
    options = {"data": run.data, "samples": 24, "seed": 0, **options}
    return to_int8(run.path, read_checkpoint(run.path), **options)


def _export(run: Any, change: Change | None = None) -> nir.NIRGraph:
    """Both int8 exports of a run, of a changed graph if wanted."""
    graph: nir.NIRGraph = _int8(run).graph
    if change is not None:
        change(graph)
    write_nir(graph, run.path / "model.int8.nir")
    write_onnx(plan_of(graph, source="test"), run.path / "model.int8.onnx")
    return graph


@pytest.fixture
def any_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network with random weights, a few samples that change their label say nothing about
    int8."""
    monkeypatch.setattr(judge_int8, "ACCURACY_LOSS", 1.0)


def _recorded(run: Any) -> np.ndarray:
    return read_evaluation(run.path).spikes.swapaxes(0, 1)


@pytest.mark.usefixtures("any_accuracy")
def test_a_dump_of_float_and_int8_has_both_and_int8_says_its_drift(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    graph = _export(run)
    write_nir(graph_of(read_checkpoint(run.path)), run.path / "model.nir")
    report = verify(run.path, data=run.data, backends=["engine"], dump=run.path / "d.npz")
    with np.load(run.path / "d.npz") as dump:
        assert {key for key in dump if key.startswith("spikes")} == {
            "spikes", "spikes:model.int8.nir", "spikes:model.nir",
        }  # fmt: skip
        assert np.array_equal(dump["spikes:model.nir"], _recorded(run))
        frames = dump["input"]
        int8 = Reference(plan_of(graph, source="test"))
        assert np.array_equal(dump["spikes:model.int8.nir"], int8.run_batch(frames))
    first, second = report["models"]
    assert "drift" not in second
    merged = Reference(plan_of(graph_of(read_checkpoint(run.path)), source="test"))
    pairs = [
        [np.stack(layers) for layers in zip(*map(net.record, frames.swapaxes(0, 1)), strict=True)]
        for net in (merged, int8)
    ]
    for row, one, two in zip(first["drift"], *pairs, strict=True):
        assert row["rate"] == {
            "float32": pytest.approx(one.mean()), "int8": pytest.approx(two.mean()),
        }  # fmt: skip
        assert row["spike_difference"] == pytest.approx((one != two).mean())
        place = np.argwhere((one != two).reshape(len(one), one.shape[1], -1))
        found = row["first_difference"]
        assert (found is None) == (len(place) == 0)
        if found is not None:
            ids = read_evaluation(run.path).ids
            assert (ids.index(found["sample"]), found["step"], found["neuron"]) == tuple(place[0])


@pytest.mark.parametrize("name", ["event_run", "image_run"])
@pytest.mark.usefixtures("any_accuracy")
def test_no_spike_and_no_score_differs_in_any_program(
    name: str, request: pytest.FixtureRequest, copied: Copy
) -> None:
    run = copied(request.getfixturevalue(name))
    _export(run)
    report = verify(run.path, data=run.data, dump=run.path / "dump.npz")
    assert report["passed"], report
    with np.load(run.path / "dump.npz") as dump:
        outputs = Reference(load_plan(run.path / "model.int8.nir")).run_batch(dump["input"])
        # What it was judged against, not the float record.
        assert np.array_equal(dump["spikes"], outputs)
        assert not np.array_equal(dump["spikes"], _recorded(run))
    assert 0.02 < outputs.mean() < 0.98
    files = [Path(model["file"]).name for model in report["models"]]
    assert files == ["model.int8.nir", "model.int8.onnx", "model.int8.step.onnx"]
    seen = set()
    for model in report["models"]:
        assert model["against"] == "reference"
        assert model["first_difference"] is None
        assert model["explained_ties"] == 0
        assert set(model["spike_mismatch"].values()) == {0.0}
        assert set(model["argmax_agreement"].values()) == {1.0}
        assert {"trained", "reference"} <= set(model["accuracy"])
        seen |= set(model["spike_mismatch"])
    assert seen == {"torch", "onnx", "reference", "engine"}
    json.dumps(report, allow_nan=False)


@pytest.mark.usefixtures("any_accuracy")
def test_the_reference_runs_even_when_nobody_asked_for_it(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    _export(run)
    (model,) = verify(
        run.path, data=run.data, models=[run.path / "model.int8.nir"], backends=["engine"]
    )["models"]
    assert set(model["spike_mismatch"]) == {"engine", "reference"}


@pytest.mark.usefixtures("any_accuracy")
def test_float_and_int8_models_are_each_held_against_their_own(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    _export(run)
    write_nir(graph_of(read_checkpoint(run.path)), run.path / "model.nir")
    report = verify(run.path, data=run.data, backends=["reference"], limit=4)
    against = {Path(m["file"]).name: m["against"] for m in report["models"]}
    assert against == {"model.int8.nir": "reference", "model.nir": "trained"}


def _one_quantum(graph: nir.NIRGraph) -> None:
    node = graph.nodes["n04_conv"]
    weight = node.weight.copy()
    weight[0, 0, 1, 1] += np.float32(2.0 ** node.metadata["weight_grid"])
    node.weight = weight


def _times(graph: nir.NIRGraph) -> None:
    weight = graph.nodes["n04_conv"].weight.copy()
    weight[0, 0, 1, 1] *= np.float32(1.1)
    graph.nodes["n04_conv"].weight = weight


def _limit(graph: nir.NIRGraph) -> None:
    lif = graph.nodes["n05_lif"]
    lif.v_threshold = lif.v_threshold * np.float32(1.05)


def _reset(graph: nir.NIRGraph) -> None:
    lif = graph.nodes["n05_lif"]
    lif.metadata = {**lif.metadata, "reset": "zero"}


def _other_grid(graph: nir.NIRGraph) -> None:
    node = graph.nodes["n04_conv"]
    node.metadata = {"weight_grid": node.metadata["weight_grid"] - 1}


def _no_grid(graph: nir.NIRGraph) -> None:
    graph.nodes["n04_conv"].metadata = {}


WRONG: dict[str, tuple[Change, str]] = {
    "one weight + 1 quantum": (_one_quantum, "n04_conv"),
    "one weight × 1.1": (_times, "n04_conv"),
    "thresholds × 1.05": (_limit, "n05_lif"),
    "reset to zero": (_reset, "n05_lif"),
    "another grid": (_other_grid, "n04_conv"),
    "no grid": (_no_grid, "does not say its grid"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.usefixtures("any_accuracy")
def test_an_altered_int8_file_fails_by_name(event_run: Any, copied: Copy, what: str) -> None:
    change, words = WRONG[what]
    run = copied(event_run)
    _export(run, change)
    report = verify(run.path, data=run.data, backends=["reference", "onnx"])
    assert not report["passed"]
    for model in report["models"]:
        assert not model["passed"], model["file"]
        assert words in " ".join(model["reasons"])
    first = report["models"][0]["first_difference"]
    if what not in ("no grid", "another grid"):
        assert first["layer"] == "n05_lif"
        assert first["sample"] in datasets.open_split("nmnist8", run.data, "test").ids
        assert isinstance(first["step"], int)
    json.dumps(report, allow_nan=False)


def test_a_lost_half_point_of_accuracy_fails(image_run: Any, copied: Copy, tmp_path: Path) -> None:
    run = copied(image_run)
    # A training that got everything right: the labels of the data set are its predictions.
    run = run.relabelled(tmp_path / "relabelled", read_evaluation(run.path).predictions)
    graph = graph_of(read_checkpoint(run.path))
    # A grid of three quanta to the threshold is exact, and far too coarse.
    scales = [scale_of(stage, 3) for stage in stages(plan_of(graph, source="test"))]
    write_nir(quantised_graph(graph, scales, 200), run.path / "model.int8.nir")
    report = verify(run.path, data=run.data, models=[run.path / "model.int8.nir"])
    (model,) = report["models"]
    assert not report["passed"]
    assert set(model["spike_mismatch"].values()) == {0.0}
    assert any("0.5 points below the trained 100.00%" in reason for reason in model["reasons"])


@pytest.mark.usefixtures("any_accuracy")
def test_a_program_that_differs_from_the_reference_is_named_with_layer_and_step(
    event_run: Any, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)
    _export(run)

    from mpsl_export.verify.backends import torch_plan

    honest = torch_plan.TorchPlan.__init__

    def dishonest(self: Any, plan: Any, device: Any = None) -> None:
        nodes = [
            replace(node, threshold=node.threshold * np.float32(1.2))
            if isinstance(node, Neuron) and node.name == "n05_lif"
            else node
            for node in plan.nodes
        ]
        honest(self, replace(plan, nodes=tuple(nodes)), device)

    monkeypatch.setattr(torch_plan.TorchPlan, "__init__", dishonest)
    (model,) = verify(
        run.path, data=run.data, models=[run.path / "model.int8.nir"], backends=["torch"]
    )["models"]
    assert not model["passed"]
    assert any(reason.startswith("torch:") for reason in model["reasons"])
    difference = model["first_difference"]
    assert (difference["backend"], difference["layer"]) == ("torch", "n05_lif")
    assert 0 <= difference["step"] < 5
