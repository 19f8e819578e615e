"""Changes of training samples: against loops, the same whoever draws them, refused where unfit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mpsl_runtime.errors import RecipeError, UsageError
from mpsl_train.data.augmentation import augment, check_augmentation, mixture
from mpsl_train.data.batches import BatchOrder, Samples
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.network import Output
from mpsl_train.recipe import Augmentation, Recipe, load
from mpsl_train.training.build import build
from mpsl_train.training.module import loss_of

BATCH = (5, 3, 2, 7)  # seed, the stream of batches, epoch, number


def _recipe(dataset: str, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "a", "network": "10", "data": {"dataset": dataset, "steps": 6, **data}}
    )


EVENTS, GREY = metadata_of(_recipe("nmnist", step_us=1000)), metadata_of(_recipe("fashion-mnist"))
COLOUR = metadata_of(_recipe("cifar10", image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.2]))


def _frames(*shape: int) -> Any:
    return np.random.default_rng(0).poisson(1.0, shape).astype(np.uint8)


def _images(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _draws(index: int, epoch: int = 2, seed: int = 5) -> Any:
    return np.random.default_rng([seed, 8, epoch, index]).random(10)


def _changed(frames: Any, metadata: Any, **how: Any) -> Any:
    """All samples of a batch whose indices in the split are 40, 41, …."""
    before = frames.copy()
    indices = np.arange(40, 40 + len(frames))
    out = augment(frames, Augmentation(**how), BATCH, indices, np.arange(len(frames)), metadata)
    assert np.array_equal(frames, before), "the samples in memory stay as they are"
    assert out.dtype == frames.dtype
    assert not np.array_equal(out, frames)
    return out


def test_cutout_blackens_a_square_around_a_pixel_anywhere() -> None:
    images = _images(9, 1, 12, 10) | 1
    out = _changed(images, GREY, cutout=5)
    for number, (one, image) in enumerate(zip(out, images, strict=True)):
        u = _draws(40 + number)
        row, column = int(u[3] * 12), int(u[4] * 10)
        for y in range(12):
            for x in range(10):
                inside = -2 <= y - row <= 2 and -2 <= x - column <= 2
                assert one[0, y, x] == (0 if inside else image[0, y, x])


def test_cutout_of_normalised_images_is_their_mean_colour() -> None:
    out = _changed(np.full((4, 3, 8, 8), 250, np.uint8), COLOUR, cutout=4)
    assert {tuple(pixel) for pixel in out.transpose(0, 2, 3, 1).reshape(-1, 3)} == {
        (250, 250, 250), (128, 102, 76),
    }  # fmt: skip


@pytest.mark.parametrize(("channels", "metadata"), [(1, GREY), (3, COLOUR)])
def test_colour_jitter_is_brightness_contrast_and_saturation(channels: int, metadata: Any) -> None:
    images = _images(5, channels, 6, 7)
    out = _changed(images, metadata, colour_jitter=0.4)
    weights = [0.299, 0.587, 0.114] if channels == 3 else [1.0]
    for number, (one, image) in enumerate(zip(out, images, strict=True)):
        b, c, s = (1 + 0.4 * (2 * u - 1) for u in _draws(40 + number)[:3])
        bright = image.astype(float) * b
        mean = sum(w * plane for w, plane in zip(weights, bright, strict=True)).mean()
        contrasted = bright * c + mean * (1 - c)
        grey = sum(w * plane for w, plane in zip(weights, contrasted, strict=True))
        saturated = contrasted * s + grey * (1 - s) if channels == 3 else contrasted
        assert np.abs(one - saturated.clip(0, 255)).max() <= 0.5 + 1e-9


def test_events_are_lost_one_by_one_with_a_probability_of_each_recording() -> None:
    frames = _frames(40, 6, 2, 34, 34)
    out = _changed(frames, EVENTS, drop=0.8)
    assert np.all(out <= frames)
    kept = out.sum((1, 2, 3, 4)) / frames.sum((1, 2, 3, 4))
    assert kept == pytest.approx([1 - 0.8 * _draws(40 + n)[9] for n in range(40)], abs=0.02)


def test_events_of_a_rectangle_are_lost_in_all_steps() -> None:
    frames = _frames(12, 3, 2, 20, 16) + 1
    out = _changed(frames, EVENTS, drop_area=0.6)
    for number, (one, frame) in enumerate(zip(out, frames, strict=True)):
        u = _draws(40 + number)
        height, width = round(u[6] * 0.6 * 20), round(u[6] * 0.6 * 16)
        top, left = int(u[7] * 20) - height // 2, int(u[8] * 16) - width // 2
        for y in range(20):
            for x in range(16):
                inside = top <= y < top + height and left <= x < left + width
                assert np.array_equal(one[..., y, x], frame[..., y, x] * (not inside))


def test_recordings_come_so_many_steps_later_or_earlier() -> None:
    frames = _frames(30, 6, 2, 4, 4) + 1
    out = _changed(frames, EVENTS, time_shift=2)
    seen = set()
    for number, (one, frame) in enumerate(zip(out, frames, strict=True)):
        by = int(_draws(40 + number)[5] * 5) - 2
        seen.add(by)
        for step in range(6):
            source = step - by
            expected = frame[source] if 0 <= source < 6 else np.zeros_like(frame[0])
            assert np.array_equal(one[step], expected)
    assert seen == {-2, -1, 0, 1, 2}


def test_mixup_mixes_pixels_and_labels_of_a_batch() -> None:
    images, labels = _images(8, 1, 28, 28), np.arange(8) % 10
    samples = Samples(images, labels, GREY, Augmentation(mixup=0.4))
    values, target = samples[BATCH, np.arange(8)]
    generator = np.random.default_rng([*BATCH, 1])
    share, partners = generator.beta(0.4, 0.4), generator.permutation(8)
    for number, partner in enumerate(partners):
        mixed = np.rint(share * images[number] + (1 - share) * images[partner].astype(float))
        assert np.array_equal(values[number].numpy() * 256, mixed)
        expected = np.zeros(10)
        expected[number] += share
        expected[partner] += 1 - share
        assert target[number].numpy() == pytest.approx(expected, abs=1e-6)
    assert mixture(0.4, BATCH, 8).share == share


@pytest.mark.parametrize("name", ["mse", "ce", "ce-membrane"])
def test_the_loss_of_a_mixed_sample_pulls_as_the_mixed_losses(name: str) -> None:
    spikes = torch.rand(4, 3, 5, dtype=torch.float64, requires_grad=True)
    membrane = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    output, one, other = Output(spikes, membrane), torch.tensor([0, 1, 2]), torch.tensor([3, 3, 2])
    target = 0.7 * F.one_hot(one, 5).double() + 0.3 * F.one_hot(other, 5).double()
    mixed = 0.7 * loss_of(name, output, one) + 0.3 * loss_of(name, output, other)
    asked = membrane if name == "ce-membrane" else spikes
    (expected,) = torch.autograd.grad(mixed, asked, retain_graph=True)
    (found,) = torch.autograd.grad(loss_of(name, output, target), asked)
    torch.testing.assert_close(found, expected)
    assert float(expected.abs().max()) > 0


ALL = {
    "events": {"shift": 2, "crop": 1, "drop": 0.5, "drop_area": 0.3, "time_shift": 2},
    "image": {"shift": 2, "flip": True, "cutout": 9, "colour_jitter": 0.3, "mixup": 1.0},
}


@pytest.mark.parametrize("kind", ["events", "image"])
def test_processes_and_resumed_runs_see_the_same_samples(kind: str) -> None:
    frames = _images(24, 1, 28, 28) if kind == "image" else _frames(24, 6, 2, 34, 34)
    metadata, how = GREY if kind == "image" else EVENTS, Augmentation(**ALL[kind])
    labels = np.arange(24) % 10
    order = BatchOrder(np.arange(24), 8, seed=5)
    order.set_epoch(3)
    whole = Samples(frames, labels, metadata, how)
    epoch = [whole[index] for index in order]
    again = BatchOrder(np.arange(24), 8, seed=5)
    again.set_epoch(3)
    shares = [Samples(frames, labels, metadata, how, (rank, 4)) for rank in range(4)]
    for index, (values, target) in zip(again, epoch, strict=True):
        parts = [share[index] for share in shares]
        assert torch.equal(torch.cat([part for part, _ in parts]), values)
        assert torch.equal(torch.cat([part for _, part in parts]), target)
    again.set_epoch(4)
    assert not torch.equal(next(iter([whole[index] for index in again]))[0], epoch[0][0])


def test_one_key_does_not_change_what_another_draws() -> None:
    images = _images(6, 1, 28, 28)
    alone = _changed(images, GREY, cutout=5) == 0
    both = _changed(images, GREY, cutout=5, colour_jitter=0.01)
    assert np.all(both[alone & (images > 0)] == 0)


@pytest.mark.parametrize(
    ("dataset", "how", "words"),
    [
        ("nmnist", {"cutout": 3}, "cutout is no change of events"),
        ("nmnist", {"mixup": 0.2}, "mixup is no change of events"),
        ("nmnist", {"colour_jitter": 0.2}, "colour_jitter is no change of events"),
        ("cifar10", {"drop": 0.2}, "drop is no change of images"),
        ("mnist", {"time_shift": 1}, "time_shift is no change of images"),
        ("mnist", {"flip": True}, "labels of mnist do not survive a flip"),
        ("dvs-gesture", {"flip": True}, "labels of dvs-gesture do not survive a flip"),
        ("cifar10", {"cutout": 32}, "cutout leaves nothing of a sample"),
        ("nmnist", {"time_shift": 6}, "time_shift leaves nothing of a sample"),
    ],
)
def test_a_change_that_does_not_suit_the_data_is_refused(
    dataset: str, how: dict[str, Any], words: str
) -> None:
    metadata = metadata_of(_recipe(dataset, **({"step_us": 1000} if "mni" not in dataset else {})))
    with pytest.raises(UsageError, match=words) as told:
        check_augmentation(Augmentation(**how), metadata, input_shape(metadata))
    assert f"augmentation.{next(iter(how))}" in str(told.value)


def test_what_suits_is_taken_and_mixed_labels_need_back_propagation(small_recipe: Path) -> None:
    for dataset, kind in (("fashion-mnist", "image"), ("cifar10", "image"), ("nmnist", "events")):
        metadata = metadata_of(_recipe(dataset))
        check_augmentation(Augmentation(**ALL[kind]), metadata, input_shape(metadata))
    choices = ["data.dataset=mnist", "method=sbp", "augmentation.mixup=0.2"]
    with pytest.raises(UsageError, match="mixed labels"):
        build(load(small_recipe, choices), (1, 28, 28), 10)
    with pytest.raises(RecipeError, match=r"augmentation\.drop"):
        load(small_recipe, ["augmentation.drop=1.5"])
