"""Sweeps on a Ray cluster: the same runs and figures as with processes of this host."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from mpsl_runtime.errors import MissingExtraError, RunError, UsageError
from mpsl_train.experiments.crew import Crew
from mpsl_train.experiments.journal import Journal
from mpsl_train.experiments.sweep import sweep
from mpsl_train.recipe import Recipe, load


def _recipes(path: Path) -> dict[str, Recipe]:
    few = ["training.epochs=1"]
    return {f"s{seed}": load(path, [f"seed={seed}", *few]) for seed in range(2)} | {
        "broken": load(path, ["network=4FC-3"])
    }


def test_tasks_train_what_the_journal_holds_and_processes_of_this_host_go_on(
    tmp_path: Path, small_recipe: Path, small_data: Path
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    lines: list[str] = []
    recipes = _recipes(small_recipe)
    there = sweep(
        tmp_path / "there", recipes, data=small_data, device="cpu", workers=2, ray="local",
        say=lines.append,
    )  # fmt: skip
    assert {name: outcome.state for name, outcome in there.items()} == {
        "s0": "finished", "s1": "finished", "broken": "failed",
    }  # fmt: skip
    assert "does not end in the number of classes" in str(there["broken"].error)
    assert sorted(line.split(":")[0] for line in lines) == ["broken", "s0", "s1"]
    del recipes["broken"]
    again = sweep(tmp_path / "there", recipes, data=small_data, say=lines.append)
    assert lines[-1] == "2 of 2 runs are there already"
    here = sweep(tmp_path / "here", recipes, data=small_data, device="cpu", workers=1)
    for name in recipes:
        assert again[name].report is not None
        assert here[name].report is not None
        assert again[name].report["accuracy"] == here[name].report["accuracy"]


def _keep_for_a_minute(crew: Crew) -> None:
    for _ in range(1200):
        crew.keep(1)
        time.sleep(0.05)


def test_a_host_that_does_not_see_the_sweep_s_folder_is_told(
    tmp_path: Path, small_recipe: Path
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from mpsl_train.experiments.cluster import RayCrew

    journal = Journal(tmp_path / "a")
    journal.enqueue(_recipes(small_recipe))
    crew = RayCrew("local", journal, None, "cpu")
    try:
        # As on a host where another folder lies at that path.
        Journal(tmp_path / "b")
        (tmp_path / "b" / "journal.log").replace(tmp_path / "a" / "journal.log")
        with pytest.raises(RunError, match=r"cannot take part.*does not see the sweep's /.*/a/jou"):
            _keep_for_a_minute(crew)
    finally:
        crew.dismiss()
    assert not list((tmp_path / "a" / "runs").iterdir())


@pytest.mark.parametrize("address", ["127.0.0.1:9", "auto", "no address"])
def test_a_cluster_that_is_not_there_is_told_in_one_line(
    address: str, tmp_path: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match=f"no Ray cluster at '{address}'; got .*; expected local"):
        sweep(tmp_path / "a", _recipes(small_recipe), ray=address)


def test_without_ray_the_extra_is_named(
    tmp_path: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"sweeps over a cluster.*mpsl\[ray\]"):
        sweep(tmp_path / "a", _recipes(small_recipe), ray="local")
