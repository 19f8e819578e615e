"""The zoo: no card holds a figure that its report.json does not, and every model.nir still runs."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.card.card import LARGEST_MODEL, model_probe
from mpsl_export.card.card_text import accuracy_text, card_text
from mpsl_export.card.published import PUBLISHED
from mpsl_runtime.bench.inputs import synthetic
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.plan import Convolution, Dense
from mpsl_runtime.model.provenance import provenance_of
from mpsl_runtime.model.seal import broken_parts, sealed
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.proof import OWN_PROGRAMS, prove
from mpsl_runtime.run.reference import Reference
from mpsl_train.data import dvs_digits
from mpsl_train.recipe import Recipe, find_recipe, load, parse, to_toml

from .markdown import cells

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/card.md"))
PUBLISHED_MODELS = [name for name in NAMES if (MODELS / name / "model.nir").is_file()]


def report_of(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((MODELS / name / "report.json").read_text("utf-8"))
    return report


def changes_of(name: str) -> list[str]:
    """What a card's runs have otherwise than their recipe, as `--set` takes it."""
    changed = report_of(name).get("changed", {}).items()
    return [f"{key}={json.dumps(value['trained'])}" for key, value in changed]


def test_the_zoo_has_its_models() -> None:
    assert set(NAMES) >= {"dvs-digits", "fashion-mnist", "mnist", "nmnist", "nmnist8"}
    small = ("cifar10", "dvs-gesture", "fashion-mnist", "mnist", "nmnist")
    assert set(NAMES) >= {f"{name}-small" for name in small}
    assert {path.parent.name for path in MODELS.glob("*/report.json")} == set(NAMES)
    assert {path.parent.name for path in MODELS.glob("*/model.nir")} == set(PUBLISHED_MODELS)
    # A clone stays small: three networks of the paper are 8 to 12 MB each, all the others 18 MB.
    assert sum(path.stat().st_size for path in MODELS.rglob("*")) < 50_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_its_report_in_words(name: str) -> None:
    report = report_of(name)
    assert report["name"] == name
    assert (MODELS / name / "card.md").read_text("utf-8") == card_text(report)


@pytest.mark.parametrize("name", NAMES)
def test_means_are_those_of_the_runs(name: str) -> None:
    report = report_of(name)
    for group in (report, *report["other_methods"]):
        values = [run["accuracy"] for run in group["runs"]]
        assert group["accuracy"]["mean"] == pytest.approx(statistics.mean(values), abs=1e-12)
        assert group["accuracy"]["seeds"] == [run["seed"] for run in group["runs"]]
        if len(values) > 1:
            assert group["accuracy"]["sd"] == pytest.approx(statistics.stdev(values), abs=1e-12)
        else:
            assert group["accuracy"]["sd"] is None
        for run in group["runs"]:
            # An accuracy is so many samples of the test set, and the run ended as it was meant to.
            right = run["accuracy"] * run["test_samples"]
            assert right == pytest.approx(round(right), abs=1e-6)
            assert run["test_samples"] == report["data"]["test"]
            assert run["epochs"] == report["recipe"]["training"]["epochs"]
            assert re.fullmatch("[0-9a-f]{40}", run["commit"])
    published = PUBLISHED[report["data"]["name"]]
    assert report["published"]["accuracy"] == published.accuracy


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_of_the_recipe_beside_it(name: str) -> None:
    used = parse(to_toml(report_of(name)["recipe"]), name)

    def complete(recipe: Recipe) -> dict[str, Any]:
        dump = recipe.dump()
        dump.pop("seed")
        dump["training"].pop("step")  # two exact ways
        return dump

    method = [f"method={used.method}"] if used.method else []  # a name for keys that are all there
    assert complete(used) == complete(load(find_recipe(name), [*method, *changes_of(name)]))


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_hash_is_that_of_the_text_as_the_run_wrote_it(name: str) -> None:
    report = report_of(name)
    text = to_toml(report["recipe"])
    assert hashlib.sha256(text.encode()).hexdigest() == report["recipe_hash"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_was_lost_between_training_and_export(name: str) -> None:
    report = report_of(name)
    verification = report["verification"]
    assert verification["passed"]
    assert verification["samples"] == report["data"]["test"]
    first = report["runs"][0]["accuracy"]
    programs = set()
    for model in verification["models"]:
        assert model["passed"]
        programs |= set(model["spike_mismatch"])
        if model["against"] == "trained":
            assert max(model["spike_mismatch"].values()) <= 1e-4
            for accuracy in model["accuracy"].values():
                assert accuracy == pytest.approx(first, abs=1.5e-3)
        else:  # an int8 model, against the reference on the same file
            assert set(model["spike_mismatch"].values()) == {0}
    assert programs >= {"torch", "onnx", "reference", "engine", "norse"}


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_a_published_model_does_what_its_card_says(name: str) -> None:
    path, report = MODELS / name / "model.nir", report_of(name)
    content = path.read_bytes()
    assert len(content) == report["model"]["bytes"] < LARGEST_MODEL
    assert hashlib.sha256(content).hexdigest() == report["model"]["sha256"]
    plan = load_plan(path)
    weighted = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
    assert sum(n.weight.size + n.bias.size for n in weighted) == report["parameters"]["merged"]
    assert plan.metadata is not None
    assert plan.metadata.recipe_hash == report["recipe_hash"]
    probe, said = model_probe(path), report["model"]["probe"]
    # Another processor may add in another order and flip one spike of one class.
    assert np.abs(np.subtract(probe["scores"], said["scores"])).max() <= 1
    assert probe["synops"] == pytest.approx(said["synops"], rel=0.01)
    assert said["synops"] > 0
    sample = synthetic(plan, said["seed"]).samples[0]
    native = Model(plan, Engine(plan)).run(sample)
    numpy = Model(plan, Reference(plan)).run(sample)
    assert np.abs(native.scores - numpy.scores).max() <= 1
    assert native.synops == pytest.approx(numpy.synops, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_a_published_model_is_what_this_version_writes(name: str) -> None:
    """Every name, type, shape and value (`seal`); how arrays are compressed is another matter."""
    path = MODELS / name / "model.nir"
    graph = load_graph(path)
    assert {type(graph.nodes[name]).__name__ for name in ("input", "output")} == {"Input", "Output"}
    assert sealed(graph).metadata["seal"] == graph.metadata["seal"]
    assert broken_parts(path) == []


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_a_published_model_proves_itself_and_says_where_it_comes_from(name: str) -> None:
    path = MODELS / name / "model.nir"
    proof = prove(path, OWN_PROGRAMS)
    assert proof.passed, proof.lines()
    assert not proof.silent, "every population fires in the probe"
    report = json.loads((MODELS / name / "report.json").read_text())
    said = provenance_of(load_graph(path).metadata, name)
    assert said["recipe_sha256"] == report["recipe_hash"]
    assert said["data_sha256"] == report["data"]["test_hash"]
    assert said["merge_report"]["parameters"] == report["parameters"]
    assert said["verified"]["passed"]


def accuracy_of_the_engine(name: str, root: Path) -> float:
    plan = load_plan(MODELS / name / "model.nir")
    split = datasets.open_split(name, datasets.find(name, root), "test")
    model = Model(plan, Engine(plan))
    assert plan.metadata is not None
    right = sum(
        model.run(split.input(index, plan.metadata)).label == label
        for index, label in enumerate(split.labels)
    )
    return right / len(split)


def test_the_engine_reaches_the_accuracy_of_the_card_on_the_data_set_made_here(
    tmp_path: Path,
) -> None:
    dvs_digits.make(tmp_path, progress=False)
    said = report_of("dvs-digits")["runs"][0]["accuracy"]
    assert accuracy_of_the_engine("dvs-digits", tmp_path) == pytest.approx(said, abs=3e-3)


@pytest.mark.parametrize("name", ["nmnist", "nmnist8"])
def test_the_engine_reaches_the_accuracy_of_the_card(name: str, shared_data: Path) -> None:
    said = report_of(name)["runs"][0]["accuracy"]
    assert accuracy_of_the_engine(name, shared_data / name) == pytest.approx(said, abs=2e-3)


# How the README calls the data sets.
DATA_WORDS = {
    "cifar10": "CIFAR-10",
    "dvs-digits": "simulated events",
    "dvs-gesture-made": "**made** gestures",
    "fashion-mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "nmnist": "N-MNIST, part",
    "nmnist8": "N-MNIST, digits 0–7",
}
HEAD = ["model", "learned from / tested on", "network", "MPSL", "STBP, same budget", "command"]


def _row(name: str) -> list[str]:
    """What the README's table must say of a model, cell by cell."""
    report = report_of(name)
    data = report["data"]
    (stbp,) = (each for each in report["other_methods"] if each["method"] == "stbp")
    return [
        f"[`{name}`](models/{name}/card.md)",
        f"{DATA_WORDS[data['name']]}, {data['train']:,} / {data['test']:,}",
        f"`{report['network']}`",
        accuracy_text(report["accuracy"]),
        accuracy_text(stbp["accuracy"]),
        " --set ".join([f"`mpsl train {name} --data DIR", *changes_of(name)]) + "`",
    ]


def _results() -> str:
    return (ROOT / "README.md").read_text("utf-8").split("## Results")[1].split("\n## ")[0]


def test_every_cell_of_the_table_in_the_readme_is_that_of_a_card() -> None:
    head, rule, *rows = [cells(line) for line in _results().splitlines() if line.startswith("|")]
    assert head == HEAD
    assert set("".join(rule)) <= set("-: ")
    assert sorted(rows) == sorted(_row(name) for name in NAMES)


def test_a_wrong_cell_of_any_column_is_seen() -> None:
    """The test above can fail: of each column, whatever is put there."""
    right = [_row(name) for name in NAMES]
    for row in right:
        for column, cell in enumerate(row):
            changed = cell.replace("8", "9") if "8" in cell else f"{cell}0"
            assert [*row[:column], changed, *row[column + 1 :]] not in right


def _differing(models: list[dict[str, Any]]) -> int:
    """Samples that differ in any program; a report of before it named them has their number."""
    named = {tie["sample"] for model in models for tie in model.get("ties", [])}
    return len(named) or max(model["explained_ties"] for model in models)


def test_the_readme_counts_the_samples_with_a_tie() -> None:
    words = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    text = " ".join(_results().split())
    sentence = text.split("no differing output spike")[1].split(".")[0]
    named = set(re.findall(r"`([\w-]+)`", sentence))
    ties = {name: _differing(report_of(name)["verification"]["models"]) for name in NAMES}
    assert named == {name for name, count in ties.items() if count}
    for name in named:
        assert re.search(rf"\b{words[ties[name]]} (samples? )?of `{name}`", sentence), name
