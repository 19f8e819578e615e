"""Branches, loops and delays in torch and in ONNX, step by step and as a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mpsl_export.verify.backends.torch_plan import TorchPlan
from mpsl_export.verify.backends.torch_step import TorchStep
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

from ...runtime.run.branching import DT_S, frames, grown  # noqa: TID252 - tests are no package

onnxruntime = pytest.importorskip("onnxruntime")
Array = NDArray[np.float32]


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def step_by_step(path: Path, given: Array) -> Array:
    """The step graph from states of 0."""
    running = session(path)
    states = {
        value.name: np.zeros((1, *value.shape[1:]), np.float32)
        for value in running.get_inputs()
        if value.name != "x"
    }
    names = [value.name for value in running.get_outputs()]
    outputs = []
    for frame in given:
        results = dict(zip(names, running.run(names, {"x": frame[None], **states}), strict=True))
        states = {name: results[f"{name}_next"] for name in states}
        outputs.append(results[names[0]].reshape(-1))
    return np.array(outputs)


@pytest.mark.parametrize("seed", range(24))
def test_every_program_gives_what_the_reference_gives(seed: int, tmp_path: Path) -> None:
    graph, _ = grown(seed)
    nir.write(str(tmp_path / "graph.nir"), graph)
    plan: Plan = load_plan(tmp_path / "graph.nir", dt_s=DT_S)
    given = frames(graph)
    expected = Reference(plan).run(given)
    torch_plan = TorchPlan(plan, torch.device("cpu"))
    spikes = [values.numpy().reshape(-1) for values, _ in torch_plan._steps(given[:, None])]
    np.testing.assert_allclose(spikes, expected, atol=1e-4)
    one = TorchStep(plan, 1)
    np.testing.assert_allclose([one.step(frame) for frame in given], expected, atol=1e-4)
    sequence, step = write_onnx(plan, tmp_path / "graph.onnx")
    results = session(sequence).run(None, {"x": given[:, None]})[0]
    np.testing.assert_allclose(results.reshape(len(given), -1), expected, atol=1e-4)
    np.testing.assert_allclose(step_by_step(step, given), expected, atol=1e-4)


def test_the_membrane_of_a_sequence_that_ends_in_weights_is_its_output(tmp_path: Path) -> None:
    graph = next(
        g for g, _ in map(grown, range(99)) if isinstance(g.nodes[before_output(g)], nir.Affine)
    )
    nir.write(str(tmp_path / "graph.nir"), graph)
    plan = load_plan(tmp_path / "graph.nir", dt_s=DT_S)
    given = frames(graph)
    reference = Reference(plan)
    expected = reference.run(given)
    np.testing.assert_array_equal(reference.membrane, expected[-1])
    outcome = TorchPlan(plan, torch.device("cpu")).run(given[:, None])
    assert outcome.membrane is not None
    np.testing.assert_allclose(outcome.membrane[0], expected[-1], atol=1e-4)


def before_output(graph: nir.NIRGraph) -> str:
    """The node before the Output, of several any one."""
    return next(tail for tail, head in graph.edges if head == "output")
