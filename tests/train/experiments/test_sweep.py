"""Sweeps: every run once, what was killed goes on, what fails says why."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpsl_runtime.errors import RunError, UsageError
from mpsl_train.experiments.journal import RETRIES, Journal
from mpsl_train.experiments.sweep import sweep
from mpsl_train.experiments.worker import work
from mpsl_train.recipe import Recipe, load


def _recipes(path: Path, *overrides: str, seeds: int = 2) -> dict[str, Recipe]:
    return {
        f"s{seed}": load(path, [f"seed={seed}", "training.epochs=1", *overrides])
        for seed in range(seeds)
    }


def test_two_processes_train_every_run_once_and_a_second_call_only_what_failed(
    tmp_path: Path, small_recipe: Path, small_data: Path
) -> None:
    lines: list[str] = []
    recipes = _recipes(small_recipe) | {"broken": load(small_recipe, ["network=4FC-3"])}
    folder = tmp_path / "sweep"
    first = sweep(folder, recipes, data=small_data, device="cpu", workers=2, say=lines.append)
    assert [(name, outcome.state) for name, outcome in first.items()] == [
        ("s0", "finished"), ("s1", "finished"), ("broken", "failed"),
    ]  # fmt: skip
    assert first["s1"].report is not None
    assert first["s1"].report["seed"] == 1
    assert "does not end in the number of classes" in str(first["broken"].error)
    assert sorted(line.split(":")[0] for line in lines) == ["broken", "s0", "s1"]
    written = (folder / "runs" / "s0" / "report.json").stat().st_mtime_ns
    del recipes["broken"]
    assert sweep(folder, recipes, data=small_data, say=lines.append) == {
        name: first[name] for name in recipes
    }
    assert (folder / "runs" / "s0" / "report.json").stat().st_mtime_ns == written
    assert lines[-1] == "2 of 2 runs are there already"


def test_a_run_that_was_killed_goes_on_from_its_last_epoch(
    tmp_path: Path, small_recipe: Path, small_data: Path
) -> None:
    folder, epochs = tmp_path / "sweep", 30
    journal = Journal(folder)
    journal.enqueue({"long": load(small_recipe, [f"training.epochs={epochs}"])})
    command = [sys.executable, "-m", "mpsl_train.experiments.worker", str(folder), "cpu"]
    victim = subprocess.Popen([*command, str(small_data)], stderr=subprocess.DEVNULL)
    run = folder / "runs" / "long"
    until = time.monotonic() + 120
    while not (run / "last.ckpt").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert not (run / "report.json").exists()
    before = (run / "metrics.csv").read_text("utf-8").splitlines()
    assert 1 < len(before) < epochs
    assert journal.outcomes(["long"])["long"].state == "running"
    assert work(folder, device="cpu", data=small_data) == 1
    assert journal.outcomes(["long"])["long"].state == "finished"
    after = (run / "metrics.csv").read_text("utf-8").splitlines()
    assert len(after) == 1 + epochs
    # The seconds of the first epoch are the victim's: it was not trained again.
    assert after[1] == before[1]


def test_a_run_is_claimed_by_one_process_at_a_time(tmp_path: Path, small_recipe: Path) -> None:
    one, other = Journal(tmp_path / "a"), Journal(tmp_path / "a")
    one.enqueue(_recipes(small_recipe))
    other.enqueue(_recipes(small_recipe))
    with one.claim() as first, other.claim() as second, one.claim() as third:
        assert first is not None
        assert second is not None
        assert third is None
        assert {first.name, second.name} == {"s0", "s1"}
        assert one.open_runs() == 2
        (first.run).mkdir()
        (first.run / "report.json").write_text('{"accuracy": 0.5}')
        one.finish(first, {"accuracy": 0.5, "validation_accuracy": 0.25})
    assert other.outcomes([first.name])[first.name].report == {"accuracy": 0.5}
    assert other.open_runs() == 1


def test_a_run_that_is_killed_again_and_again_counts_as_failed(
    tmp_path: Path, small_recipe: Path
) -> None:
    journal = Journal(tmp_path / "a")
    journal.enqueue(_recipes(small_recipe, seeds=1))
    for tries in range(RETRIES + 1):
        with journal.claim() as claim:  # left without a word, as by a kill
            assert claim is not None
            assert claim.trial.user_attrs["tries"] == tries
    with journal.claim() as claim:
        assert claim is None
    outcome = journal.outcomes(["s0"])["s0"]
    assert (outcome.state, journal.open_runs()) == ("failed", 0)
    assert "its process died" in str(outcome.error)
    journal.enqueue(_recipes(small_recipe, seeds=1))
    assert journal.open_runs() == 1


def test_another_recipe_under_a_known_name_is_refused(tmp_path: Path, small_recipe: Path) -> None:
    journal = Journal(tmp_path / "a")
    journal.enqueue(_recipes(small_recipe))
    with pytest.raises(UsageError, match=r"run s0 was begun with another recipe.*another --out"):
        journal.enqueue(_recipes(small_recipe, "rules.tau_w_steps=50"))
    with pytest.raises(UsageError, match="unsuitable name"):
        journal.enqueue({"../s0": load(small_recipe)})


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "../../outside", "recipe": "", "tries": 0},
        {"name": "s0", "recipe": 3, "tries": 0},
        {"name": "s0", "recipe": "", "tries": "many"},
        {},
    ],
)
def test_a_journal_of_a_stranger_leads_nowhere_else(
    facts: dict[str, object], tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "a")
    journal.study.enqueue_trial({}, user_attrs=facts)
    with pytest.raises(RunError, match="journal cannot be read; got a run named"):
        work(tmp_path / "a", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_run_whose_report_is_damaged_counts_as_failed(tmp_path: Path, small_recipe: Path) -> None:
    journal = Journal(tmp_path / "a")
    journal.enqueue(_recipes(small_recipe, seeds=1))
    with journal.claim() as claim:
        assert claim is not None
        claim.run.mkdir()
        journal.finish(claim, {"accuracy": 0.5})
    for text, part in (
        ("", "report cannot be read"),
        ("[" * 100_000, "report cannot be read"),
        ('{"accuracy": NaN}', "NaN"),
        ('{"accuracy": ' + "9" * 5000 + "}", "report cannot be read"),
        ('{"accuracy": 3}', "accuracy"),
        ('{"accuracy": [0.5]}', "accuracy"),
        ('{"accuracy": 0.5, "test_samples": "many"}', "test_samples"),
        ('{"accuracy": 0.5, "training_seconds": -1e400}', "training_seconds"),
        ('{"accuracy": 0.5, "device": "\\ud800"}', "report cannot be read"),
        ("[0.5]", "report"),
        ('{"validation_accuracy": 0.5}', "accuracy"),
    ):
        (claim.run / "report.json").write_text(text)
        outcome = journal.outcomes(["s0"])["s0"]
        assert outcome.state == "failed", text
        assert part in str(outcome.error)
        assert str(outcome.error).isprintable()


def test_a_damaged_journal_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "journal.log").write_text("nonsense\nmore\n")
    with pytest.raises(RunError, match="journal cannot be read"):
        Journal(tmp_path / "a")
