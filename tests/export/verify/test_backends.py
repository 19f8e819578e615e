"""Every program gives the same spikes for the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.verify.backends import Backend
from mpsl_export.verify.backends.banks import TrainedBanks
from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime
from mpsl_export.verify.backends.torch_plan import TorchPlan, exact_float32
from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.verify.verify import verify
from mpsl_export.write.format import formats
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.run.reference import Reference

FILES = {"nir": ["model.nir"], "onnx": ["model.onnx", "model.step.onnx"]}
PAIRS = [
    (kind.name, file)
    for name, files in FILES.items()
    for kind in formats()[name].backends
    for file in files
]


def open_backend(name: str, path: Path) -> Backend:
    return ExportedFile.at(path).open(name)


@pytest.fixture(scope="module", params=["event_run", "image_run", "if_run"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run, folder with both exports, input of all test samples [T, B, C, H, W])."""
    run = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = read_checkpoint(run.path)
    graph = graph_of(checkpoint)
    write_nir(graph, folder / "model.nir")
    write_onnx(plan_of(graph, source="test"), folder / "model.onnx")
    name = checkpoint.model.dataset
    split = datasets.open_split(name, datasets.find(name, run.data), "test")
    frames = np.stack([split.input(i, checkpoint.model) for i in range(len(split))], axis=1)
    return run, folder, frames


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_a_back_end_repeats_the_record(exported: Any, name: str, file: str) -> None:
    run, folder, frames = exported
    evaluation = read_evaluation(run.path)
    outcome = open_backend(name, folder / file).run(frames)
    assert outcome.spikes.dtype == np.uint8
    assert np.array_equal(outcome.spikes.swapaxes(0, 1), evaluation.spikes)
    assert 0.05 < outcome.spikes.mean() < 0.95
    if read_checkpoint(run.path).model.readout == "membrane":
        assert outcome.membrane is not None
        np.testing.assert_allclose(outcome.membrane, evaluation.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_a_back_end_records_every_layer_as_the_reference_does(
    exported: Any, name: str, file: str
) -> None:
    _, folder, frames = exported
    plan = load_plan(folder / "model.nir")
    expected = Reference(plan).record(np.ascontiguousarray(frames[:, 3]))
    recorded = open_backend(name, folder / file).record(frames[:, 3])
    assert [layer.layer for layer in recorded] == [neuron.name for neuron in plan.spiking]
    for layer, spikes in zip(recorded, expected, strict=True):
        assert layer.spikes.dtype == np.bool_
        assert np.array_equal(layer.spikes, spikes.reshape(len(spikes), -1))
        assert layer.spikes.any()


def test_the_banks_run_again_repeat_the_record_and_its_probes(exported: Any) -> None:
    run, _, frames = exported
    checkpoint, evaluation = read_checkpoint(run.path), read_evaluation(run.path)
    banks = TrainedBanks(checkpoint, [layer.name for layer in checkpoint.layers])
    assert np.array_equal(banks.run(frames).spikes.swapaxes(0, 1), evaluation.spikes)
    assert len(evaluation.probes) == 8
    for sample, layers in evaluation.probes.items():
        recorded = banks.record(frames[:, evaluation.ids.index(sample)])
        for layer, probe in zip(recorded, layers, strict=True):
            assert np.array_equal(layer.spikes, probe[:, : layer.spikes.shape[1]])


def test_onnx_runtime_says_what_it_runs_on(exported: Any) -> None:
    _, folder, _ = exported
    assert "CPUExecutionProvider" in OnnxRuntime(folder / "model.onnx").device


def test_exact_float32_leaves_torch_as_it_was() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.enabled, matmul.allow_tf32
    assert cudnn.enabled
    with exact_float32():
        assert not cudnn.enabled
        assert not matmul.allow_tf32
        assert torch.is_inference_mode_enabled()
    assert (cudnn.enabled, matmul.allow_tf32) == before


def test_a_back_end_refuses_files_that_it_does_not_read(exported: Any, tmp_path: Path) -> None:
    _, folder, _ = exported
    with pytest.raises(UsageError, match="unknown back end"):
        open_backend("lava", folder / "model.nir")
    with pytest.raises(UsageError, match="does not read"):
        open_backend("torch", folder / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x00" * 100])
@pytest.mark.parametrize("suffix", [".nir", ".onnx"])
def test_a_file_that_is_no_model_is_one_clear_line(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    for kind in formats()[suffix.removeprefix(".")].backends:
        with pytest.raises(ModelError) as caught:
            open_backend(kind.name, path)
        assert "\n" not in str(caught.value)


def test_an_onnx_model_of_another_form_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    node = helper.make_node("Relu", ["a"], ["b"])
    model = helper.make_model(
        helper.make_graph([node], "g", value[:1], value[1:]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not of the form"):
        OnnxRuntime(tmp_path / "m.onnx")


def test_an_onnx_model_that_loads_and_does_not_run_is_one_line(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Identity", ["r"], ["spikes"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [value("x", TensorProto.FLOAT, ["T", "B", 5])], [value("spikes", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([7, 11], np.int64), "shape")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    backend = OnnxRuntime(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run the model.*m\.onnx") as caught:
        backend.run(np.zeros((3, 2, 5), np.float32))
    assert "\n" not in str(caught.value)


def test_a_program_that_fails_on_a_sample_fails_verification(
    event_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_nir(graph_of(read_checkpoint(event_run.path)), tmp_path / "model.nir")

    def failing(self: Any, frames: np.ndarray) -> Any:
        raise ModelError("cannot run the model", where="model.nir")

    monkeypatch.setattr(TorchPlan, "run", failing)
    report = verify(event_run.path, models=[tmp_path / "model.nir"], data=event_run.data)
    (model,) = report["models"]
    assert not report["passed"]
    assert model["reasons"] == ["torch: cannot run the model; in model.nir"]
    assert set(model["spike_mismatch"]) == {"reference", "engine"}
