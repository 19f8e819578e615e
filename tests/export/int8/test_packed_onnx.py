"""An int8 ONNX file holds int8: a quarter of the bytes, and the same bits in every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.inspection import inspect_onnx
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime
from mpsl_export.verify.backends.runtime import RuntimeProgram
from mpsl_export.verify.backends.torch_plan import TorchPlan
from mpsl_export.write.format import Network
from mpsl_export.write.onnx_file import constants_of
from mpsl_export.write.to_nir import graph_of
from mpsl_export.write.to_onnx import FORMAT, write_onnx
from mpsl_runtime.errors import DataError

Copy = Callable[[Any], Any]


@pytest.fixture(params=["event_run", "image_run", "if_run"])
def int8(request: pytest.FixtureRequest) -> Any:
    """The int8 form of a run."""
    run = request.getfixturevalue(request.param)
    return run, to_int8(run.path, read_checkpoint(run.path), data=run.data, samples=8, seed=0)


def _frames(plan: Any, steps: int) -> np.ndarray:
    """Event counts, or pixels on the grid of a normalised image."""
    random = np.random.default_rng(3)
    shape = (steps, *plan.input_shape)
    if plan.metadata.input_kind == "image":
        return random.integers(-20, 150, shape).astype(np.float32) / 64
    return ((random.random(shape) < 0.2) * random.integers(1, 4, shape)).astype(np.float32)


def test_every_layer_gives_the_bits_of_the_engine(int8: Any, tmp_path: Path) -> None:
    _, result = int8
    frames = _frames(result.plan, 6)
    expected = RuntimeProgram(result.plan, "engine").record(frames)
    assert all(0 < layer.spikes.mean() < 1 for layer in expected)
    for path in write_onnx(result.plan, tmp_path / "model.onnx"):
        got = OnnxRuntime(path).record(frames)
        for one, other in zip(expected, got, strict=True):
            assert np.array_equal(one.spikes, other.spikes)
            assert np.array_equal(one.membrane, other.membrane)


def test_weights_lie_in_the_file_as_int8(int8: Any, tmp_path: Path) -> None:
    run, result = int8
    # Names, states and metadata are a few hundred bytes a layer, whatever its weights.
    frame = 900 * len(result.plan.nodes)
    layers = [node for node in result.plan.nodes if hasattr(node, "weight")]
    for path in write_onnx(result.plan, tmp_path / "model.onnx"):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        constants = constants_of(model, path)
        for node in layers:
            weight = constants[f"{node.name}.weight_int8"]
            quantum = constants[f"{node.name}.quantum"]
            assert weight.dtype == np.int8
            assert np.array_equal(weight * quantum, node.weight)
            assert constants[f"{node.name}.bias_int32"].dtype == np.int32
        assert not [name for name in constants if name.endswith((".weight", ".bias"))]
        count = sum(node.weight.size for node in layers)
        assert path.stat().st_size < count + 4 * sum(n.bias.size for n in layers) + frame
        described = inspect_onnx(path)
        assert described is not None
        merged = inspect_onnx(_float32(run, tmp_path))
        assert merged is not None
        assert described["parameters"] == merged["parameters"]
        rows = [row for row in described["layers"] if row["weight_shape"]]
        assert [row["type"] for row in rows] == [
            "Conv" if node.weight.ndim == 4 else "Gemm" for node in layers
        ]
        assert {row["weight_type"] for row in rows} == {"int8"}


def _float32(run: Any, folder: Path) -> Path:
    network = Network.of(graph_of(read_checkpoint(run.path)), "test")
    return write_onnx(network.plan, folder / "float32.onnx")[0]


def test_one_changed_quantum_is_found_and_named(int8: Any, tmp_path: Path) -> None:
    _, result = int8
    name = next(node.name for node in result.plan.nodes if hasattr(node, "weight"))
    for path in write_onnx(result.plan, tmp_path / "model.onnx"):
        model = onnx.load(path)
        constant = next(c for c in model.graph.initializer if c.name == f"{name}.weight_int8")
        content = bytearray(constant.raw_data)
        content[0] ^= 1
        constant.raw_data = bytes(content)
        onnx.save(model, path)
        (found,) = FORMAT.alterations(path, Network(result.graph, result.plan))
        assert str(found).startswith(f"{name} weight_int8[0, 0, 0, 0] is ")
        assert found.runs


def test_no_time_step_is_one_clear_line_in_every_program(int8: Any, tmp_path: Path) -> None:
    _, result = int8
    none = np.zeros((0, 1, *result.plan.input_shape), np.float32)
    programs = [OnnxRuntime(path) for path in write_onnx(result.plan, tmp_path / "model.onnx")]
    programs += [RuntimeProgram(result.plan, name) for name in ("engine", "reference")]
    for program in (*programs, TorchPlan(result.plan)):
        with pytest.raises(DataError, match=r"input has no time step; got \(0, 1"):
            program.run(none)
