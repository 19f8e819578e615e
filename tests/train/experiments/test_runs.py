"""Run folders of strangers: read within limits, or refused in one line."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpsl_runtime.errors import MpslError
from mpsl_train.experiments.runs import load_run
from mpsl_train.recipe import load
from mpsl_train.training.training import train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_data: Path, recipe_text: str) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.toml").write_text(recipe_text, encoding="utf-8")
    recipe = load(folder / "small.toml", ["training.epochs=1", "network=4C3S2-BN-12FC-10"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_CACHE", str(folder / "cache"))
        train(recipe, folder / "run", data=small_data, device="cpu")
    return folder / "run"


def _banks(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        tensors = load_file(run / "banks.safetensors")
        change(tensors)
        save_file(tensors, run / "banks.safetensors")

    return write


def _header(header: object, rest: bytes = b"") -> Callable[[Path], object]:
    content = json.dumps(header).encode()
    whole = struct.pack("<Q", len(content)) + content + rest
    return lambda run: (run / "banks.safetensors").write_bytes(whole)


def _recipe(old: str, new: str) -> Callable[[Path], object]:
    def write(run: Path) -> None:
        text = (run / "recipe.toml").read_text("utf-8")
        assert old in text
        (run / "recipe.toml").write_text(text.replace(old, new), encoding="utf-8")

    return write


NAN = float("nan")
DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bank of doubles": _banks(lambda t: t.update({"L00.W1": t["L00.W1"].double()})),
    "a bank of whole numbers": _banks(lambda t: t.update({"L00.W1": t["L00.W1"].long()})),
    "a bank that is not finite": _banks(lambda t: t["L01.W2"].fill_(NAN)),
    "a variance that is not finite": _banks(lambda t: t["L00.bn.var"].fill_(float("inf"))),
    "a bank of another shape": _banks(lambda t: t.update({"L00.W1": torch.zeros(4, 2, 3, 4)})),
    "a bank too few": _banks(lambda t: t.pop("L00.W3")),
    "no file of banks": lambda run: (run / "banks.safetensors").unlink(),
    "half a file": lambda run: (run / "banks.safetensors").write_bytes(
        (run / "banks.safetensors").read_bytes()[:500]
    ),
    "a header without end": lambda run: (run / "banks.safetensors").write_bytes(b"\xff" * 100),
    "a tensor beyond the file": _header(
        {"L00.W1": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    ),
    "a type that is none": _header(
        {"L00.W1": {"dtype": "F4711", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "no recipe": lambda run: (run / "recipe.toml").unlink(),
    "a recipe of another data set": _recipe('dataset = "nmnist"', 'dataset = "absent"'),
    "a recipe of another network": _recipe("4C3S2-BN", "5C3S2-BN"),
    "a recipe of a huge network": _recipe("4C3S2-BN", "999999C99S2-BN"),
    "a recipe with a list for a number": _recipe("steps = 3", "steps = [3]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_was_changed_is_refused_in_one_line(
    damage: str, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert load_run(run).network.mechanisms == ("stbp", "hebbian", "sbp")
    DAMAGES[damage](run)
    with pytest.raises(MpslError) as caught:
        load_run(run)
    assert str(caught.value).isprintable()
