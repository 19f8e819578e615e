"""Where data sets come from: one file each, as CONTRIBUTING says."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsl_runtime.data.catalogue import DATASETS
from mpsl_runtime.errors import DataError
from mpsl_train.data import sources
from mpsl_train.data.download import fetch
from mpsl_train.data.sources import Download, Simulation, source, source_of

GUIDE = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"


@pytest.fixture
def example() -> str:
    """The file of a source that CONTRIBUTING shows."""
    section = GUIDE.read_text(encoding="utf-8").split("\n## A data set\n")[1].split("\n## ")[0]
    found = re.findall(r"```python\n(# mpsl_train/data/sources/.*?)```", section, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`added(text)`: one more file in the folder of the sources."""
    assert source_of("mnist") is not None  # all have registered
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    monkeypatch.setattr(source, "_SOURCES", dict(source._SOURCES))

    def write(text: str) -> None:
        name = re.match(r"# mpsl_train/data/sources/(\w+)\.py\n", text)
        assert name is not None
        (folder / f"{name[1]}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"mpsl_train.data.sources.{name[1]}", raising=False)

    return write


def test_a_download_is_one_file(
    example: str, added: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_of("hand-images") is None
    added(example)
    found = source_of("hand-images")
    assert isinstance(found, Download)
    assert [file.name for file in found.files()] == ["train.npz", "test.npz"]
    root = tmp_path / "hand-images"
    root.mkdir()
    (root / "train.npz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"file of data set hand-images has other content"):
        fetch("hand-images", root)
    digest = hashlib.sha256(b"something else").hexdigest()
    added(example.replace("0123…", digest).replace("4567…", digest))
    fresh = source_of("hand-images")
    assert isinstance(fresh, Download)
    (root / "test.npz").write_bytes(b"something else")
    fetch("hand-images", root)  # all there: nobody is asked


def test_every_source_is_of_a_data_set_and_stands_once() -> None:
    found = {name: source_of(name) for name in DATASETS}
    assert found["nmnist8"] is None
    kinds = {name: made.kind for name, made in found.items() if made is not None}
    assert kinds == {
        "mnist": "download", "fashion-mnist": "download", "cifar10": "download",
        "nmnist": "download", "dvs-gesture": "download", "dvs-digits": "simulation",
        "dvs-gesture-made": "simulation",
    }  # fmt: skip
    assert set(source._SOURCES) == set(kinds)
    assert isinstance(found["dvs-digits"], Simulation)
    for made in found.values():
        if isinstance(made, Download):
            urls = [url for file in made.files() for url in file.urls]
            assert len(set(urls)) == len(urls) >= len(made.files()) > 0
