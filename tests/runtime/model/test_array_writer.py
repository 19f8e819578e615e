"""Arrays in HDF5: small where that costs no time, and the same to every reader."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.tree import read_tree
from mpsl_runtime.model.array_writer import write_array


@pytest.mark.parametrize(
    "shape", [(130, 33, 3, 3), (3, 40_000), (2, 2, 150, 200), (1, 70_000), (4096,)]
)
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<i8"])
def test_numbers_on_a_grid_take_about_half_and_every_reader_gets_them(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    """Chunks of mixed blocks are still HDF5's own gzip and shuffle: h5py must not see a difference,
    at the edges of an array either."""
    random = np.random.default_rng(0)
    array = random.integers(-127, 128, shape).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_array(file, "a", array)
        assert (file["a"].compression, file["a"].shuffle) == ("gzip", True)
        assert file["a"].id.get_storage_size() < 0.7 * array.nbytes
    with h5py.File(tmp_path / "a.h5") as file:
        found = file["a"][()]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    tree = read_tree(tmp_path / "a.h5", error=ModelError, noun="model file")
    assert np.array_equal(np.asarray(tree["a"]), array)


def test_the_same_array_gives_the_same_bytes(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-127, 128, (9, 40_000)).astype(np.float32)
    for name, order in (("a", "C"), ("b", "F")):
        with h5py.File(tmp_path / name, "w") as file:
            write_array(file, "x", np.asarray(array, order=order))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_few_numbers_text_and_noise_are_not_compressed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(64, 999)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in (
            ("few", np.zeros(1000, np.float32)),
            ("one", np.array(1.5)),
            ("none", np.zeros((0, 3), np.float32)),
            ("noise", noise),
        ):
            write_array(file, name, array)
            assert file[name].compression is None
            assert np.array_equal(file[name][()], array)
        write_array(file, "names", np.array([["a", "b"]] * 3000, h5py.string_dtype()))
        assert file["names"].compression is None
