"""Every model of events runs recordings of any camera with `--fit`, and every event is counted.

Here each model runs one recording of our own, and one model each recording of real cameras. All
models on all of them take a minute or two: MPSL_ALL_CAMERAS=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mpsl_runtime.data.layouts.gestures import has_labels
from mpsl_runtime.events.readers import read_chunks
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.opening import load
from mpsl_runtime.zoo import find_model

ROOT = Path(__file__).resolve().parents[2]
CAMERAS = [
    "aedat2/cam298_left_clamp_test1_alex.aedat", "aedat2/mnist_0_scale04_0002.aedat",
    "aedat2/mnist_0_scale04_0003.aedat", "aedat2/mnist_0_scale04_0004.aedat",
    "aedat2/mnist_0_scale04_0005.aedat", "aedat2/neal_walking.aedat",
    "aedat3/aedat3_for_testing.aedat", "aedat4/sample.aedat4", "dat/ncars.dat", "es/dvs.es",
    "evt2/street_gen3.raw", "evt3/street_gen41.raw",
]  # fmt: skip


def of_events() -> list[str]:
    """The models of the zoo that take events."""
    found = []
    for path in sorted((ROOT / "models").glob("*/model.nir")):
        metadata = load_plan(path).metadata
        if metadata is not None and metadata.input_kind == "events":
            found.append(path.parent.name)
    return found


MODELS = of_events()
SAMPLE = [("nmnist8-small", camera) for camera in CAMERAS]
PAIRS = [(model, camera) for model in MODELS for camera in CAMERAS]


def count_of(path: Path) -> int:
    with read_chunks(path, on_trouble=lambda _: None) as pieces:
        return sum(map(len, pieces))


def assert_runs(model: Model, path: Path) -> None:
    feed = model.feed([path], fit=True, say=lambda _: None)
    summary = model.stream(feed).run()
    counted = summary.events + summary.idle + summary.truncated + summary.dropped
    counted += sum(summary.left_out.values())
    whole = count_of(path)
    # Labels beside a recording name stretches of it; what lies between them is nobody's sample.
    assert 0 < counted <= whole if has_labels(path) else counted == whole
    assert summary.samples >= 1
    assert summary.steps > 0


def test_there_are_models_of_events() -> None:
    assert len(MODELS) >= 8
    assert "nmnist8-small" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_runs_a_recording_of_another_camera(name: str, recordings_folder: Path) -> None:
    assert_runs(load(find_model(name), fit=True), recordings_folder / "gesture.es")


@pytest.mark.parametrize(
    ("name", "camera"), PAIRS if os.environ.get("MPSL_ALL_CAMERAS") else SAMPLE
)
def test_a_model_runs_real_cameras(name: str, camera: str, shared_data: Path) -> None:
    path = shared_data / "events" / camera
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert_runs(load(find_model(name), fit=True), path)


def test_every_real_recording_is_among_them(shared_data: Path) -> None:
    there = {
        str(path.relative_to(shared_data / "events"))
        for path in (shared_data / "events").rglob("*")
        if path.is_file() and path.suffix != ".csv"
    }
    assert there <= set(CAMERAS)
