"""The comparison of methods: one budget for all, who is compared with whom, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.cli import main
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import MpslError, UsageError
from mpsl_train.experiments.comparison import collapsed, holm
from mpsl_train.experiments.method_table import entries, same_budget, table
from mpsl_train.recipe import Recipe, find_recipe, load


def _shown(recipe: Recipe, labels: np.ndarray) -> int:
    """Samples that training shows: whole batches of what is not held out."""
    training, _ = stratified_split(
        labels, recipe.data.validation, recipe.seed, recipe.data.train_limit
    )
    size = recipe.training.batch_size
    return len(training) // size * size * recipe.training.epochs


@pytest.mark.parametrize("samples", [100, 700, 2000, 13_200])
@pytest.mark.parametrize("count", [150, 997, 3600])
def test_every_method_is_shown_exactly_as_many_samples(samples: int, count: int) -> None:
    path = find_recipe("mnist-small")
    labels = np.random.default_rng(count).integers(0, 10, count)
    for method in ("mpsl", "sbp"):
        for seed in range(3):
            own = [f"method={method}", f"seed={seed}", "training.epochs=1"]
            recipe = load(path, own)
            budgeted = load(path, [*own, *same_budget(recipe, labels, samples)])
            assert _shown(budgeted, labels) == samples
    if samples == 2000:
        # Batches of 16 instead of 100: the same samples in more updates.
        own = ["method=stdp", "seed=0"]
        stdp = load(path, [*own, *same_budget(load(path, own), labels, samples)])
        assert _shown(stdp, labels) == 2000


def test_a_budget_that_cannot_be_met_exactly_is_refused() -> None:
    labels = np.arange(1000) % 10
    recipe = load(find_recipe("mnist-small"))
    with pytest.raises(UsageError, match="not a whole number of updates; got 250 samples"):
        same_budget(recipe, labels, 250)
    with pytest.raises(UsageError, match="no such budget; got 3 updates in 5 epochs"):
        same_budget(recipe, labels, 300)
    with pytest.raises(UsageError, match="fewer training samples than one batch"):
        same_budget(recipe, labels[:50], 1000)


def test_a_method_stays_with_the_data_it_is_made_for(small_recipe: Path, small_data: Path) -> None:
    with pytest.raises(UsageError, match="nothing to compare; got stdp"):
        entries([str(small_recipe)], methods=["stdp"], data=small_data)
    found = entries([str(small_recipe)], methods=["stdp", "stbp"], seeds=2, data=small_data)
    assert [(entry.name, list(entry.recipes)) for entry in found] == [("small-stbp", [0, 1])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "too few seeds; got 0"),
        ({"updates": -1}, "number of updates is negative; got -1"),
        ({"methods": ["hgl"]}, "no such method; got 'hgl'; expected 'hgll'"),
        ({"overrides": ["rules.tauw=3"]}, "unknown key 'rules.tauw'"),
    ],
)
def test_what_cannot_be_compared_is_told(
    arguments: dict[str, object], message: str, small_recipe: Path, small_data: Path
) -> None:
    with pytest.raises(MpslError, match=message):
        entries([str(small_recipe)], data=small_data, **arguments)  # type: ignore[arg-type]


def test_the_table_says_what_was_measured() -> None:
    statistics = {"mean": 0.9, "sd": 0.01, "difference": None, "interval": None, "p_holm": None}
    row = {"recipe": "a", "method": "stbp", "reference": "stbp", "statistics": statistics,
           "network": "4FC-2", "steps": 4, "samples": 800, "updates": 8, "batch": 100, "epochs": 2,
           "test_samples": 50, "training_seconds": 1.5}  # fmt: skip
    against = {"mean": 0.875, "sd": None, "difference": -0.025, "interval": [-0.05, 0.0],
               "p_holm": 0.04, "p_holm_table": 0.08, "seeds": 5}  # fmt: skip
    other = {**row, "method": "mpsl", "statistics": against, "collapsed": 1}
    alone = {**other, "recipe": "b", "statistics": {**against, "interval": None}}
    lines = table({"seeds": 5, "rows": [row, other, alone]}).splitlines()
    assert "| stbp | 90.00 ± 1.00 | – |" in lines
    one = "87.50, 1 of 5 seeds collapses"
    assert f"| mpsl | {one} | {one} |" in lines
    assert "| mpsl | -2.50 (-5.00 … +0.00), p = 0.040, 0.080 | -2.50 |" in lines
    assert "| a | stbp | `4FC-2` | 4 | 800 | 8 × 100 | 2 | 50 | 2 |" in lines


def test_the_command_trains_compares_writes_and_goes_on(
    small_recipe: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare"
    words = ["compare", str(small_recipe), "--data", str(small_data), "--out", str(out),
             "--set", "training.epochs=2", "--updates", "6", "--seeds", "2", "--device", "cpu",
             "--method", "mpsl", "--method", "sbp", "--method", "stbp", "--workers", "1",
             "--json"]  # fmt: skip
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 0
        printed = capsys.readouterr()
    assert "6 of 6 runs are there already" in printed.err
    result = json.loads(printed.out)
    assert json.loads((out / "comparison.json").read_text("utf-8")) == result
    assert (out / "comparison.md").read_text("utf-8") == table(result)
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["mpsl", "sbp", "stbp"]
    assert {(row["updates"], row["samples"], row["reference"]) for row in rows.values()} == {
        (6, 96, "stbp")
    }
    reports = [json.loads((out / "runs" / f"small-{method}-s1" / "report.json").read_text())
               for method in rows]  # fmt: skip
    assert [report["accuracy"] for report in reports] == [
        row["accuracy"]["1"] for row in rows.values()
    ]
    assert reports[1]["mechanisms"] == ["sbp-local"]
    differences = [rows["mpsl"]["accuracy"][seed] - rows["stbp"]["accuracy"][seed]
                   for seed in ("0", "1")]  # fmt: skip
    assert rows["mpsl"]["statistics"]["difference"] == pytest.approx(np.mean(differences))
    assert rows["stbp"]["statistics"]["difference"] is None
    assert result["failed"] == {}
    with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
        raw = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in raw] == list(product(rows, "01"))
    for row in raw:
        assert float(row["accuracy"]) == rows[row["method"]]["accuracy"][row["seed"]]
        assert (row["updates"], row["error"]) == ("6", "")
    assert len({row["recipe_hash"] for row in raw}) == 6


def test_a_method_may_have_keys_of_its_own(small_recipe: Path, small_data: Path) -> None:
    control = "stbp:mechanisms=stbp+random,rules.current_share=0.1"
    labels = ["stbp", "mpsl", "mpsl:rules.eta_hat_layers=[1,2,1,1],rules.cap=0.1", control]
    found = entries([str(small_recipe)], ["rules.cap=0.2"], methods=labels, seeds=1,
                    data=small_data)  # fmt: skip
    assert [entry.method for entry in found] == labels
    assert [entry.name for entry in found[2:]] == [
        "small-mpsl-rules.eta_hat_layers-1-2-1-1-rules.cap-0.1",
        "small-stbp-mechanisms-stbp+random-rules.current_share-0.1",
    ]
    assert [entry.recipes[0].rules.cap for entry in found] == [0.2, 0.2, 0.1, 0.2]
    assert found[2].recipes[0].rules.eta_hat_layers == [1, 2, 1, 1]
    assert found[3].recipes[0].mechanisms == ["stbp", "random"]
    with pytest.raises(UsageError, match="one name of a folder"):
        entries([str(small_recipe)], methods=["mpsl:a=1", "mpsl:a-1"], data=small_data)
    with pytest.raises(MpslError, match=r"unknown key 'rules\.cup'"):
        entries([str(small_recipe)], methods=["mpsl:rules.cup=1"], data=small_data)


def test_a_run_collapses_that_is_nearer_to_guessing_than_to_what_is_usual() -> None:
    assert collapsed([0.1, 0.49, 0.51, 0.9], usual=0.9, classes=10) == 2
    assert collapsed([0.3, 0.25], usual=0.3, classes=10) == 0
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06], abs=1e-12)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--method", "mpls"], "mpsl: no such method; got 'mpls'; expected 'mpsl'"),
        (["--workers", "-1"], "mpsl: Invalid value for '--workers': "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: Sequence[str], line: str, small_recipe: Path, small_data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "compare"
    with pytest.raises(SystemExit) as exit_:
        main(["compare", str(small_recipe), "--data", str(small_data), "--out", str(out), *words])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not out.exists()
