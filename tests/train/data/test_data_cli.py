"""`mpsl data list | check | make`, through the command line."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime import cli
from mpsl_runtime.data import datasets
from mpsl_train.data import dvs_digits
from mpsl_train.data.sources import Download, RemoteFile, source, source_of


def files_of(name: str) -> list[RemoteFile]:
    """What there is to download."""
    found = source_of(name)
    assert isinstance(found, Download)
    return list(found.files())


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data set of this machine is found, and none can be downloaded."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPSL_DATA", str(tmp_path / "data"))
    for name in ("mnist", "fashion-mnist", "cifar10"):
        files = [replace(file, urls=("http://127.0.0.1:9/",)) for file in files_of(name)]
        here = Download(name, lambda files=files: files, source_of(name).published)
        monkeypatch.setitem(source._SOURCES, name, here)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """dvs-digits with one sample a class and split."""
    whole = dvs_digits.make

    def make(root: Path, *, seed: int = 0) -> None:
        whole(root, seed=seed, progress=False, limit=1)

    monkeypatch.setattr(dvs_digits, "make", make)


class Says:
    """Runs a command line; keeps the exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(["data", *map(str, arguments)])
        assert isinstance(stop.value.code, int)
        return stop.value.code, *self.capsys.readouterr()

    def json(self, *arguments: object) -> Any:
        """The one document on stdout."""
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    def refused(self, *arguments: object) -> str:
        """The one line on stderr of a command that exits with 2."""
        code, out, err = self(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("mpsl: ")
        return err


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """The command line."""
    return Says(capsys)


def test_list_names_every_data_set_and_what_it_needs(says: Says) -> None:
    document = says.json("list")
    assert [row["name"] for row in document["datasets"]] == list(datasets.DATASETS)
    assert all(row["found"] is None and row["needs"] for row in document["datasets"])
    made_by = {row["name"]: row["made_by"] for row in document["datasets"]}
    assert made_by["dvs-digits"] == "simulation"
    assert made_by["mnist"] == made_by["nmnist"] == "download"
    assert made_by["nmnist8"] is None


def test_list_shows_where_a_data_set_was_found(
    says: Says, small: None, empty_home: Path, tmp_path: Path
) -> None:
    assert says("make", "dvs-digits")[0] == 0
    for arguments in ([], ["--data", empty_home]):
        code, out, _ = says("list", *arguments)
        assert code == 0
        lines = [line for line in out.splitlines() if line.startswith("dvs-digits")]
        assert len(lines) == 1
        assert lines[0].endswith(str(empty_home / "dvs-digits"))
    # Another set's folder of events is not taken for this one.
    rows = says.json("list", "--data", empty_home)["datasets"]
    assert [row["name"] for row in rows if row["found"]] == ["dvs-digits"]


def test_made_data_passes_the_check(says: Says, small: None, tmp_path: Path) -> None:
    root = tmp_path / "some" / "place"
    assert says.json("make", "dvs-digits", "--data", root) == {
        "dataset": "dvs-digits",
        "root": str(root),
    }
    document = says.json("check", "dvs-digits", "--data", root)
    for split in ("train", "test"):
        row = document["splits"][split]
        assert row["samples"] == 10
        assert row["classes"] == {str(digit): 1 for digit in range(10)}
        opened = datasets.open_split("dvs-digits", root, split)
        assert row["hash"] == datasets.content_hash(opened)
        counts = [len(opened.events(index)) for index in range(10)]
        assert (row["events"]["min"], row["events"]["max"]) == (min(counts), max(counts))
    code, out, _ = says("check", "dvs-digits", "--data", root)
    assert code == 0
    assert document["splits"]["test"]["hash"] in out


def test_make_twice_makes_it_once(says: Says, small: None, tmp_path: Path) -> None:
    for _ in range(2):
        assert says("make", "dvs-digits", "--data", tmp_path / "dvs-digits")[0] == 0
    assert {path.name for path in (tmp_path / "dvs-digits").iterdir()} == {
        "Test",
        "Train",
        "dvs-digits.json",
    }


def test_make_puts_a_data_set_beside_others(says: Says, small: None, tmp_path: Path) -> None:
    (tmp_path / "all" / "mnist").mkdir(parents=True)
    document = says.json("make", "dvs-digits", "--data", tmp_path / "all")
    assert document["root"] == str(tmp_path / "all" / "dvs-digits")
    assert says.json("check", "dvs-digits", "--data", tmp_path / "all")["root"] == document["root"]


def test_make_with_another_seed_does_not_pass_for_the_same(
    says: Says, small: None, tmp_path: Path
) -> None:
    assert says("make", "dvs-digits", "--data", tmp_path / "d", "--seed", 3)[0] == 0
    assert "made otherwise" in says.refused("make", "dvs-digits", "--data", tmp_path / "d")


def test_a_truncated_recording_is_named(says: Says, small: None, tmp_path: Path) -> None:
    says("make", "dvs-digits", "--data", tmp_path / "d")
    path = next((tmp_path / "d" / "Test" / "3").iterdir())
    path.write_bytes(path.read_bytes()[:-2])
    line = says.refused("check", "dvs-digits", "--data", tmp_path / "d")
    assert "truncated" in line
    assert f"3/{path.name}" in line


def test_an_event_outside_the_sensor_is_named(says: Says, small: None, tmp_path: Path) -> None:
    says("make", "dvs-digits", "--data", tmp_path / "d")
    path = next((tmp_path / "d" / "Train" / "7").iterdir())
    path.write_bytes(bytes((40, 0, 0, 0, 1)) + path.read_bytes()[5:])
    line = says.refused("check", "dvs-digits", "--data", tmp_path / "d")
    assert "outside the sensor" in line
    assert f"7/{path.name}" in line


def test_what_is_absent_is_told_with_what_to_do(says: Says, tmp_path: Path) -> None:
    assert "mpsl data make dvs-digits" in says.refused("check", "dvs-digits")
    assert "no such data folder" in says.refused("check", "nmnist", "--data", tmp_path / "absent")
    assert "unknown data set" in says.refused("check", "mnits")
    assert "unknown data set" in says.refused("make", "mnits")
    assert "neither made nor downloaded" in says.refused("make", "nmnist8")
    assert "has no seed" in says.refused("make", "mnist", "--seed", "1")


def test_a_download_without_a_network_leaves_nothing(says: Says, empty_home: Path) -> None:
    line = says.refused("make", "mnist")
    assert "no connection" in line
    assert str(empty_home / "mnist") in line
    assert list(empty_home.iterdir()) == []


def test_real_images_are_known_as_published(says: Says, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for file in files_of("mnist"):
        (tmp_path / "mnist" / file.name).symlink_to(shared_data / "mnist" / file.name)
    document = says.json("check", "mnist", "--data", tmp_path)
    assert document["published"] is True
    assert document["splits"]["train"]["samples"] == 60_000
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[-1] ^= 1
    labels.unlink()
    labels.write_bytes(gzip.compress(bytes(content)))
    assert says.json("check", "mnist", "--data", tmp_path)["published"] is False


def test_each_help_has_an_example(says: Says) -> None:
    for verb in ("list", "check", "make"):
        code, out, _ = says(verb, "--help")
        assert code == 0
        assert f"Example: mpsl data {verb}" in out
