"""Runs of strangers get no card: a record that the data set contradicts, a report that is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.card.card import save_card
from mpsl_runtime.errors import OutputError

Command = Callable[..., tuple[int, str, str]]
DEEP = "[" * 100_000 + "]" * 100_000


def _refused(result: tuple[int, str, str], runs: Path, words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert words in err
    assert err.count("\n") == 1
    assert "fault in mpsl itself" not in err
    assert [path.name for path in (runs / "model").iterdir()] == ["recipe.toml"]


def _forge_labels(run: Path) -> None:
    """A network that is right everywhere: its labels are its predictions, its report says so."""
    with np.load(run / "evaluation.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["labels"] = arrays["predictions"]
    np.savez(run / "evaluation.npz", **arrays)
    _report(run, accuracy=1.0)


def _forge_spikes(run: Path) -> None:
    """The same in every part: each sample's class, and nothing else, fires in every step."""
    with np.load(run / "evaluation.npz") as archive:
        arrays = {key: archive[key].copy() for key in archive.files}
    steps, classes = arrays["spikes"].shape[1:]
    right = np.eye(classes, dtype=np.uint8)[arrays["labels"]]
    arrays["spikes"] = np.repeat(right[:, None], steps, axis=1)
    arrays["scores"] = (right * steps).astype(np.float32)
    arrays["predictions"] = arrays["labels"]
    places = [arrays["ids"].tolist().index(name) for name in arrays["probe_ids"]]
    last = max(key for key in arrays if key.startswith("probe_L"))
    arrays[last] = np.packbits(arrays["spikes"][places].astype(bool), axis=-1)
    np.savez(run / "evaluation.npz", **arrays)
    _report(run, accuracy=1.0)


def _report(run: Path, **values: Any) -> None:
    path = run / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ["a", "b", "stbp"])
def test_forged_labels_get_no_card_whichever_run_has_them(
    card: Command, runs: Path, name: str
) -> None:
    _forge_labels(runs / name)
    result = card("a", "b", "stbp", options=("--limit", "1"))
    _refused(result, runs, "record has other labels than the data set")


@pytest.mark.parametrize("options", [(), ("--limit", "8")])
@pytest.mark.parametrize("name", ["b", "stbp"])
def test_a_record_that_agrees_with_itself_and_not_with_its_banks_gets_no_card(
    card: Command, runs: Path, name: str, options: tuple[str, ...]
) -> None:
    _forge_spikes(runs / name)
    result = card("a", "b", "stbp", options=options)
    _refused(result, runs, "record is not what the banks of its run do; got trained: sample 0/0000")


def test_such_a_record_of_the_published_run_fails_verification(card: Command, runs: Path) -> None:
    _forge_spikes(runs / "a")
    code, out, err = card("a", options=("--backend", "engine"))
    assert (code, out) == (1, "")
    assert "FAILED" in err


@pytest.mark.parametrize(
    "values",
    [
        {"warnings": [7]},
        {"warnings": {"a": "b"}},
        {"layers": [{}, {}, {}, {}]},
        {"layers": [0.5, 0.5, 0.5, 0.5]},
        {"layers": {"L00": {}}},
        {"accuracy": True},
        {"training_seconds": "long"},
        {"seed": 1.5},
        {"torch": None},
        {"commit": 7},
        {"recipe_hash": {}},
        {"test_samples": "24"},
    ],
)
def test_a_report_with_a_value_of_another_type_is_one_line(
    card: Command, runs: Path, values: dict[str, Any]
) -> None:
    _report(runs / "a", **values)
    _refused(card("a"), runs, "runs/a")


@pytest.mark.parametrize("key", ["lambda", "share", "firing_rate", "cosine_w2_w3"])
def test_a_layer_that_lacks_a_value_is_one_line(card: Command, runs: Path, key: str) -> None:
    layers = json.loads((runs / "a" / "report.json").read_text())["layers"]
    del layers[1][key]
    _report(runs / "a", layers=layers)
    _refused(card("a"), runs, f"report has no usable '{key}'")


@pytest.mark.parametrize("key", ["lambda", "share", "firing_rate", "current_share"])
@pytest.mark.parametrize("value", ["a", [True], {}, [[1]]])
def test_a_layer_with_a_value_of_another_type_is_one_line(
    card: Command, runs: Path, key: str, value: Any
) -> None:
    layers = json.loads((runs / "a" / "report.json").read_text())["layers"]
    layers[1][key] = value
    _report(runs / "a", layers=layers)
    _refused(card("a"), runs, "report")


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"accuracy": ' + "9" * 5_000 + "}",
        '{"accuracy": NaN}',
        '{"accuracy": 1e999}',
        '{"device": "\\ud800"}',
        "\ufeff{}",
        "",
        "7",
    ],
)
def test_a_report_of_a_stranger_is_one_line(card: Command, runs: Path, text: str) -> None:
    (runs / "a" / "report.json").write_text(text)
    _refused(card("a"), runs, "report")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "tiny"', 'name = "../other"'),
        ('name = "tiny"', "name = 7"),
        ('mechanisms = ["stbp", "hebbian", "sbp"]', "mechanisms = [1, 2]"),
        ("batch_size = 6", 'batch_size = "six"'),
    ],
)
def test_a_recipe_with_a_value_that_cannot_be_meant_is_one_line(
    card: Command, runs: Path, old: str, new: str
) -> None:
    path = runs / "a" / "recipe.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    _refused(card("a"), runs, "recipe")


def test_a_run_without_an_export_is_exported_for_its_card(card: Command, runs: Path) -> None:
    for path in (runs / "a").glob("model*"):
        path.unlink()
    code, _, err = card("a", options=("--backend", "engine"))
    assert code == 0, err
    written = (runs / "a" / "model.nir").read_bytes()
    assert (runs / "model" / "model.nir").read_bytes() == written


def test_a_card_is_replaced_whole_or_not_at_all(
    card: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert card("a", options=("--backend", "engine"))[0] == 0
    model = runs / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    made = json.loads(before["report.json"])
    made["name"] = "another"
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == model / "model.nir":
            raise OSError(28, os.strerror(28))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(OutputError, match="No space left"):
            save_card(model, made, runs / "b" / "last.ckpt")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    written = save_card(model, made, runs / "a" / "model.nir")
    assert [path.name for path in written] == ["report.json", "card.md", "model.nir"]
    assert json.loads((model / "report.json").read_text())["name"] == "another"


def test_the_shared_forgery_gets_no_card(shared_data: Path, card: Command, runs: Path) -> None:
    cases = shared_data.parent / "cases" / "hostile"
    if not (cases / "forged_labels_report.json").is_file():
        pytest.skip("no shared cases")
    shutil.copy(cases / "forged_labels_report.json", runs / "a" / "report.json")
    shutil.copy(cases / "forged_labels_evaluation.npz", runs / "a" / "evaluation.npz")
    _refused(card("a"), runs, "parts of the run are of different recipes")
