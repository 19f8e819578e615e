"""The committed recordings hold what our makers still make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "recordings"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """`tests/recordings/make.py`."""
    spec = importlib.util.spec_from_file_location("make_recordings", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["digit", "gesture", "rows"])
def test_the_truth_is_what_the_makers_make_today(name: str, make: ModuleType) -> None:
    made = make.rows(make.digit()) if name == "rows" else getattr(make, name)()
    with np.load(FOLDER / "truth.npz") as truth:
        for column in "txyp":
            np.testing.assert_array_equal(made[column], truth[f"{name}_{column}"])


def test_the_files_that_need_no_other_program_come_out_the_same(
    make: ModuleType, tmp_path: Path
) -> None:
    hand, number = make.gesture(), make.digit()
    make.write_nmnist(tmp_path / "digit.bin", number)
    make.write_evt21(tmp_path / "rows-evt21.raw", make.rows(number))
    make.write_evt3(tmp_path / "rows-evt3.raw", make.rows(number))
    make.write_aedat2(tmp_path / "gesture-aedat2.aedat", hand)
    make.write_aedat31(tmp_path / "gesture-aedat31.aedat", hand)
    make.write_texts(tmp_path, hand)
    made = sorted(tmp_path.iterdir())
    assert len(made) == 7
    for path in made:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
