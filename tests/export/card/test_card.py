"""`mpsl card`: every figure out of runs, and nothing written where runs do not belong together."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mpsl_export.card import card as cards
from mpsl_export.card.card_runs import ADDED, check_recipe, flat, read_run
from mpsl_export.card.card_text import card_text, limits_of
from mpsl_export.card.synaptic_operations import dense_macs, measure_operations
from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_runtime.data import datasets
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.reference import Reference

Command = Callable[..., tuple[int, str, str]]


def test_a_card_holds_what_the_runs_produced(card: Command, runs: Path) -> None:
    code, out, err = card("a", "b", "stbp")
    assert code == 0, err
    model = runs / "model"
    assert [line.split()[1] for line in out.splitlines()] == [
        str(model / name) for name in ("report.json", "card.md", "model.nir")
    ]
    report = json.loads((model / "report.json").read_text())
    assert (model / "card.md").read_text() == card_text(report)
    assert (model / "model.nir").read_bytes() == (runs / "a" / "model.nir").read_bytes()
    accuracies = []
    for name in ("a", "b", "stbp"):
        record = read_evaluation(runs / name)
        accuracies.append(float(np.mean(record.predictions == record.labels)))
    assert report["accuracy"] == {
        "mean": statistics.mean(accuracies[:2]),
        "sd": statistics.stdev(accuracies[:2]),
        "seeds": [0, 1],
    }
    (other,) = report["other_methods"]
    assert other["method"] == "stbp"
    assert other["accuracy"] == {"mean": accuracies[2], "sd": None, "seeds": [0]}
    assert (report["data"]["train"], report["data"]["test"]) == (24, 24)
    verification = report["verification"]
    assert verification["passed"]
    programs = {name for entry in verification["models"] for name in entry["spike_mismatch"]}
    frameworks = {"norse", "sinabs", "snntorch", "spikingjelly"}
    assert programs == {"torch", "onnx", "reference", "engine"} | frameworks
    trained_rates = json.loads((runs / "a" / "report.json").read_text())["layers"]
    assert [layer["firing_rate"] for layer in report["layers"]] == [
        layer["firing_rate"] for layer in trained_rates
    ]
    text = (model / "card.md").read_text()
    percent = statistics.mean(accuracies[:2]) * 100
    assert f"**{percent:.2f} ± " in text
    assert f"{100 * accuracies[2]:.2f} %" in text
    assert "its score is not N-MNIST's" in text
    assert "single seeds cannot make a finding" in text


def test_the_same_as_one_json_document(card: Command, runs: Path) -> None:
    code, out, err = card("a", options=("--json", "--limit", "5", "--backend", "engine"))
    assert code == 0, err
    document = json.loads(out)
    assert document["card"] == json.loads((runs / "model" / "report.json").read_text())
    assert document["card"]["verification"]["samples"] == 5
    assert document["card"]["accuracy"]["sd"] is None
    assert "5 of 24 test samples" in (runs / "model" / "card.md").read_text()
    assert "One seed" in (runs / "model" / "card.md").read_text()


def test_synaptic_operations_are_those_of_the_reference_and_macs_those_of_ones(
    runs: Path,
) -> None:
    checkpoint = read_checkpoint(runs / "a")
    plan = load_plan(runs / "a" / "model.nir")
    split = datasets.open_split("nmnist8", runs / "data", "test")
    samples = [split.input(index, checkpoint.model) for index in (0, 7, 23)]
    reference, counts = Reference(plan), []
    for sample in samples:
        reference.run(sample)
        counts.append(reference.synops)
    # With weights and inputs of one, every product adds one.
    ones = sum(
        float(F.conv2d(torch.ones(1, *shape), torch.ones(weight), stride=stride, padding=1).sum())
        for shape, weight, stride in (
            ((2, 17, 17), (6, 2, 3, 3), 2), ((6, 9, 9), (8, 6, 3, 3), 1),
        )
    ) + 8 * 4 * 4 * 12 + 12 * 8  # fmt: skip
    assert dense_macs(plan) == ones
    measured = measure_operations(plan, samples)
    assert measured["synops"] == sum(counts) / 3 > 0
    assert measured["dense_macs"] == 3 * ones
    assert measured["ratio"] == pytest.approx(sum(counts) / (9 * ones))


def _damage(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("names", "damage", "message"),
    [
        (("a", "longer"), None, "differ in more than seed and method; got training.epochs = 2"),
        (("a", "a"), None, "a seed of stbp+hebbian+sbp is there twice; got 0"),
        (("stbp",), None, "run is not of the model's recipe; got mechanisms = ['stbp']"),
        (("a", "none"), None, "no such run folder"),
        (
            ("a",),
            lambda runs: _damage(runs / "a" / "report.json", accuracy=0.9952),
            "report and record differ in the accuracy; got 0.9952",
        ),
        (
            ("a",),
            lambda runs: _damage(runs / "a" / "report.json", epochs="many"),
            "report has no usable 'epochs'",
        ),
        (
            ("a",),
            lambda runs: _damage(runs / "a" / "report.json", layers=[{}]),
            "report does not fit the banks",
        ),
        (
            ("a",),
            lambda runs: (runs / "a" / "report.json").write_text("{"),
            "report cannot be read",
        ),
        (("a",), lambda runs: (runs / "a" / "report.json").write_text("[]"), "no usable"),
        (("a",), lambda runs: (runs / "a" / "recipe.toml").write_text("x"), "recipe cannot be"),
        (
            ("a",),
            lambda runs: shutil.copy(runs / "recipe.toml", runs / "a"),
            "recipe is not complete",
        ),
        (
            ("a",),
            lambda runs: shutil.copy(runs / "b" / "recipe.toml", runs / "a"),
            "parts of the run are of different recipes",
        ),
        (
            ("a", "b"),
            lambda runs: shutil.copy(runs / "a" / "evaluation.npz", runs / "b"),
            "parts of the run are of different recipes",
        ),
        (
            ("a",),
            lambda runs: (runs / "model" / "recipe.toml").unlink(),
            "model's folder has no recipe.toml",
        ),
    ],
)
def test_runs_that_make_no_card_are_refused_in_one_line(
    card: Command, runs: Path, names: tuple[str, ...], damage: Any, message: str
) -> None:
    if damage is not None:
        damage(runs)
    code, out, err = card(*names)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert [path.name for path in (runs / "model").iterdir() if path.suffix != ".toml"] == []


def test_a_model_that_does_something_else_gets_no_card(card: Command, runs: Path) -> None:
    write_nir(graph_of(read_checkpoint(runs / "b")), runs / "a" / "model.nir")
    code, out, err = card("a", options=("--backend", "engine"))
    assert (code, out) == (1, "")
    assert "FAILED" in err
    assert [path.name for path in (runs / "model").iterdir()] == ["recipe.toml"]


def test_a_large_model_is_described_and_left_out(
    card: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert card("a", options=("--backend", "engine"))[0] == 0
    assert (runs / "model" / "model.nir").is_file()
    monkeypatch.setattr(cards, "LARGEST_MODEL", 1000)
    assert card("a", options=("--backend", "engine"))[0] == 0
    assert not (runs / "model" / "model.nir").exists()
    assert "is not kept here" in (runs / "model" / "card.md").read_text()


def test_runs_from_before_a_key_was_added_are_comparable_by_what_it_meant_then() -> None:
    from mpsl_train.recipe import parse

    text = 'name = "a"\nnetwork = "10"\nmechanisms = ["stbp"]\n[data]\ndataset = "mnist"\n'
    meant = flat(parse(text, "an older run").dump())
    assert {key: meant[key] for key in ADDED} == dict(ADDED)


def test_the_share_of_the_current_stands_on_a_card_where_its_run_measured_it(
    card: Command, runs: Path
) -> None:
    report = json.loads((runs / "a" / "report.json").read_text())
    expected = [
        ", ".join(f"{100 * layer[key]:.1f}" for key in ("norm_share", "current_share"))
        for layer in report["layers"]
    ]
    assert card("a", options=("--limit", "2", "--backend", "engine"))[0] == 0
    text = (runs / "model" / "card.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| L0")]
    assert [row.split(" | ")[-1].rstrip(" |") for row in rows] == expected
    assert "‖(λ2W2 + λ3W3)·s‖/‖I‖" in text
    for layer in report["layers"]:  # as older runs are
        del layer["norm_share"], layer["current_share"]
    (runs / "a" / "report.json").write_text(json.dumps(report))
    assert card("a", options=("--limit", "2", "--backend", "engine"))[0] == 0
    assert "·s‖" not in (runs / "model" / "card.md").read_text()


def test_a_card_says_what_its_runs_have_otherwise_than_the_recipe(
    card: Command, runs: Path
) -> None:
    options = ("--limit", "2", "--backend", "engine")
    changed = ("--changed", "training.epochs", "--changed", "augmentation.flip")
    code, _, err = card("longer", options=options)
    assert (code, "got training.epochs = 2; expected 1, as " in err) == (2, True)
    code, _, err = card("longer", options=(*options, *changed))
    assert code == 0, err
    report = json.loads((runs / "model" / "report.json").read_text())
    assert report["changed"] == {
        "training.epochs": {"planned": 1, "trained": 2},
        "augmentation.flip": {"planned": None, "trained": False},
    }
    text = (runs / "model" / "card.md").read_text()
    assert "--out RUN --set training.epochs=2 --set augmentation.flip=false\n" in text
    assert "| stbp+hebbian+sbp, this model | 0 | " in text
    assert " % | 2 of 1 | " in text
    assert "- Trained for 2 of the 1 epochs of its recipe" in text


def test_a_change_may_be_of_a_key_that_the_run_is_older_than(runs: Path) -> None:
    run = read_run(runs / "a")
    older = replace(run, recipe={**run.recipe, "rules": {"cap": 0.25}})
    (runs / "model" / "recipe.toml").write_text("[rules]\nwarmup_epochs = 1\n")
    changed = check_recipe(runs / "model", older, ["rules.warmup_epochs"])
    assert changed == {"rules.warmup_epochs": {"planned": 1, "trained": 0.0}}


@pytest.mark.parametrize(
    ("key", "message"),
    [("training.epochs", "got training.epochs = 1"), ("rules.etas", "got no 'rules.etas'")],
)
def test_a_key_that_the_run_did_not_change_is_refused(
    card: Command, runs: Path, key: str, message: str
) -> None:
    code, out, err = card("a", options=("--changed", key))
    assert (code, out) == (2, "")
    assert f"run did not change that key of the model's recipe; {message}" in err
    assert [path.name for path in (runs / "model").iterdir()] == ["recipe.toml"]


def test_limits_follow_from_the_figures(trained: Path) -> None:
    card = cards.make_card(
        [trained / "a"], trained, data=trained / "data", backends=["engine"], limit=2
    )
    assert any("denoised" in line for line in limits_of(card))
    card["published"] = {
        "train": 60_000, "test": 24, "accuracy": 0.99, "network": card["network"], "epochs": 1,
        "note": "",
    }  # fmt: skip
    card["accuracy"] = {"mean": 0.98, "sd": 0.01, "seeds": [0, 1]}
    card["warnings"] = ["L01 fires in 0.10% of all steps: nearly silent"]
    text = "\n".join(limits_of(card))
    assert "train split has 24 of the data set's 60,000" in text
    assert "test split" not in text
    assert "One seed" not in text
    assert "1.00 points below the paper's figure." in text
    assert "Layer L01 fires in 0.10%" in text
    card["published"]["epochs"] = 100
    assert "1.00 points below the paper's figure, which is of more epochs." in limits_of(card)
    card["data"]["test"], card["runs"][0]["accuracy"] = 100, 0.98
    assert "93.00 … 99.45 %" in card_text(card)  # Wilson's interval of 98 in 100
    assert read_run(trained / "a").facts()["seed"] == 0
