"""Ablations: which runs there are, what they are compared with, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy import stats

from mpsl_runtime.cli import main
from mpsl_runtime.errors import RecipeError, UsageError
from mpsl_train.experiments.ablation import configurations
from mpsl_train.experiments.comparison import compare, holm


def test_every_combination_is_there_once_with_its_seeds(small_recipe: Path) -> None:
    cells = configurations(str(small_recipe), ["training.epochs=7"], seeds=2)
    assert [cell.name for cell in cells] == [
        "stbp-fixed",
        "stbp+hebbian-fixed", "stbp+hebbian-learnable", "stbp+hebbian-frozen",
        "stbp+hebbian+sbp-fixed", "stbp+hebbian+sbp-learnable", "stbp+hebbian+sbp-frozen",
    ]  # fmt: skip
    frozen = cells[3].recipes[1]
    assert (frozen.rules.coefficients, frozen.rules.freeze_epoch, frozen.seed) == ("frozen", 3, 1)
    assert frozen.mechanisms == ["stbp", "hebbian"]
    assert frozen.training.epochs == 7
    other = cells[0].recipes[0].model_copy(update={"seed": 1})
    assert other == cells[0].recipes[1]


def test_what_cannot_be_compared_is_told(small_recipe: Path) -> None:
    with pytest.raises(UsageError, match="unknown mode of λ; got 'free'"):
        configurations(str(small_recipe), modes=["free"])
    with pytest.raises(UsageError, match="nothing to compare; got stbp-fixed"):
        configurations(str(small_recipe), mechanisms=["stbp"])
    with pytest.raises(UsageError, match="too few seeds; got 0"):
        configurations(str(small_recipe), seeds=0)
    with pytest.raises(RecipeError, match="mechanism is not known; got 'foo'"):
        configurations(str(small_recipe), mechanisms=["stbp", "stbp+foo"])
    with pytest.raises(RecipeError, match="no such recipe"):
        configurations("nonesuch")


def test_the_paired_tests_are_those_of_the_textbook() -> None:
    first = {"0": 0.90, "1": 0.92, "2": 0.91, "3": 0.95}
    other = {"0": 0.91, "1": 0.95, "2": 0.93, "3": 0.99, "4": 0.5}
    rows = compare({"first": first, "other": other, "same": first})
    assert rows[0]["difference"] is None
    assert rows[0]["mean"] == pytest.approx(0.92)
    assert (rows[1]["seeds"], rows[1]["pairs"]) == (5, 4)
    assert rows[1]["difference"] == pytest.approx(0.025)
    # d = 1, 3, 2, 4 points: sd 1.291, se 0.6455, t = 2.5/0.6455 = 3.873 with 3 degrees of freedom.
    assert rows[1]["p_t"] == pytest.approx(2 * stats.t.sf(3.873, 3), rel=1e-3)
    assert rows[1]["interval"] == pytest.approx(
        [0.025 - 3.182 * 0.006455, 0.025 + 3.182 * 0.006455], rel=1e-3
    )
    assert rows[1]["p_wilcoxon"] == pytest.approx(2 / 2**4)
    assert rows[1]["p_holm"] == rows[1]["p_t"]  # the only comparison with a p
    assert (rows[2]["difference"], rows[2]["p_t"]) == (0.0, None)


def test_one_seed_has_no_spread_and_no_p() -> None:
    rows = compare({"first": {"0": 0.5}, "other": {"0": 0.75}})
    assert rows[1]["difference"] == pytest.approx(0.25)
    assert [rows[1][key] for key in ("sd", "p_t", "p_holm", "interval")] == [None] * 4


def test_holm_steps_down() -> None:
    assert holm([0.04, None, 0.01, 0.03]) == pytest.approx([0.06, None, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_command_trains_compares_draws_and_goes_on(
    small_recipe: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ablation"
    words = ["ablate", str(small_recipe), "--data", str(small_data), "--out", str(out),
             "--set", "training.epochs=2", "--seeds", "2", "--mode", "learnable",
             "--mechanisms", "stbp", "--mechanisms", "stbp+hebbian", "--device", "cpu",
             "--workers", "1", "--json"]  # fmt: skip
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 0
        printed = capsys.readouterr()
    assert "4 of 4 runs are there already" in printed.err
    result = json.loads(printed.out)
    assert json.loads((out / "ablation.json").read_text("utf-8")) == result
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")
    with (out / "ablation.csv").open(newline="", encoding="utf-8") as file:
        raw = {(row["mechanisms"], row["mode"], row["seed"]): row for row in csv.DictReader(file)}
    for row in result["configurations"]:
        for seed, accuracy in row["accuracy"].items():
            assert float(raw[row["mechanisms"], row["mode"], seed]["accuracy"]) == accuracy
    plain, hebbian = result["configurations"]
    assert (plain["name"], hebbian["name"]) == ("stbp-learnable", "stbp+hebbian-learnable")
    report = json.loads((out / "runs" / "stbp+hebbian-learnable-s1" / "report.json").read_text())
    assert hebbian["accuracy"]["1"] == report["accuracy"]
    assert report["mechanisms"] == ["stbp", "hebbian"]
    assert len(hebbian["curves"]["validation_accuracy"]["mean"]) == 2
    assert result["failed"] == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--mode", "free"], "mpsl: unknown mode of λ; got 'free'; expected fixed, learnable, "),
        (["--set", "rules.tauw=3"], "mpsl: unknown key 'rules.tauw'; expected nearest known key"),
        (["--workers", "-1"], "mpsl: Invalid value for '--workers': "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: Sequence[str], line: str, small_recipe: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        main(["ablate", str(small_recipe), "--out", str(tmp_path / "a"), *words])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()
