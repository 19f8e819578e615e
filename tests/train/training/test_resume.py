"""A run that stopped goes on: bit for bit, from the right epoch, and by one process at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mpsl_export.card.card_runs import read_run
from mpsl_runtime.errors import RunError
from mpsl_train.network.layers import SpikingLayer
from mpsl_train.training import training

Trained = Callable[..., dict[str, Any]]
MAIN = "from mpsl_runtime.cli import main; main()"


def _same_banks(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "banks.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def _stopped_before_the_test_set(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, *arguments: Any
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(*arguments)


def test_a_run_interrupted_within_an_epoch_resumes_bit_for_bit(
    finished: Path, small_data: Path, small_recipe: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, trained: Trained,
) -> None:  # fmt: skip
    original, calls = SpikingLayer.commit, []

    def interrupted(self: SpikingLayer, state: object) -> None:
        calls.append(1)
        if len(calls) == 4 * 4 * 2 + 5:  # 4 layers, 4 batches: in the third epoch
            raise KeyboardInterrupt
        original(self, state)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SpikingLayer, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(small_recipe, tmp_path / "run", small_data)
    assert not (tmp_path / "run" / "report.json").exists()
    with pytest.raises(RunError, match="--resume"):
        trained(small_recipe, tmp_path / "run", small_data)
    with pytest.raises(RunError, match="another recipe"):
        trained(small_recipe, tmp_path / "run", small_data, "seed=1", resume=True)
    trained(small_recipe, tmp_path / "run", small_data, resume=True)
    assert _same_banks(tmp_path / "run", finished)
    times = slice(0, -1)  # the last column is seconds
    for one, other in zip(
        (finished / "metrics.csv").read_text().splitlines(),
        (tmp_path / "run" / "metrics.csv").read_text().splitlines(),
        strict=True,
    ):
        assert one.split(",")[times] == other.split(",")[times]


def test_what_is_led_between_windows_resumes_bit_for_bit(
    small_data: Path, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    trained: Trained,
) -> None:  # fmt: skip
    """η̂ on its way to a share of the current, rates that rise, events that are lost."""
    choices = ["rules.current_share=0.1", "rules.warmup_epochs=1.5", "augmentation.drop=0.3"]
    trained(small_recipe, tmp_path / "whole", small_data, *choices)
    original, epochs = training.fit, []

    def first_epoch(network: Any, recipe: Any, run: Any, loaders: Any, *given: Any) -> Any:
        end = SpikingLayer.commit
        with monkeypatch.context() as patch:

            def commit(self: SpikingLayer, state: Any, **more: Any) -> None:
                epochs.append(1)
                if len(epochs) > 4 * 4 + 2:  # 4 layers, 4 batches: in the second epoch
                    raise KeyboardInterrupt
                end(self, state, **more)

            patch.setattr(SpikingLayer, "commit", commit)
            return original(network, recipe, run, loaders, *given)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", first_epoch)
        with pytest.raises(KeyboardInterrupt):
            trained(small_recipe, tmp_path / "parts", small_data, *choices)
    trained(small_recipe, tmp_path / "parts", small_data, *choices, resume=True)
    assert _same_banks(tmp_path / "parts", tmp_path / "whole")
    ends = [torch.load(tmp_path / run / "last.ckpt", weights_only=True)["state_dict"]
            for run in ("whole", "parts")]  # fmt: skip
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_killed_process_leaves_a_run_that_ends_at_the_same_banks(
    stop: signal.Signals, finished: Path, small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [sys.executable, "-c", MAIN, "train", str(small_recipe), "--data", str(small_data),
                 "--out", str(run), "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not (run / "last.ckpt").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(stop)
        _, complaint = process.communicate()
    if process.returncode == 0:
        pytest.skip("training was done before the signal came")
    assert not (run / "evaluation.npz").exists()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert [line for line in complaint.splitlines() if line.startswith("mpsl:")]
        assert "--resume" in complaint
        assert "Traceback" not in complaint
    done = subprocess.run(
        [*arguments, "--resume", "--json"], capture_output=True, text=True, env=environment,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["epochs"] == 3
    assert _same_banks(run, finished)


def test_early_stop_counts_epochs_without_progress(
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    trained: Trained,
) -> None:
    report = trained(small_recipe, tmp_path / "run", small_data, "training.patience=2",
                    "training.epochs=9", "training.learning_rate=1e-9")  # fmt: skip
    assert report["epochs"] == 3
    assert report["best_epoch"] == 1
    again = trained(small_recipe, tmp_path / "run", small_data, "training.patience=2",
                   "training.epochs=9", "training.learning_rate=1e-9", resume=True)  # fmt: skip
    assert again["epochs"] == 3


BEST = (
    "training.checkpoint=best", "training.epochs=4", "training.learning_rate=0.02",
    "training.schedule=constant", "rules.warmup_epochs=0",
)  # fmt: skip


def test_the_best_epoch_is_kept_whether_or_not_the_run_was_killed_at_the_test_set(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = trained(small_recipe, tmp_path / "whole", small_data, *BEST)
    assert whole["kept_epoch"] == whole["best_epoch"] < whole["epochs"] == 4
    rows = (tmp_path / "whole" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("validation_accuracy")
    accuracies = [float(row.split(",")[column]) for row in rows[1:]]
    assert whole["validation_accuracy"] == max(accuracies) > accuracies[-1]
    killed = tmp_path / "killed"
    _stopped_before_the_test_set(trained, monkeypatch, small_recipe, killed, small_data, *BEST)
    assert not (killed / "banks.safetensors").exists()
    resumed = trained(small_recipe, killed, small_data, *BEST, resume=True)
    assert _same_banks(killed, tmp_path / "whole")
    for key in ("kept_epoch", "validation_accuracy", "accuracy", "layers"):
        assert resumed[key] == whole[key]
    last = trained(small_recipe, tmp_path / "last", small_data, *BEST[1:])
    assert (last["kept_epoch"], last["validation_accuracy"]) == (4, accuracies[-1])
    assert not _same_banks(tmp_path / "last", tmp_path / "whole")


def test_a_best_checkpoint_of_another_epoch_is_refused(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    _stopped_before_the_test_set(trained, monkeypatch, small_recipe, run, small_data, *BEST)
    shutil.copy(run / "last.ckpt", run / "best.ckpt")
    with pytest.raises(RunError, match="checkpoint is of another epoch; got 3"):
        trained(small_recipe, run, small_data, *BEST, resume=True)


def test_a_run_of_an_older_version_keeps_its_recipe_and_its_hash(
    finished: Path, small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    _stopped_before_the_test_set(trained, monkeypatch, small_recipe, run, small_data)
    text = (run / "recipe.toml").read_text("utf-8").replace("tau_w_steps", "tau_w")
    (run / "recipe.toml").write_text(text, encoding="utf-8")
    report = trained(small_recipe, run, small_data, resume=True)
    assert (run / "recipe.toml").read_text("utf-8") == text
    assert report["recipe_hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert read_run(run).checkpoint.model.recipe_hash == report["recipe_hash"]
    assert _same_banks(run, finished)


def test_no_export_outlives_a_new_training(
    finished: Path, small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    names = ["model.nir", "model.step.onnx", "model.int8.nir", "model.int8.json"]
    for name in names:
        (run / name).write_text("of the old weights")
    trained(small_recipe, run, small_data, "training.epochs=1")
    assert not [name for name in names if (run / name).exists()]


def test_two_trainings_into_one_folder_are_refused_at_once_and_a_killed_one_leaves_nothing(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", MAIN, "train", str(small_recipe), "--data", str(small_data),
               "--out", str(run), "--device", "cpu", "--set", "training.epochs=3000"]  # fmt: skip
    with subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as first:
        deadline = time.monotonic() + 120
        while not (run / "last.ckpt").exists():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = time.monotonic()
        for resume in (False, True):
            with pytest.raises(RunError, match="another training writes into this folder"):
                trained(small_recipe, run, small_data, "training.epochs=3000", resume=resume)
        assert time.monotonic() - started < 20
        assert first.poll() is None
        first.kill()
    (run / ".mpsl-stage-abcdefgh").mkdir()
    (run / ".mpsl-stage-abcdefgh" / "half").write_text("of a killed writer")
    epochs = len((run / "metrics.csv").read_text().splitlines()) - 1
    # As many epochs as are done: what was held is free again, and is only evaluated.
    text = (run / "recipe.toml").read_text().replace("epochs = 3000", f"epochs = {epochs}")
    (run / "recipe.toml").write_text(text)
    done = trained(small_recipe, run, small_data, f"training.epochs={epochs}", resume=True)
    assert done["epochs"] == epochs
    assert not list(run.glob(".*"))


FULL = """
import resource, signal, sys
from mpsl_runtime.cli import main
limit = int(sys.argv.pop(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main()
"""


@pytest.mark.parametrize("limit", [500, 50_000, 110_000], ids=["csv", "checkpoint", "picture"])
def test_a_disk_that_is_full_gives_one_line_and_no_stage(
    limit: int, small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", FULL, str(limit), "train", str(small_recipe), "--data",
               str(small_data), "--out", str(run), "--device", "cpu"]  # fmt: skip
    network = ["--set", "network=10FC"] if limit > 100_000 else []
    done = subprocess.run([*command, *network], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("epoch", "step:"))]
    assert [line[:26] for line in lines] == ["mpsl: cannot write output;"], done.stderr
    assert not list(run.glob(".*"))
    assert not (run / "report.json").exists()
