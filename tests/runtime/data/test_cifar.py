"""CIFAR-10's batches, unpacked or in the archive: refused when damaged, mislabelled, missing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.data.layouts import cifar
from mpsl_runtime.errors import DataError

NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
RECORDS = 10


def batch(seed: int) -> bytes:
    """Ten records, one of each class."""
    records = np.random.default_rng(seed).integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(RECORDS)
    return records.tobytes()


def batches(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        (root / name).write_bytes(batch(seed))
    return root


def packed(root: Path, prefix: str = "cifar-10-batches-bin/", names: list[str] = NAMES) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / cifar.ARCHIVE, "w:gz") as archive:
        for name in ["readme.html", *names]:
            content = b"text" if name not in NAMES else batch(NAMES.index(name))
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root


def test_folder_outer_folder_and_archive_hold_the_same_images(tmp_path: Path) -> None:
    inner = batches(tmp_path / "a" / "cifar10" / "cifar-10-batches-bin")
    archive = packed(tmp_path / "b" / "cifar10")
    assert datasets.find("cifar10", inner) == inner
    assert datasets.find("cifar10", inner.parent) == inner
    assert datasets.find("cifar10", inner.parent.parent) == inner
    assert datasets.find("cifar10", archive.parent) == archive
    for split, number in (("train", 50), ("test", 10)):
        one, other = (datasets.open_split("cifar10", root, split) for root in (inner, archive))
        assert len(one) == number
        assert datasets.content_hash(one) == datasets.content_hash(other)
    record = np.frombuffer(batch(2), np.uint8).reshape(RECORDS, 3073)[7]
    train = datasets.open_split("cifar10", inner, "train")
    assert train.ids[27] == "00027"
    assert train.labels[27] == 7
    # Red, green and blue planes, row by row.
    assert train.image(27)[1, 2, 3] == record[1 + 1024 + 2 * 32 + 3]
    assert np.array_equal(train.image(27).ravel(), record[1:])


def mislabelled(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[3 * 3073] = 10
    return bytes(changed)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d[:-1], "no whole number of records; got 30729 bytes"),
        (lambda d: d + b"x", "no whole number of records"),
        (lambda d: b"", "no whole number of records"),
        (lambda d: b"<html>not found</html>", "no whole number of records"),
        (lambda d: d[:-3073], "batches differ in size; truncated"),
        (mislabelled, "label of record 3 is not a class; got 10; expected 0…9"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_4.bin", "test_batch.bin"])
def test_a_damaged_batch_is_refused_and_named(
    tmp_path: Path, change: Callable[[bytes], bytes], what: str, name: str
) -> None:
    root = batches(tmp_path)
    (root / name).write_bytes(change((root / name).read_bytes()))
    split: Any = "test" if name.startswith("test") else "train"
    with pytest.raises(DataError, match=what) as caught:
        datasets.open_split("cifar10", root, split)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    root = batches(tmp_path / "folder")
    (root / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin of data set cifar10 is missing"):
        datasets.open_split("cifar10", datasets.find("cifar10", root), "train")
    assert len(datasets.open_split("cifar10", root, "test")) == RECORDS
    archive = packed(tmp_path / "archive", names=[*NAMES[:2], *NAMES[3:]])
    with pytest.raises(DataError, match=r"data_batch_3\.bin of data set cifar10 is missing"):
        datasets.open_split("cifar10", archive, "train")
    with pytest.raises(DataError, match=r"cifar10 is not there; put cifar-10-binary\.tar\.gz"):
        datasets.find("cifar10", tmp_path)


def test_a_batch_that_is_far_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "_LARGEST", 3073 * RECORDS - 1)
    for root in (batches(tmp_path / "folder"), packed(tmp_path / "archive")):
        with pytest.raises(DataError, match="batch is too large"):
            datasets.open_split("cifar10", root, "test")


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    whole = (packed(tmp_path / "whole") / cifar.ARCHIVE).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    harms = {"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b"", "flip": flipped}
    for name, content in harms.items():
        root = tmp_path / name
        root.mkdir()
        (root / cifar.ARCHIVE).write_bytes(content)
        with pytest.raises(DataError, match="damaged or truncated archive") as caught:
            datasets.open_split("cifar10", root, "test")
        assert "\n" not in str(caught.value)
    twice = packed(tmp_path / "twice", names=[*NAMES, "test_batch.bin"])
    with pytest.raises(DataError, match="there twice"):
        datasets.open_split("cifar10", twice, "test")


def test_members_of_an_archive_that_are_no_files_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / cifar.ARCHIVE, "w:gz") as archive:
        link = tarfile.TarInfo("x/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"test_batch\.bin of data set cifar10 is missing"):
        datasets.open_split("cifar10", tmp_path, "test")
