"""The ONNX graphs give what the numpy reference gives, for every node that a plan can hold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import onnxruntime
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.write.to_nir import graph_of
from mpsl_export.write.to_onnx import (
    OPSET,
    open_shapes,
    sequence_model,
    step_model,
    step_path,
    write_onnx,
)
from mpsl_runtime.errors import ModelError, OutputError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

from ...runtime.run.branching import DT_S, grown  # noqa: TID252 - tests are no package


@pytest.fixture(scope="module")
def plan(event_run: Any) -> Plan:
    """The event model."""
    return plan_of(graph_of(read_checkpoint(event_run.path)), source="test")


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _frames(plan: Plan, steps: int, batch: int) -> np.ndarray:
    random = np.random.default_rng(3)
    shape = (steps, batch, *plan.input_shape)
    return (random.random(shape) < 0.1).astype(np.float32) * random.integers(1, 4, shape)


def test_both_graphs_pass_the_check_at_opset_17(plan: Plan, tmp_path: Path) -> None:
    written = write_onnx(plan, tmp_path / "model.onnx")
    assert [path.name for path in written] == ["model.onnx", "model.step.onnx"]
    for path in written:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [OPSET] == [17]


def test_time_and_batch_are_dynamic(plan: Plan, tmp_path: Path) -> None:
    write_onnx(plan, tmp_path / "model.onnx")
    session = _session(tmp_path / "model.onnx")
    for steps, batch in ((1, 1), (7, 1), (3, 5)):
        frames = _frames(plan, steps, batch).astype(np.float32)
        (spikes,) = session.run(["spikes"], {"x": frames})
        assert spikes.shape == (steps, batch, 8)
        assert np.array_equal(spikes, Reference(plan).run_batch(frames))
        assert 0 < spikes.mean() < 1


def test_the_step_graph_carries_its_state_through_the_caller(plan: Plan, tmp_path: Path) -> None:
    write_onnx(plan, tmp_path / "model.onnx")
    session = _session(step_path(tmp_path / "model.onnx"))
    inputs = session.get_inputs()
    assert inputs[0].name == "x"
    assert [i.name for i in inputs[1:]] == ["n02_lif.v", "n05_lif.v", "n09_lif.v", "n11_lif.v"]
    frames = _frames(plan, 6, 2).astype(np.float32)
    expected = Reference(plan).run_batch(frames)
    names = [value.name for value in session.get_outputs()]
    assert names == ["spikes", *(f"{i.name}_next" for i in inputs[1:])]
    states = [np.zeros((2, *i.shape[1:]), np.float32) for i in inputs[1:]]
    for frame, spikes in zip(frames, expected, strict=True):
        feed = dict(zip([i.name for i in inputs], [frame, *states], strict=True))
        got, *states = session.run(names, feed)
        assert np.array_equal(got, spikes)


def test_a_lif_is_six_operations(plan: Plan) -> None:
    graph = step_model(plan).graph
    own = [node.op_type for node in graph.node if node.output[0].startswith("n02_lif.")]
    assert own == ["Mul", "Sum", "GreaterOrEqual", "Cast", "Mul", "Sub"]


def test_the_metadata_goes_along(plan: Plan) -> None:
    properties = {entry.key: entry.value for entry in sequence_model(plan).metadata_props}
    assert plan.metadata is not None
    assert properties == {k: str(v) for k, v in plan.metadata.to_mapping().items()}


def test_a_model_read_out_by_membrane_gives_it(image_run: Any, tmp_path: Path) -> None:
    plan = plan_of(graph_of(read_checkpoint(image_run.path)), source="test")
    write_onnx(plan, tmp_path / "m.onnx")
    frames = np.random.default_rng(0).integers(-26, 180, (4, 3, 1, 28, 28)).astype(np.float32) / 64
    spikes, membrane = _session(tmp_path / "m.onnx").run(["spikes", "membrane"], {"x": frames})
    reference = Reference(plan)
    assert np.array_equal(spikes, reference.run_batch(frames))
    np.testing.assert_allclose(membrane[-1], reference.membrane, rtol=1e-5, atol=1e-5)


def _neurons(shape: tuple[int, ...], **values: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        key: (value * random.uniform(0.9, 1.1, shape)).astype(np.float32)
        for key, value in values.items()
    }


_HIDDEN = (4, 5, 5)
FOREIGN: dict[str, Any] = {
    "LIF with reset to a value": nir.LIF(
        **_neurons(_HIDDEN, tau=4e-4, r=1.3, v_leak=0.01, v_reset=-0.02, v_threshold=0.2)
    ),
    "IF": nir.IF(**_neurons(_HIDDEN, r=9e3, v_threshold=1.0, v_reset=0.0)),
    "CubaLIF": nir.CubaLIF(
        **_neurons(
            _HIDDEN, tau_syn=3e-4, tau_mem=5e-4, r=1.2, v_leak=0.0, v_reset=0.0, v_threshold=0.2,
            w_in=2.0,
        )
    ),
    "Threshold": nir.Threshold(**_neurons(_HIDDEN, threshold=0.3)),
    "LI": nir.LI(**_neurons(_HIDDEN, tau=4e-4, r=1.0, v_leak=0.0)),
    "I": nir.I(**_neurons(_HIDDEN, r=5e3)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("pool", [nir.SumPool2d, nir.AvgPool2d])
@pytest.mark.parametrize("size", [2, 3])
def test_every_node_of_a_plan_has_an_onnx_form(
    name: str, pool: Any, size: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    window = np.array([size, size])
    after = (5 + 2 - size) // 2 + 1
    nodes = {
        "a_input": nir.Input({"input": np.array([3, 9, 9])}),
        "b_scale": nir.Scale(scale=random.uniform(0.5, 1.5, (3, 9, 9)).astype(np.float32)),
        "c_conv": nir.Conv2d(
            (9, 9), random.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32), (2, 2), (1, 1), (1, 1),
            1, random.normal(0, 0.1, 4).astype(np.float32),
        ),
        "d_neuron": FOREIGN[name],
        "e_pool": pool(window, np.array([2, 2]), np.array([1, 1])),
        "f_flatten": nir.Flatten({"input": np.array([4, after, after])}, 0, -1),
        "g_linear": nir.Linear(random.normal(0, 0.5, (6, 4 * after**2)).astype(np.float32)),
        "h_lif": nir.LIF(
            **_neurons((6,), tau=4e-4, r=1.0, v_leak=0.0, v_reset=0.0, v_threshold=0.1)
        ),
        "i_output": nir.Output({"output": np.array([6])}),
    }  # fmt: skip
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    nir.write(tmp_path / "foreign.nir", graph)
    from mpsl_runtime.model.graph import load_plan

    plan = load_plan(tmp_path / "foreign.nir", dt_s=1e-4)
    write_onnx(plan, tmp_path / "foreign.onnx")
    frames = _frames(plan, 8, 2).astype(np.float32)
    (spikes,) = _session(tmp_path / "foreign.onnx").run(["spikes"], {"x": frames})
    expected = Reference(plan).run_batch(frames)
    assert np.array_equal(spikes, expected)
    assert 0.02 < expected.mean() < 0.98


def test_a_last_layer_that_does_not_fire_gives_its_membrane(tmp_path: Path) -> None:
    nodes = {
        "a_input": nir.Input({"input": np.array([5])}),
        "b_linear": nir.Linear(np.ones((3, 5), np.float32)),
        "c_li": nir.LI(**_neurons((3,), tau=4e-4, r=1.0, v_leak=0.0)),
        "d_output": nir.Output({"output": np.array([3])}),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)))
    plan = plan_of(graph, source="test", dt_s=1e-4)
    write_onnx(plan, tmp_path / "m.onnx")
    frames = np.ones((4, 2, 5), np.float32)
    (membrane,) = _session(tmp_path / "m.onnx").run(["membrane"], {"x": frames})
    np.testing.assert_allclose(membrane, Reference(plan).run_batch(frames), rtol=1e-6)


def test_a_node_without_an_onnx_form_is_refused_by_name(plan: Plan) -> None:
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Dropout:
        name: str
        input_shape: tuple[int, ...]
        output_shape: tuple[int, ...]
        sources: tuple[()] = ()

    seen = plan.nodes[-2].output_shape
    none = Dropout("n13_dropout", seen, seen)
    strange = replace(plan, nodes=(*plan.nodes[:-1], none, plan.nodes[-1]))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"Dropout.*n13_dropout"):
        step_model(strange)


def test_a_folder_that_is_not_there_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_onnx(plan, tmp_path / "absent" / "m.onnx")


@pytest.mark.parametrize("batch", [1, 5])
def test_a_fixed_batch_fixes_every_shape_of_the_step_graph(
    batch: int, event_run: Any, copied: Any, mpsl: Any
) -> None:
    """And it is verified as any other, whatever the number of samples."""
    run = copied(event_run)
    code, _, err = mpsl("export", run.path, "--format", "onnx", "--batch", batch)
    assert code == 0, err
    step = onnx.load(run.path / "model.step.onnx")
    assert open_shapes(step) == []
    assert open_shapes(step_model(plan_of(graph_of(read_checkpoint(run.path)), source="t"))) != []
    assert step.graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    assert "Scan" not in {node.op_type for node in step.graph.node}
    code, out, err = mpsl("verify", run.path, "--data", run.data)
    assert code == 0, out + err
    code, _, err = mpsl("export", run.path, "--format", "nir", "--batch", batch)
    assert code == 2
    assert "format nir has no batch" in err


@pytest.mark.parametrize("seed", range(6))
def test_branches_loops_and_delays_have_fixed_shapes_too(seed: int) -> None:
    graph, _ = grown(seed)
    assert open_shapes(step_model(plan_of(graph, source="test", dt_s=DT_S), batch=1)) == []
