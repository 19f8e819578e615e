"""What CONTRIBUTING says of adding a data set: its own code, run in a temporary folder."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.data import datasets, layouts
from mpsl_runtime.data.catalogue import DATASETS, DatasetFacts, facts_of
from mpsl_runtime.data.layouts import layout, layout_of
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata

GUIDE = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"
Mpsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def examples() -> list[str]:
    """The Python of the section: an entry, a layout, the layout's entry."""
    if not GUIDE.is_file():
        pytest.skip("not in a checkout")
    section = GUIDE.read_text(encoding="utf-8").split("\n## A data set\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], DatasetFacts]:
    """`added(entry)`: the catalogue with one more entry, given as its text."""

    def add(entry: str) -> DatasetFacts:
        path = tmp_path / "entry.py"
        text = f"from mpsl_runtime.data.catalogue import DatasetFacts\n\nNEW = {entry}"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("entry", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        facts: DatasetFacts = module.NEW
        monkeypatch.setitem(DATASETS, facts.name, facts)
        return facts

    return add


@pytest.fixture
def layout_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`layout_file(text)`: one more file in the folder of the layouts."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    for facts in DATASETS.values():
        layout_of(facts.layout)  # those that are there have registered before the copy is made
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(folder)])
    monkeypatch.setattr(layout, "_LAYOUTS", dict(layout._LAYOUTS))

    def write(text: str) -> None:
        name = re.match(r"# mpsl_runtime/data/layouts/(\w+)\.py\n", text)
        assert name is not None
        (folder / f"{name[1]}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"mpsl_runtime.data.layouts.{name[1]}", raising=False)

    return write


def test_a_data_set_of_a_known_layout_is_one_entry(
    examples: list[str],
    added: Callable[[str], DatasetFacts],
    labelled_folder: Path,
    write_model: Callable[..., Path],
    mpsl: Mpsl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = added(examples[0])
    for label, name in enumerate(facts.class_names):
        (labelled_folder / "Test" / str(label)).rename(labelled_folder / "Test" / name)
    monkeypatch.setenv("MPSL_DATA", str(labelled_folder.parent))
    place = labelled_folder.rename(labelled_folder.parent / facts.name)
    assert datasets.find(facts.name) == place
    split = datasets.open_split(facts.name, place, "test")
    assert split.ids[:3] == ["rock/00000.bin", "rock/00001.bin", "paper/00000.bin"]
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    path = write_model(dataset=facts.name, classes=",".join(facts.class_names))
    code, out, _ = mpsl("run", path, place, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["summary"]["samples"] == 6
    assert mpsl("bench", path, "--rounds", "1")[1].count("test samples of rock-paper-scissors") == 1


def test_a_data_set_of_another_layout_is_one_file_and_one_entry(
    examples: list[str],
    added: Callable[[str], DatasetFacts],
    layout_file: Callable[[str], None],
    make_metadata: Callable[..., ModelMetadata],
    tmp_path: Path,
) -> None:
    layout_file(examples[1])
    facts = added(examples[2])
    root = tmp_path / facts.name
    root.mkdir()
    with pytest.raises(DataError, match="hand-images is not there; put train"):
        datasets.find(facts.name, root)
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        images = random.integers(0, 256, (6, 1, 28, 28), np.uint8)
        np.savez(root / f"{split}.npz", images=images, labels=np.arange(6) % 3)
    assert datasets.find(facts.name, tmp_path) == root
    test = datasets.open_split(facts.name, root, "test")
    assert (len(test), test.ids[4], test.labels.tolist()) == (6, "00004", [0, 1, 2, 0, 1, 2])
    assert np.array_equal(test.images(), images)
    frames = test.input(3, make_metadata(input_kind="image", steps=4))
    assert np.array_equal(frames[2], images[3].astype(np.float32) / 256)
    assert len(datasets.content_hash(test)) == 64


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged or truncated file"),
        (lambda path: np.savez(path, images=np.zeros((2, 1, 28, 28), np.uint8)), "damaged"),
        (lambda path: np.savez(path, images=np.zeros((2, 28)), labels=[0, 1]), "not images"),
        (
            lambda path: np.savez(
                path, images=np.zeros((2, 1, 28, 28), np.uint8), labels=np.array([0, 3])
            ),
            "not a class for each image",
        ),
        (
            lambda path: np.savez(
                path, images=np.zeros((2, 1, 20, 28), np.uint8), labels=np.array([0, 1])
            ),
            "images have another shape",
        ),
    ],
    ids=["cut", "no labels", "no images", "no class", "another shape"],
)
def test_the_layout_of_the_guide_refuses_what_is_damaged(
    examples: list[str],
    added: Callable[[str], DatasetFacts],
    layout_file: Callable[[str], None],
    tmp_path: Path,
    damage: Callable[[Path], object],
    what: str,
) -> None:
    layout_file(examples[1])
    name = added(examples[2]).name
    path = tmp_path / "test.npz"
    np.savez(path, images=np.zeros((2, 1, 28, 28), np.uint8), labels=np.array([0, 1]))
    damage(path)
    with pytest.raises(DataError, match=what) as caught:
        datasets.open_split(name, tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_the_table_of_layouts_in_the_guide_is_that_of_the_code(examples: list[str]) -> None:
    named = set(re.findall(r'^\| `"(\w+)"`', GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {facts.layout for facts in DATASETS.values()} - {"gestures-made"}


def test_a_layout_that_is_not_known_and_two_of_one_name_are_one_line() -> None:
    with pytest.raises(UsageError, match="unknown layout; got 'shoebox'; expected cifar, gestures"):
        layout_of("shoebox")
    with pytest.raises(UsageError, match="two layouts have one name; got 'idx'"):
        layouts.register("idx", layout_of("cifar"))
    with pytest.raises(UsageError, match="unknown data set; got 'mnits'; expected mnist"):
        facts_of("mnits")


def test_every_data_set_has_a_layout_that_says_no_to_an_empty_folder(tmp_path: Path) -> None:
    for facts in DATASETS.values():
        assert not layout_of(facts.layout).is_there(tmp_path, "test")
        assert datasets.look_for(facts.name, tmp_path) is None
