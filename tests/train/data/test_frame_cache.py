"""The cache of binned samples: read again only if it is what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mpsl_runtime.data import datasets
from mpsl_train.data.frames import cache_folder, load_frames, metadata_of
from mpsl_train.recipe import load


def _zeros(path: Path) -> None:
    """A disk that lost its blocks: the same header, zeros after it."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + bytes(len(content) - start))


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _other(path: Path, frames: Callable[[np.ndarray], np.ndarray]) -> None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        said = file.metadata()
    save_file({"frames": frames(load_file(path)["frames"])}, path, said)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": _zeros,
    "one bit": _one_bit,
    "other shape": lambda path: _other(path, lambda f: f[1:].copy()),
    "other type": lambda path: _other(path, lambda f: f.astype(np.float32)),
    "other name": lambda path: save_file({"more": np.zeros(3)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_frames_are_cached_and_a_damaged_cache_is_made_anew(
    damage: str, small_data: Path, small_recipe: Path
) -> None:
    metadata = metadata_of(load(small_recipe))
    split = datasets.open_split("nmnist", datasets.find("nmnist", small_data), "train")
    content = datasets.content_hash(split)
    fresh = load_frames(split, metadata, content)
    assert fresh.dtype == np.uint8
    assert fresh.any()
    assert np.array_equal(fresh[7], split.input(7, metadata))
    (path,) = (cache_folder() / "frames").iterdir()
    written = path.read_bytes()
    assert np.array_equal(load_frames(split, metadata, content), fresh)
    DAMAGES[damage](path)
    assert path.read_bytes() != written
    again = load_frames(split, metadata, content)
    assert again.dtype == np.uint8
    assert np.array_equal(again, fresh)
    assert path.read_bytes() == written
    longer = metadata_of(load(small_recipe, ["data.step_us=50000"]))
    assert not np.array_equal(load_frames(split, longer, content), fresh)


def test_a_cache_that_cannot_be_written_only_costs_time(
    small_data: Path, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MPSL_CACHE", str(tmp_path / "file"))
    metadata = metadata_of(load(small_recipe))
    split = datasets.open_split("nmnist", datasets.find("nmnist", small_data), "test")
    frames = load_frames(split, metadata, datasets.content_hash(split))
    assert np.array_equal(frames[3], split.input(3, metadata))
