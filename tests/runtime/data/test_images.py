"""Images for a model: pictures, arrays, IDX, CIFAR-10, folders; and what is refused in one line."""

from __future__ import annotations

import gzip
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.data.images import Image, images_of
from mpsl_runtime.errors import DataError, MissingExtraError, UsageError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.plan import Plan

Pixels = np.ndarray[Any, Any]


def drawn(number: int, *shape: int) -> Pixels:
    """`number` images, uint8 [N, *shape]."""
    return np.random.default_rng(3).integers(0, 256, (number, *shape), np.uint8)


@pytest.fixture
def grey(write_model: Callable[..., Path]) -> Plan:
    """Of a model for 28x28 pixels of grey and three classes."""
    return load_plan(write_model(input_kind="image", dataset="mnist"))


@pytest.fixture
def colour(grey: Plan) -> Plan:
    """Only the shape of its input is looked at."""
    assert grey.metadata is not None
    metadata = replace(grey.metadata, dataset="cifar10")
    return replace(grey, input_shape=(3, 32, 32), metadata=metadata)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """`picture(pixels, name="a.png", mode=None)` → path."""
    images = pytest.importorskip("PIL.Image")

    def save(pixels: Pixels, name: str = "a.png", mode: str | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = images.fromarray(pixels)
        (made if mode is None else made.convert(mode)).save(path)
        return path

    return save


def the_one(source: str | Path | Pixels, plan: Plan) -> Image:
    (image,) = images_of(source, plan)
    return image


def refusal(source: str | Path | Pixels, plan: Plan) -> str:
    with pytest.raises(DataError) as caught:
        list(images_of(source, plan))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_idx(path: Path, values: Pixels) -> Path:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = head + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# ---- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".PNG"])
def test_a_grey_picture_is_its_pixels(
    grey: Plan, picture: Callable[..., Path], suffix: str
) -> None:
    (pixels,) = drawn(1, 28, 28)
    path = picture(pixels, f"a{suffix}")
    image = the_one(path, grey)
    assert (image.file, image.target) == (str(path), None)
    assert image.pixels.dtype == np.uint8
    assert np.array_equal(image.pixels, pixels[None])


def test_a_coloured_picture_is_red_green_and_blue_planes(
    colour: Plan, picture: Callable[..., Path]
) -> None:
    (pixels,) = drawn(1, 32, 32, 3)
    image = the_one(picture(pixels), colour)
    assert np.array_equal(image.pixels, pixels.transpose(2, 0, 1))
    few = picture(pixels // 128 * 255, "few.png", mode="P")
    assert the_one(few, colour).pixels.shape == (3, 32, 32)


def test_a_picture_of_black_and_white_is_grey(grey: Plan, picture: Callable[..., Path]) -> None:
    (pixels,) = drawn(1, 28, 28) // 128 * 255
    assert np.array_equal(the_one(picture(pixels, mode="1"), grey).pixels, pixels[None])


@pytest.mark.parametrize(
    ("shape", "mode", "what"),
    [
        ((28, 30), None, "got 30x28 pixels, grey; expected 28x28 pixels, grey"),
        ((28, 28, 3), None, "got 28x28 pixels, colour; expected 28x28 pixels, grey"),
        ((28, 28, 4), None, "got mode RGBA; expected 8 bits of grey"),
        ((28, 28), "I;16", "got mode I;16"),
        ((28, 28), "LA", "got mode LA"),
    ],
)
def test_a_picture_of_another_size_or_other_channels_is_one_line(
    grey: Plan, picture: Callable[..., Path], shape: tuple[int, ...], mode: str | None, what: str
) -> None:
    path = picture(drawn(1, *shape)[0], mode=mode)
    line = refusal(path, grey)
    assert what in line
    assert line.endswith(f"in {path}")


def test_a_damaged_picture_is_one_line(grey: Plan, picture: Callable[..., Path]) -> None:
    path = picture(drawn(1, 28, 28)[0])
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    for damaged in (b"", b"hello", content[:20], content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        assert "damaged picture, or none" in refusal(path, grey)


def test_a_picture_that_claims_to_be_huge_is_not_unpacked(grey: Plan, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    path = tmp_path / "huge.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", b"") + part(b"IEND", b"")
    )
    assert "damaged picture" in refusal(path, grey) or "20000x20000" in refusal(path, grey)


def test_without_pillow_pictures_are_a_missing_extra_and_arrays_are_not(
    grey: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mpsl-runtime\[images\]'"):
        images_of(tmp_path / "a.png", grey)
    assert the_one(np.zeros((28, 28), np.uint8), grey).file == "one image"


# ---- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28)])
def test_an_array_of_one_grey_image(grey: Plan, tmp_path: Path, shape: tuple[int, ...]) -> None:
    (pixels,) = drawn(1, *shape)
    np.save(tmp_path / "a.npy", pixels)
    image = the_one(tmp_path / "a.npy", grey)
    assert image.file == str(tmp_path / "a.npy")
    assert np.array_equal(image.pixels, pixels.reshape(1, 28, 28))


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28)])
def test_an_array_of_many_grey_images(grey: Plan, tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = drawn(3, *shape)
    np.save(tmp_path / "a.npy", pixels)
    images = list(images_of(str(tmp_path / "a.npy"), grey))
    assert [image.file for image in images] == [f"{tmp_path / 'a.npy'}[{i}]" for i in range(3)]
    assert np.array_equal([i.pixels for i in images], pixels.reshape(3, 1, 28, 28))


def test_coloured_arrays_have_their_channels_first_or_last(colour: Plan) -> None:
    pixels = drawn(2, 3, 32, 32)
    for array in (pixels, np.moveaxis(pixels, 1, 3)):
        assert np.array_equal([image.pixels for image in images_of(array, colour)], pixels)
        assert np.array_equal(the_one(array[0], colour).pixels, pixels[0])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((28, 28), np.float32),
        np.zeros((28, 27), np.uint8),
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((2, 2, 28, 28), np.uint8),
        np.zeros((1, 1, 1, 28, 28), np.uint8),
        np.zeros((), np.uint8),
        np.array(["x"]),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_an_array_of_another_shape_or_type_is_one_line(
    grey: Plan, tmp_path: Path, array: Pixels
) -> None:
    np.save(tmp_path / "a.npy", array)
    line = refusal(tmp_path / "a.npy", grey)
    assert f"array does not fit the model; got {array.dtype} {list(array.shape)}" in line
    assert "expected uint8 [N, 1, 28, 28]" in line


def test_a_damaged_array_and_one_of_objects_are_one_line(grey: Plan, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    assert "damaged file, or no array" in refusal(path, grey)
    np.save(path, drawn(2, 28, 28))
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[:100], content[:-1]):
        path.write_bytes(damaged)
        assert "damaged file, or no array" in refusal(path, grey)


# ---- IDX and CIFAR-10 ---------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_an_idx_file_is_labelled_where_its_labels_lie_beside(
    grey: Plan, tmp_path: Path, packed: str
) -> None:
    pixels = drawn(4, 28, 28)
    path = write_idx(tmp_path / f"t10k-images-idx3-ubyte{packed}", pixels)
    images = list(images_of(path, grey))
    assert [(image.file, image.target) for image in images][:2] == [
        ("00000", None),
        ("00001", None),
    ]
    assert np.array_equal([image.pixels[0] for image in images], pixels)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([2, 0, 1, 2], np.uint8))
    assert [image.target for image in images_of(path, grey)] == [2, 0, 1, 2]


def test_labels_that_do_not_fit_their_images_are_one_line(grey: Plan, tmp_path: Path) -> None:
    path = write_idx(tmp_path / "t10k-images-idx3-ubyte", drawn(2, 28, 28))
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    write_idx(labels, np.array([0], np.uint8))
    assert f"images and labels differ in number; got 1; expected 2; in {labels}" in refusal(
        path, grey
    )
    write_idx(labels, np.array([0, 3], np.uint8))
    assert "label is not a class; got 3; expected 0…2" in refusal(path, grey)


def test_an_idx_file_of_other_images_or_of_labels_is_one_line(
    grey: Plan, colour: Plan, tmp_path: Path
) -> None:
    path = write_idx(tmp_path / "t10k-images-idx3-ubyte", drawn(2, 20, 28))
    assert "got 28x20 pixels, grey; expected 28x28 pixels, grey" in refusal(path, grey)
    assert "expected 32x32 pixels, colour" in refusal(path, colour)
    labels = write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))
    assert "not an IDX file of bytes" in refusal(labels, grey)


def test_a_batch_of_cifar_is_labelled(colour: Plan, grey: Plan, tmp_path: Path) -> None:
    pixels = drawn(3, 3, 32, 32)
    records = [bytes([label]) + image.tobytes() for label, image in enumerate(pixels)]
    path = tmp_path / "test_batch.bin"
    path.write_bytes(b"".join(records))
    images = list(images_of(path, colour))
    assert [(image.file, image.target) for image in images] == [
        ("00000", 0), ("00001", 1), ("00002", 2),
    ]  # fmt: skip
    assert np.array_equal([image.pixels for image in images], pixels)
    path.write_bytes(b"".join(records)[:-1])
    assert "no whole number of records" in refusal(path, colour)
    assert "file holds no images" in refusal(path, grey)


# ---- folders ------------------------------------------------------------------------------------


def test_a_folder_of_the_models_data_set_gives_its_test_images(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    names = ",".join("0123456789")
    plan = replaced_classes(load_plan(write_model(input_kind="image", dataset="mnist")), names)
    for start, number in (("train", 5), ("t10k", 3)):
        (tmp_path / "mnist/raw").mkdir(parents=True, exist_ok=True)
        write_idx(tmp_path / f"mnist/raw/{start}-images-idx3-ubyte", drawn(number, 28, 28))
        labels = np.arange(number, dtype=np.uint8)
        write_idx(tmp_path / f"mnist/raw/{start}-labels-idx1-ubyte", labels)
    images = list(images_of(tmp_path / "mnist", plan))
    assert [(image.file, image.target) for image in images] == [
        ("00000", 0), ("00001", 1), ("00002", 2),
    ]  # fmt: skip


def replaced_classes(plan: Plan, classes: str) -> Plan:
    assert plan.metadata is not None
    return replace(plan, metadata=replace(plan.metadata, classes=classes))


def test_label_folders_of_pictures_and_their_zip_are_labelled(
    grey: Plan, picture: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = drawn(3, 28, 28)
    for label, image in enumerate(pixels):
        picture(image, f"set/Test/{label}/a.png")
    picture(pixels[0], "set/Train/0/other.png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "set"))
    for source in (tmp_path / "set", tmp_path / "set" / "Test", tmp_path / "set.zip"):
        images = list(images_of(source, grey))
        assert [(image.file, image.target) for image in images] == [
            ("0/a.png", 0), ("1/a.png", 1), ("2/a.png", 2),
        ]  # fmt: skip
        assert np.array_equal([image.pixels[0] for image in images], pixels)


def test_a_zip_of_one_split_and_a_stray_file_in_it(
    grey: Plan, picture: Callable[..., Path], tmp_path: Path
) -> None:
    path = picture(drawn(1, 28, 28)[0])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(path, "Train/2/a.png")
    assert [(i.file, i.target) for i in images_of(tmp_path / "set.zip", grey)] == [("2/a.png", 2)]
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        archive.writestr("Train/2/notes.txt", "x")
    line = refusal(tmp_path / "set.zip", grey)
    assert "file is not a labelled picture; got 2/notes.txt" in line


def test_a_folder_of_pictures_gives_each_by_name(
    grey: Plan, picture: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = drawn(3, 28, 28)
    paths = [picture(image, f"some/{name}.png") for name, image in zip("cab", pixels, strict=True)]
    (tmp_path / "some" / "notes.txt").write_text("x")
    images = list(images_of(tmp_path / "some", grey))
    assert [image.file for image in images] == [str(path) for path in sorted(paths)]
    assert np.array_equal(images[0].pixels[0], pixels[1])


def test_what_holds_no_images_is_one_line(grey: Plan, tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "absent.png", grey)
    (tmp_path / "empty").mkdir()
    assert "folder has no pictures" in refusal(tmp_path / "empty", grey)
    (tmp_path / "a.txt").write_text("x")
    assert "file holds no images; got a.txt; expected a picture (.png" in refusal(
        tmp_path / "a.txt", grey
    )


def test_a_model_of_events_takes_no_images(model_file: Path) -> None:
    with pytest.raises(UsageError, match="model takes no images; got input \\(2, 10, 12\\)"):
        images_of(np.zeros((28, 28), np.uint8), load_plan(model_file))
