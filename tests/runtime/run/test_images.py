"""Images through a network: the same decisions as by frames, each from rest; totals; refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.data import datasets
from mpsl_runtime.data.datasets import image_current
from mpsl_runtime.data.images import Image
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.opening import load

Pixels = np.ndarray[Any, Any]


@pytest.fixture(params=["native", "reference"])
def model(request: pytest.FixtureRequest, write_model: Callable[..., Path]) -> Model:
    """Of 28x28 pixels of grey, three classes, five steps."""
    path = write_model(input_kind="image", dataset="mnist", step_us=1, input_grid=1 / 256)
    return load(path, engine=request.param)


def drawn(number: int) -> Pixels:
    """So dark that the network fires now and then."""
    random = np.random.default_rng(5)
    pixels = random.integers(1, 256, (number, 1, 28, 28), np.uint8)
    return np.where(random.random(pixels.shape) < 0.04, pixels, 0).astype(np.uint8)


def predictions(items: Any) -> list[Prediction]:
    return [item for item in items if isinstance(item, Prediction)]


def test_an_image_is_the_same_current_in_every_step(model: Model) -> None:
    assert model.metadata is not None
    for pixels in drawn(4):
        *steps, prediction = model.stream(pixels)
        current = image_current(pixels, model.metadata)
        result = model.run(np.broadcast_to(current, (5, *current.shape)))
        assert all(isinstance(step, Step) for step in steps)
        assert [(step.step, step.t_us, step.events) for step in steps] == [
            (t, t, 0) for t in range(5)
        ]
        np.testing.assert_array_equal([step.spikes for step in steps], result.spikes)
        np.testing.assert_array_equal(prediction.scores, result.scores)
        assert 0 < result.spikes.sum() < result.spikes.size
        assert isinstance(prediction, Prediction)
        assert (prediction.label, prediction.trial) == (result.label, True)


def test_every_image_begins_at_rest(model: Model) -> None:
    images = drawn(3)
    together = predictions(model.stream(images))
    alone = [predictions(model.stream(image))[0] for image in images]
    assert [p.file for p in together] == [f"one image[{i}]" for i in range(3)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_black_image_is_answered_as_in_training(model: Model) -> None:
    (prediction,) = predictions(model.stream(np.zeros((28, 28), np.uint8)))
    assert prediction.label == int(np.argmax(prediction.scores))


def test_the_summary_of_images_has_no_time_and_no_events(model: Model) -> None:
    images = [Image(str(i), pixels, target) for i, (pixels, target) in
              enumerate(zip(drawn(3), (0, 1, None), strict=True))]  # fmt: skip
    stream = model.stream(images)
    items = list(stream)
    right = sum(p.label == p.target for p in predictions(items)[:2])
    summary = stream.summary
    assert (summary.steps, summary.samples, summary.events) == (15, 3, 0)
    assert (summary.real_time_factor, summary.accuracy) == (None, right / 2)
    synops = []
    for pixels in drawn(3):
        list(model.stream(pixels))
        synops.append(model.synops)
    assert summary.synops == sum(synops) > 0
    assert [item.target for item in items[:6]] == [0] * 6


def test_other_steps_than_the_models_are_run_where_asked_for(
    write_model: Callable[..., Path],
) -> None:
    model = load(write_model(input_kind="image", dataset="mnist"), steps=2)
    assert len(list(model.stream(drawn(1)[0]))) == 3


def test_an_early_answer_ends_an_image_early(model: Model) -> None:
    images = drawn(6)
    whole = list(model.stream(images))
    early = list(model.stream(images, rule=AnswerRule(early_margin=1.0)))
    assert 6 < len(early) < len(whole)
    assert len(predictions(early)) == 6


@pytest.mark.parametrize("policy", ["continuous", "sliding", "onset"])
def test_policies_of_streams_mean_nothing_for_images(model: Model, policy: str) -> None:
    with pytest.raises(UsageError, match="policy has no meaning for images"):
        model.stream(drawn(1), policy)


def test_what_is_no_image_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match=r"takes frames, not events.*expected images: a picture"):
        model.stream(Events.empty())
    with pytest.raises(UsageError, match="model takes images; got Events; expected Image"):
        list(model.stream([Events.empty()]))
    with pytest.raises(UsageError, match="takes frames, not events"):
        model.step(Events.empty())


def test_a_damaged_source_is_refused_before_anything_is_run(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        model.stream(tmp_path / "absent.npy")
    with pytest.raises(DataError, match="array does not fit"):
        model.stream(np.zeros((28, 27), np.uint8))


def test_the_stream_of_a_data_set_is_what_verification_runs(shared_data: Path) -> None:
    """`mpsl verify` gives the engine the frames of `Split.input`."""
    model = load("mnist-small")
    split = datasets.open_split("mnist", datasets.find("mnist", shared_data / "mnist"), "test")
    assert model.metadata is not None
    found = model.stream(split.images()[:50])
    for index, prediction in enumerate(predictions(found)):
        expected = model.run(split.input(index, model.metadata))
        np.testing.assert_array_equal(prediction.scores, expected.scores)
