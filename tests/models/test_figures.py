"""The tables of models/README.md say what the CSV files beside them hold, run by run."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mpsl_train.experiments.comparison import collapsed, compare

from .markdown import cells

MODELS = Path(__file__).resolve().parents[2] / "models"
README = (MODELS / "README.md").read_text("utf-8")
NUMBER = re.compile(r"[+−]?\d+(?:\.\d+)?")
Runs = dict[tuple[str, str], dict[str, float]]  # (recipe, method) → a figure in % of each seed

LABELS = {
    "stdp, `100WTA`": "stdp", "sbp, `500FC`": "sbp",
    "mpsl, no warm-up": "mpsl:rules.warmup_epochs=0",
    "`mpsl`, share 10 %": "mpsl:rules.current_share=0.1",
    "`mpsl`, share 10 %, warm-up": "mpsl:rules.current_share=0.1,rules.warmup_epochs=1",
    "`stbp` + random bank, share 10 %": "stbp:mechanisms=stbp+random,rules.current_share=0.1",
    "as published: η̂ 1, sign +": "mpsl",
    "**η̂ 1, warm-up** (the default now)": "mpsl:rules.warmup_epochs=1",
    "share 5 %": "mpsl:rules.current_share=0.05",
    "share 10 %": "mpsl:rules.current_share=0.1",
    "share 10 %, warm-up": "mpsl:rules.current_share=0.1,rules.warmup_epochs=1",
    "share 20 %": "mpsl:rules.current_share=0.2",
    "share 20 %, warm-up": "mpsl:rules.current_share=0.2,rules.warmup_epochs=1",
    "η̂ 3, warm-up": "mpsl:rules.eta_hat=3.0,rules.warmup_epochs=1",
    "η̂ 10 in the large fully connected layer": "mpsl:rules.eta_hat_layers=[1,1,10,1]",
    "ρ clipped at 0": "mpsl:rules.activity=clipped",
    "sign learned by layer": "mpsl:rules.sign=learned",
    "sign −, share 10 %, warm-up":
        "mpsl:rules.sign=-,rules.current_share=0.1,rules.warmup_epochs=1",
    "sign −, share 30 %, warm-up":
        "mpsl:rules.sign=-,rules.current_share=0.3,rules.warmup_epochs=1",
}  # fmt: skip
BY_FAN_IN = {
    "η̂ by fan-in, up to 1, warm-up": ("0.00765,0.0918,1,0.0544", "0.0117,0.0703,1,0.0417"),
    "η̂ by fan-in, up to 3, warm-up": ("0.023,0.275,3,0.163", "0.0352,0.211,3,0.125"),
    "η̂ by fan-in, up to 10, warm-up": ("0.0765,0.918,10,0.544", "0.117,0.703,10,0.417"),
    "η̂ by √fan-in, up to 1, warm-up": ("0.0875,0.303,1,0.233", "0.108,0.265,1,0.204"),
    "η̂ by √fan-in, up to 3, warm-up": ("0.262,0.909,3,0.7", "0.325,0.796,3,0.612"),
    "η̂ by √fan-in, up to 10, warm-up": ("0.875,3.03,10,2.33", "1.08,2.65,10,2.04"),
}
"""η̂ of the layers of `mnist-small` and of `dvs-digits`."""


def _rows(name: str) -> list[dict[str, str]]:
    with (MODELS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _runs(name: str, column: str = "accuracy") -> Runs:
    found: Runs = defaultdict(dict)
    for row in _rows(name):
        found[row["recipe"], row["method"]][row["seed"]] = 100 * float(row[column] or 0)
    return found


def _table(head: str, place: int = 0) -> list[list[str]]:
    """The cells of the rows of the first, second, … table whose head begins so."""
    lines = (head + README.split(f"\n{head}")[place + 1]).split("\n\n", 1)[0].splitlines()
    return [cells(line) for line in lines[2:]]


def _says(cell: str, *values: float) -> None:
    """The first numbers of a cell are these, rounded to the digits it gives."""
    found = NUMBER.findall(cell)
    assert len(found) >= len(values), cell
    for text, value in zip(found, values, strict=False):
        digits = len(text.partition(".")[2])
        stated = float(text.replace("−", "-"))
        assert abs(stated - value) <= 0.5 * 10**-digits + 1e-6, f"{cell}: {value}"


def _spread(runs: Mapping[str, float]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    (row,) = compare({"": runs})
    return row["mean"], row["sd"]


def _paired(ours: Mapping[str, float], base: Mapping[str, float]) -> tuple[float, float]:
    """Mean difference of the same seeds, and half the 95 % interval of the t test."""
    row = compare({"base": base, "ours": ours})[1]
    low, high = row["interval"]
    return row["difference"], (high - low) / 2


def _usual(runs: Runs, recipe: str) -> float:
    """The median of all runs of a data set."""
    every = (own.values() for (name, _), own in runs.items() if name == recipe)
    return float(np.median([value for values in every for value in values]))


def _method(label: str, runs: Runs) -> str:
    plain = label.strip("`")
    return plain if any(plain == method for _, method in runs) else LABELS[label]


FIVE = ["mnist-small", "nmnist8-small", "fashion-mnist-small", "cifar10-small", "dvs-digits"]
TABLES = [
    ("methods.csv", FIVE[:4], "| |", 1),
    ("five.csv", FIVE, "| against `stbp` |", 0),
    ("verdict.csv", ["nmnist8-small", "nmnist-small", "dvs-digits"], "| against `stbp` |", 0),
]


def _head(corner: str, recipes: list[str]) -> str:
    return f"{corner} {' | '.join(recipes)} |\n|---"


@pytest.mark.parametrize(("name", "recipes", "corner", "place"), TABLES)
def test_means_and_deviations_are_those_of_the_runs(
    name: str, recipes: list[str], corner: str, place: int
) -> None:
    runs = _runs(name)
    rows = _table(_head("| |", recipes))
    assert len(rows) >= 3
    for label, *texts in rows:
        for recipe, cell in zip(recipes, texts, strict=True):
            values = runs.get((recipe, _method(label, runs)), {})
            assert bool(values) == (cell != "–"), f"{label}, {recipe}"
            if values:
                _says(cell, *_spread(values))
    rows = _table(_head(corner, recipes), place)
    assert len(rows) >= 2
    for label, *texts in rows:
        for recipe, cell in zip(recipes, texts, strict=True):
            if cell != "–":
                base = runs[recipe, "stbp"]
                mean, half = _paired(runs[recipe, _method(label, runs)], base)
                _says(cell, mean, mean - half, mean + half)


def _bank_runs(label: str, runs: Runs, place: int) -> dict[str, float]:
    method = LABELS.get(label)
    if label in BY_FAN_IN:
        method = f"mpsl:rules.eta_hat_layers=[{BY_FAN_IN[label][place]}],rules.warmup_epochs=1"
    return runs[("mnist-small", "dvs-digits")[place], str(method)]


def test_what_banks_do_is_what_their_runs_did() -> None:
    runs = _runs("banks.csv")
    layers = [_runs("banks.csv", f"current_share_{layer}") for layer in range(4)]
    rows = _table("| `--method mpsl:…` | share")
    rows = [row for row in rows if row[0] in (*LABELS, *BY_FAN_IN)]  # not those of one seed
    assert len(rows) >= 18
    for label, *texts in rows:
        for place, (shares, mean, change, worst) in enumerate((texts[:4], texts[4:])):
            recipe = ("mnist-small", "dvs-digits")[place]
            values = _bank_runs(label, runs, place)
            assert len(values) == 10, label
            _says(mean, _spread(values)[0])
            _says(change, *_paired(values, runs[recipe, "stbp"]))
            own = [value / 100 for value in values.values()]
            lost = collapsed(own, _usual(runs, recipe) / 100, 10)
            _says(worst, 100 * min(own), *([lost] if lost else []))
            assert ("collapse" in worst) == bool(lost), label
            _says(shares, *(_spread(_bank_runs(label, layer, place))[0] for layer in layers))


def _robustness(name: str) -> dict[tuple[str, str, str, float], dict[str, float]]:
    """Accuracy in %, mean over corruption seeds, of each training seed.

    Keys are the method's first letters, the way, the corruption and its level.
    """
    single: dict[tuple[str, str, str, float, str], list[float]] = defaultdict(list)
    for row in _rows(name):
        method = re.sub(r"^.*?-small-|-s\d+$", "", row["run"])
        key = (method[:8], row["way"], row["corruption"], float(row["level"]), row["seed"])
        single[key].append(100 * float(row["accuracy"]))
    found: dict[tuple[str, str, str, float], dict[str, float]] = defaultdict(dict)
    for (*key, seed), values in single.items():
        method, way, corruption, level = key
        found[method, way, corruption, level][seed] = float(np.mean(values))
    return found


def test_accuracy_under_added_events_is_that_of_the_runs() -> None:
    ways = [
        ("adaptive", "plastic"), ("adaptive", "frozen"), ("stbp", "frozen"),
        ("stbp-net", "frozen"), ("stbp", "aligned"), ("mpsl-rul", "plastic"),
    ]  # fmt: skip
    rows = _table("| noise events for each true one | samples")
    assert len(rows) == 4
    for level, size, *texts in rows:
        name = "robustness-600.csv" if size.startswith("600") else "robustness.csv"
        runs = _robustness(f"nmnist8-small/{name}")
        for cell, way in zip(texts, ways, strict=True):
            _says(cell, _spread(runs[*way, "noise", float(level)])[0])


@pytest.mark.parametrize(("place", "name"), [(0, "adaptation"), (1, "adaptation-stream")])
def test_accuracy_of_banks_that_go_on_is_that_of_the_runs(place: int, name: str) -> None:
    runs = _robustness(f"nmnist8-small/{name}.csv")
    words = {"align": "aligned", "modulate": "modulated", "frozen": "frozen", "plastic": "plastic"}
    levels = [("noise", x) for x in (0, 0.25, 0.5, 1, 2)]
    levels += [("hot-pixels", x) for x in (0.002, 0.005, 0.01, 0.02)]
    rows = _table("| network, way | clean | noise 0.25", place)
    assert len(rows) >= 4
    for label, *texts in rows:
        method, way = label.split()[0].strip("`"), words[label.split()[-1].strip("`")]
        for cell, level in zip(texts, levels, strict=True):
            values = runs[method, way, *level]
            assert len(values) == 5
            _says(cell, *_spread(values)[: 2 if "±" in cell else 1])


CORRUPTIONS = {
    "Gaussian": "gaussian", "salt and pepper": "salt-pepper", "centre crop": "crop",
    "crop": "crop", "dropped events": "drop", "added events": "noise", "time jitter": "jitter",
    "hot pixels": "hot-pixels",
}  # fmt: skip


def test_differences_under_noise_are_those_of_the_runs() -> None:
    ways = [
        ("hgll", "frozen"), ("mpsl-rul", "frozen"), ("stbp-net", "frozen"),
        ("adaptive", "plastic"), ("stbp", "aligned"),
    ]  # fmt: skip
    rows = _table("| corruption | hgll |")
    assert len(rows) == len(CORRUPTIONS)
    for label, *texts in rows:
        images, kind = label.split(", ")
        name = "mnist-small" if images == "MNIST" else "nmnist8-small"
        runs = _robustness(f"{name}/robustness.csv")
        for cell, way in zip(texts, ways, strict=True):
            ours, base = (_over_levels(runs, *key, kind) for key in (way, ("stbp", "frozen")))
            mean, half = _paired(ours, base)
            _says(cell, mean, half)
            assert ("**" in cell) == (abs(mean) > half), f"{label}: {cell}"


def _over_levels(
    runs: dict[tuple[str, str, str, float], dict[str, float]], method: str, way: str, kind: str
) -> dict[str, float]:
    """Of each seed, the mean over all levels above 0."""
    own = [
        value for key, value in runs.items()
        if key[:3] == (method, way, CORRUPTIONS[kind]) and key[3] > 0
    ]  # fmt: skip
    assert own, (method, way, kind)
    return {seed: float(np.mean([level[seed] for level in own])) for seed in own[0]}


def test_what_a_learning_network_forgets_is_what_its_runs_forgot() -> None:
    runs: dict[str, dict[str, float]] = defaultdict(dict)
    for row in _rows("nmnist8-small/forgetting.csv"):
        runs[row["layers"]][row["seed"]] = 100 * float(row["accuracy"])
    rows = _table("| layers that learn | accuracy | against frozen |")
    assert len(rows) == len(runs) == 4
    for label, accuracy, change in rows:
        values = runs[label.split("`")[1] if "`" in label else label]
        _says(accuracy, *_spread(values))
        if label != "none":
            _says(change, *_paired(values, runs["none"]))


def test_the_demo_ends_where_the_same_run_of_the_card_does() -> None:
    report = json.loads((MODELS / "dvs-digits" / "report.json").read_text("utf-8"))
    (run,) = (run for run in report["runs"] if run["seed"] == 0)
    shown = (MODELS.parent / "README.md").read_text("utf-8").split("test accuracy ")[1]
    _says(shown.split("%")[0], 100 * run["accuracy"])
