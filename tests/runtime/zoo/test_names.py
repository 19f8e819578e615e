"""A model by its name: where it is looked for, and what is said when it is nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mpsl_runtime
from mpsl_runtime.errors import ModelError
from mpsl_runtime.zoo import find_model, known_models, names

Mpsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def places(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Path]]:
    """`places("tiny", …)`: a model of that name in every place where names are looked for."""
    roots = {name: tmp_path / name for name in ("packaged", "checkout", "here/models", "own")}
    for root in roots.values():
        root.mkdir(parents=True)
    monkeypatch.setattr(names, "_PACKAGED", roots["packaged"])
    monkeypatch.setattr(names, "_CHECKOUT", roots["checkout"])
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MPSL_MODELS", raising=False)

    def put(name: str) -> dict[str, Path]:
        for place, root in roots.items():
            path = root / f"{name}.nir" if place == "packaged" else root / name / "model.nir"
            path.parent.mkdir(exist_ok=True)
            shutil.copy(model_file, path)
        return roots

    return put


def test_a_name_is_looked_for_in_one_place_after_the_other(
    places: Callable[..., dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = places("tiny")
    monkeypatch.setenv("MPSL_MODELS", str(roots["own"]))
    found = []
    for _ in range(4):
        found.append(find_model("tiny"))
        assert mpsl_runtime.load("tiny").class_names == ("0", "1", "2")
        found[-1].unlink()
    assert [path.resolve() for path in found] == [
        roots["own"] / "tiny/model.nir",
        roots["packaged"] / "tiny.nir",
        roots["checkout"] / "tiny/model.nir",
        roots["here/models"] / "tiny/model.nir",
    ]
    with pytest.raises(ModelError, match="no model of that name; got 'tiny'"):
        find_model("tiny")


def test_a_file_that_exists_goes_before_a_name(
    places: Callable[..., dict[str, Path]], model_file: Path
) -> None:
    places("tiny")
    shutil.copy(model_file, "tiny")
    assert find_model("tiny") == Path("tiny")
    # What looks like a path is one; whether it is there is the reader's matter.
    assert find_model("absent.nir") == Path("absent.nir")
    assert find_model("runs/tiny") == Path("runs/tiny")


def test_a_folder_of_that_name_is_meant_only_where_folders_are_read(
    places: Callable[..., dict[str, Path]],
) -> None:
    roots = places("tiny")
    Path("tiny").mkdir()
    assert find_model("tiny") == roots["packaged"] / "tiny.nir"
    assert find_model("tiny", folders=True) == Path("tiny")


def test_a_name_that_is_nowhere_is_one_line_with_the_nearest_or_all(
    places: Callable[..., dict[str, Path]], mpsl: Mpsl
) -> None:
    places("tiny")
    places("nmnist8-small")
    code, out, err = mpsl("run", "nmnist-smal", "a.bin")
    assert (code, out) == (2, "")
    assert err == (
        "mpsl: no such file and no model of that name; got 'nmnist-smal'; "
        "expected 'nmnist8-small'\n"
    )
    code, _, err = mpsl("inspect", "xyz")
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("expected a .nir file or one of nmnist8-small, tiny\n")


def test_run_inspect_and_bench_take_a_name(
    places: Callable[..., dict[str, Path]], mpsl: Mpsl, labelled_folder: Path
) -> None:
    places("tiny")
    assert mpsl("run", "tiny", labelled_folder, "--json")[0] == 0
    assert "n02_fc" in mpsl("inspect", "tiny")[1]
    assert mpsl("bench", "tiny", "--rounds", "1", "--json")[0] == 0


def test_the_models_of_the_checkout_are_known_by_their_folders() -> None:
    folder = Path(__file__).resolve().parents[3] / "models"
    if not folder.is_dir():
        pytest.skip("not in a checkout")
    published = {path.parent.name for path in folder.glob("*/model.nir")}
    assert published
    assert published <= set(known_models())
