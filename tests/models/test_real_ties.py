"""Ties that real samples have in the zoo's models: programs differ there, and each is explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.verify.ties import Referee
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan

MODELS = Path(__file__).resolve().parents[2] / "models"


def _test_image(shared_data: Path, index: int) -> np.ndarray:
    """One test image of CIFAR-10, uint8 [C, H, W], out of the montages of 40 x 50 images."""
    image = pytest.importorskip("PIL.Image")
    number, place = divmod(index, 2000)
    montage = shared_data / "cifar10" / f"test_batch-{number}.webp"
    if not montage.is_file():
        pytest.skip("no montages of CIFAR-10")
    row, column = divmod(place, 50)
    pixels = np.asarray(image.open(montage))
    tile = pixels[32 * row : 32 * (row + 1), 32 * column : 32 * (column + 1)]
    return np.ascontiguousarray(tile.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("name", "index", "layer", "neuron"),
    [
        ("cifar10", 7048, "n08_lif", 12824),
        ("cifar10", 9067, "n02_lif", 4633),
        ("cifar10-small", 8966, "n02_lif", 5527),
    ],
)
def test_where_programs_differ_on_a_real_sample_one_neuron_is_the_cause(
    shared_data: Path, tmp_path: Path, name: str, index: int, layer: str, neuron: int
) -> None:
    path = MODELS / name / "model.nir"
    plan = load_plan(path)
    assert plan.metadata is not None
    write_onnx(plan, tmp_path / "model.onnx")
    current = datasets.image_current(_test_image(shared_data, index), plan.metadata)
    frames = np.broadcast_to(current, (plan.metadata.steps, *current.shape)).copy()
    referee = Referee(plan)
    outputs = {}
    for file, program in (
        (path, "reference"), (path, "engine"), (path, "torch"), (tmp_path / "model.onnx", "onnx"),
    ):  # fmt: skip
        backend = ExportedFile.at(file).open(program)
        outputs[program] = backend.run(frames[:, None]).spikes[:, 0]
        shown = referee.explain_program(str(index), frames, backend, outputs[program])
        searched = referee.explain_output(str(index), frames, program, outputs[program])
        for explanation in (shown, searched):
            assert explanation.wrong is None
            assert {tie.neuron for tie in explanation.ties} <= {neuron}
            assert {tie.layer for tie in explanation.ties} <= {layer}
    # With another processor none may differ; where they do, the cause above is the only one.
    values = list(outputs.values())
    if all(np.array_equal(values[0], other) for other in values[1:]):
        pytest.skip("no program differs here")
