"""Data sets: found wherever they may lie, the same zipped and unpacked, refused when damaged."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events import binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.model.metadata import ModelMetadata

Meta = Callable[..., ModelMetadata]


def recording(seed: int) -> Events:
    rng = np.random.default_rng(seed)
    return Events.from_columns(
        np.sort(rng.integers(0, 5000, 40)),
        rng.integers(0, 34, 40),
        rng.integers(0, 34, 40),
        rng.integers(0, 2, 40),
    )


def unpacked(root: Path, classes: str = "0123456789", split: str = "Test") -> Path:
    for label in classes:
        for number in range(2):
            path = root / split / label / f"{number:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nmnist_bin(path, recording(10 * int(label) + number))
    return root


def zipped(root: Path, into: Path, prefix: str = "Test/") -> Path:
    into.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(into / "test.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(prefix or "0/", b"") if prefix else None
        for path in sorted((root / "Test").rglob("*.bin"), reverse=True):
            archive.write(path, prefix + str(path.relative_to(root / "Test")))
    return into


def test_zips_and_folders_hold_the_same_samples_in_the_same_order(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "folder")
    places = [
        folder,
        zipped(folder, tmp_path / "zip"),
        zipped(folder, tmp_path / "bare", prefix=""),
        zipped(folder, tmp_path / "deep", prefix="NMNIST/Test/"),
    ]
    splits = [datasets.open_split("nmnist", place, "test") for place in places]
    for split in splits:
        assert split.ids == [f"{k}/{n:05d}.bin" for k in range(10) for n in range(2)]
        assert split.labels.tolist() == [k for k in range(10) for _ in range(2)]
        assert np.array_equal(split.events(7).t, recording(31).t)
    assert len({datasets.content_hash(split) for split in splits}) == 1


def test_the_content_hash_changes_with_a_byte_of_a_recording(tmp_path: Path) -> None:
    root = unpacked(tmp_path)
    before = datasets.content_hash(datasets.open_split("nmnist", root, "test"))
    path = root / "Test" / "3" / "00001.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert datasets.content_hash(datasets.open_split("nmnist", root, "test")) != before


def test_a_data_set_is_found_in_its_folder_its_parent_the_variable_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = unpacked(tmp_path / "data" / "nmnist" / "NMNIST")
    for given in (inner, inner.parent, inner.parent.parent):
        assert datasets.find("nmnist", given) == inner
    monkeypatch.setenv("MPSL_DATA", str(tmp_path / "data"))
    assert datasets.find("nmnist") == inner
    monkeypatch.delenv("MPSL_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match=r"nmnist is not there.*\.cache/mpsl/nmnist"):
        datasets.find("nmnist")
    cached = unpacked(tmp_path / "home" / ".cache" / "mpsl" / "nmnist")
    assert datasets.find("nmnist") == cached


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mpsl data make dvs-digits"):
        datasets.find("dvs-digits", tmp_path)
    with pytest.raises(DataError, match="no such data folder"):
        datasets.find("mnist", tmp_path / "absent")
    with pytest.raises(UsageError, match="unknown data set"):
        datasets.find("mnits", tmp_path)
    unpacked(tmp_path)
    with pytest.raises(DataError, match="no train files"):
        datasets.open_split("nmnist", tmp_path, "train")


def test_eight_classes_are_not_taken_for_ten_nor_ten_for_eight(tmp_path: Path) -> None:
    unpacked(tmp_path / "eight", "01234567")
    unpacked(tmp_path / "ten")
    with pytest.raises(DataError, match="lacks recordings of class 8, 9"):
        datasets.open_split("nmnist", tmp_path / "eight", "test")
    with pytest.raises(DataError, match="label is not a class; got '8'"):
        datasets.open_split("nmnist8", tmp_path / "ten", "test")


def test_a_stray_file_among_recordings_is_named(tmp_path: Path) -> None:
    unpacked(tmp_path)
    (tmp_path / "Test" / "3" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"not a labelled recording; got 3/notes\.txt"):
        datasets.open_split("nmnist", tmp_path, "test")


def test_a_truncated_recording_is_named_folder_or_zip(tmp_path: Path) -> None:
    root = unpacked(tmp_path / "folder")
    path = root / "Test" / "4" / "00001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    for place in (root, zipped(root, tmp_path / "zip")):
        split = datasets.open_split("nmnist", place, "test")
        with pytest.raises(DataError, match=r"not whole; got ends inside an event.*4/00001\.bin"):
            split.events(9)


def test_an_event_outside_the_sensor_names_the_recording(
    tmp_path: Path, make_metadata: Meta
) -> None:
    root = unpacked(tmp_path)
    write_nmnist_bin(root / "Test/0/00000.bin", Events.from_columns([0], [34], [0], [0]))
    with pytest.raises(DataError, match=r"outside the sensor; got x=34.*0/00000\.bin"):
        datasets.open_split("nmnist", root, "test").input(
            0, make_metadata(sensor_width=34, sensor_height=34, steps=4)
        )


def test_a_damaged_zip_is_one_line(tmp_path: Path) -> None:
    whole = zipped(unpacked(tmp_path / "folder"), tmp_path / "zip") / "test.zip"
    data = whole.read_bytes()
    for name, content in {"cut": data[: len(data) // 2], "text": b"hello", "empty": b""}.items():
        place = tmp_path / name
        place.mkdir()
        (place / "test.zip").write_bytes(content)
        with pytest.raises(DataError, match="damaged or truncated zip"):
            datasets.open_split("nmnist", place, "test")
    flipped = bytearray(data)
    flipped[60:90] = bytes(30)  # inside the first member
    whole.write_bytes(flipped)
    split = datasets.open_split("nmnist", whole.parent, "test")
    with pytest.raises(DataError, match="cannot be read"):
        datasets.content_hash(split)


def test_input_of_a_recording_is_its_binned_frames(tmp_path: Path, make_metadata: Meta) -> None:
    split = datasets.open_split("nmnist", unpacked(tmp_path), "test")
    metadata = make_metadata(sensor_width=34, sensor_height=34, steps=4)
    expected = binning.frames(recording(10), metadata.binning)
    assert expected.sum() > 0
    assert np.array_equal(split.input(2, metadata), expected)
    with pytest.raises(DataError, match="model and data set do not fit"):
        split.input(2, make_metadata(input_kind="image"))


def idx_files(root: Path, images: np.ndarray, labels: np.ndarray, packed: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for stem, array in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        data = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        data += array.astype(np.uint8).tobytes()
        path = root / (stem + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(data) if packed else data)
    return root


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 10


@pytest.mark.parametrize("packed", [True, False])
def test_idx_images_come_back_with_labels_and_a_channel(
    tmp_path: Path, packed: bool, make_metadata: Meta
) -> None:
    root = idx_files(tmp_path / "mnist", IMAGES, LABELS, packed)
    split = datasets.open_split("mnist", datasets.find("mnist", tmp_path), "test")
    assert root == datasets.find("mnist", root)
    assert split.ids[:2] == ["00000", "00001"]
    assert np.array_equal(split.images(), IMAGES[:, None])
    assert split.labels.tolist() == LABELS.tolist()
    current = split.input(3, make_metadata(input_kind="image", steps=6))
    assert current.shape == (6, 1, 28, 28)
    assert np.array_equal(current[5, 0], IMAGES[3].astype(np.float32) / 256)


def test_normalised_images_lie_on_a_grid_of_one_sixty_fourth(make_metadata: Meta) -> None:
    metadata = make_metadata(input_kind="image", image_mean="0.5,0.25", image_std="0.3,0.2")
    images = np.arange(512, dtype=np.int64).astype(np.uint8).reshape(1, 2, 16, 16)
    current = datasets.image_current(images, metadata)
    assert current.dtype == np.float32
    assert np.array_equal(current * 64, np.rint(current * 64))
    pixel = images[0, 1, 3, 4] / 255
    assert current[0, 1, 3, 4] == np.float32(round((pixel - 0.25) / 0.2 * 64) / 64)
    with pytest.raises(DataError, match="mean or std does not fit"):
        datasets.image_current(
            images, make_metadata(input_kind="image", image_mean="1,2,3", image_std="1")
        )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d[:-3], "damaged or truncated file"),
        (lambda d: b"hello", "not an IDX file"),
        (lambda d: gzip.compress(gzip.decompress(d)[:-1]), "differ in size"),
        (lambda d: gzip.compress(gzip.decompress(d) + b"x"), "differ in size"),
        (lambda d: gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "asks for too much"),
        (lambda d: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(d)[4:]), "not an IDX file"),
        (lambda d: b"", "not an IDX file"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, change: Any, what: str) -> None:
    root = idx_files(tmp_path, IMAGES, LABELS)
    path = root / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=what):
        datasets.open_split("mnist", root, "test")


def test_labels_must_be_classes_and_as_many_as_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label is not a class; got 11"):
        datasets.open_split("mnist", idx_files(tmp_path / "a", IMAGES, np.arange(12)), "test")
    with pytest.raises(DataError, match="differ in number"):
        datasets.open_split("mnist", idx_files(tmp_path / "b", IMAGES, LABELS[:11]), "test")
    with pytest.raises(DataError, match="another shape"):
        datasets.open_split("mnist", idx_files(tmp_path / "c", IMAGES[:, 1:], LABELS), "test")


@pytest.mark.parametrize(
    ("name", "number"),
    [("mnist", 10_000), ("fashion-mnist", 10_000), ("nmnist", 100), ("nmnist8", 600)],
)
def test_the_real_data_sets_open_under_their_parent_folder(
    shared_data: Path, name: str, number: int
) -> None:
    split = datasets.open_split(name, datasets.find(name, shared_data), "test")
    assert len(split) == number == len(set(split.ids))
    assert set(split.labels.tolist()) == set(range(len(split.class_names)))
