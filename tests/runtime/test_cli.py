"""The command `mpsl`: what it prints, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import typer

from mpsl_runtime import cli
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.verbs import run as run_verb

STEP_KEYS = ["file", "t_us", "step", "scores", "label", "confidence", "events", "dropped"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recording(tmp_path: Path, make_events: Callable[..., Events]) -> Path:
    write_nmnist_bin(tmp_path / "a.bin", make_events(1, 400, last_us=6_000))
    return tmp_path / "a.bin"


def test_json_is_a_line_a_step_a_prediction_and_a_summary(
    mpsl: Run, model_file: Path, recording: Path
) -> None:
    code, out, err = mpsl("run", model_file, recording, "--json")
    assert (code, err) == (0, "")
    *steps, prediction, summary = [json.loads(line) for line in out.splitlines()]
    assert [list(step) for step in steps] == [[*STEP_KEYS, "compute_us"]] * 5
    assert [step["t_us"] for step in steps] == [0, 1000, 2000, 3000, 4000]
    assert {step["file"] for step in steps} == {str(recording)}
    totals = summary["summary"]
    assert list(prediction) == ["prediction"]
    assert prediction["prediction"] == {
        "file": str(recording),
        "t_us": 5000,
        "begin_us": 0,
        "step": 4,
        "label": steps[-1]["label"],
        "class": str(steps[-1]["label"]),
        "confidence": steps[-1]["confidence"],
        "target": None,
        "events": totals["events"],
        "scores": steps[-1]["scores"],
    }
    assert set(totals) >= {
        "steps",
        "events",
        "events_per_s",
        "latency_us",
        "real_time_factor",
        "synops",
        "dropped",
        "idle",
        "samples",
        "none",
        "accuracy",
    }
    assert set(totals["latency_us"]) == {"p50", "p95", "p99", "max"}
    assert totals["steps"] == 5
    assert totals["events"] + totals["truncated"] == 400
    assert totals["accuracy"] is None


def test_a_labelled_folder_and_its_zip_give_accuracy_and_ids(
    mpsl: Run, model_file: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "test.zip", "w") as archive:
        for path in labelled_folder.rglob("*.bin"):
            archive.write(path, path.relative_to(labelled_folder))
    outputs = []
    outer = tmp_path / "outer"
    outer.mkdir()
    labelled_folder = labelled_folder.rename(outer / "data")
    for source in (outer, labelled_folder, labelled_folder / "Test", tmp_path / "test.zip"):
        code, out, _ = mpsl("run", model_file, source, "--json")
        assert code == 0
        items = [json.loads(line) for line in out.splitlines()]
        predictions = [item["prediction"] for item in items if "prediction" in item]
        assert [p["file"] for p in predictions][:3] == ["0/00000.bin", "0/00001.bin", "1/00000.bin"]
        right = sum(p["label"] == p["target"] for p in predictions)
        assert items[-1]["summary"]["accuracy"] == pytest.approx(right / 6)
        outputs.append(predictions)
    assert outputs == [outputs[0]] * 4


def test_native_and_reference_print_the_same_decisions(
    mpsl: Run, model_file: Path, labelled_folder: Path
) -> None:
    lines = {}
    for engine in ("native", "reference"):
        code, out, _ = mpsl("run", model_file, labelled_folder, "--json", "--engine", engine)
        assert code == 0
        lines[engine] = [line for line in out.splitlines() if "prediction" in line]
    assert lines["native"] == lines["reference"] != []


def test_any_number_of_threads_prints_the_same_decisions(
    mpsl: Run, model_file: Path, labelled_folder: Path
) -> None:
    found = []
    for threads in (1, 2, 5):
        code, out, _ = mpsl("run", model_file, labelled_folder, "--json", "--threads", threads)
        assert code == 0
        found.append([line for line in map(json.loads, out.splitlines()) if "prediction" in line])
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_people_get_a_line_a_step_and_totals(mpsl: Run, model_file: Path, recording: Path) -> None:
    code, out, _ = mpsl("run", model_file, recording)
    assert code == 0
    assert sum(" step " in line and " events " in line for line in out.splitlines()) == 5
    assert "latency of a step: p50" in out
    assert "times real time" in out


def test_the_first_mistake_of_every_kind_is_one_line_and_exit_2(
    mpsl: Run, write_model: Callable[..., Path], recording: Path, tmp_path: Path
) -> None:
    model, image = write_model(), write_model("image.nir", input_kind="image")
    foreign = write_model("foreign.nir", foreign=True)
    (tmp_path / "text.nir").write_text("hello")
    (tmp_path / "cut.bin").write_bytes(b"\x01\x02\x03")
    write_nmnist_bin(tmp_path / "outside.bin", Events.from_columns([0], [99], [0], [0]))
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "folder" / "1"
    folder.mkdir(parents=True)
    (folder / "00007.bin").write_bytes(b"\x01\x02\x03")
    (tmp_path / "wrong" / "9").mkdir(parents=True)
    (tmp_path / "wrong" / "9" / "a.bin").write_bytes(b"")
    (tmp_path / "bad.zip").write_text("hello")
    nan = write_model("nan.nir")
    with h5py.File(nan, "r+") as file:
        file["node/nodes/n02_fc/weight"][0, 0] = float("nan")
    cases: list[tuple[list[object], str]] = [
        (["run", model, tmp_path / "none.bin"], "no such file or folder"),
        (["run", tmp_path / "none.nir", recording], "none.nir"),
        (["run", tmp_path / "text.nir", recording], "text.nir"),
        (["run", nan, recording], "nan.nir"),
        (["run", model, tmp_path / "cut.bin", "--strict"], "not whole; got ends inside an event"),
        (["run", model, tmp_path / "folder"], "00007.bin"),
        (["run", model, tmp_path / "outside.bin"], "another sensor; got events up to x=99"),
        (["run", model, tmp_path / "empty"], "folder has no recordings"),
        (["run", model, tmp_path / "wrong"], "label is not a class; got '9'"),
        (["run", model, tmp_path / "bad.zip"], "damaged or truncated zip"),
        (["run", image, recording], "file holds no images; got a.bin"),
        (["run", foreign, recording], "--dt-s S, --steps T, --step-us N; or `mpsl import` first"),
        (["run", foreign, recording, "--dt-s", "1", "--step-us", "9"], "sinabs, --steps T; or"),
        (["run", model, recording, "--reset", "lost"], "says itself how it steps; got --reset"),
        (["run", foreign, recording, "--reset", "hard"], "got 'hard'; expected value or subtract"),
        (["run", model, recording, "--policy", "sliding", "--every", "99"], "so often"),
        (["run", model, recording, "--policy", "hop"], "unknown policy"),
        (["run", model, recording, "--steps", "0"], "Invalid value for '--steps'"),
        (["run", model, recording, "--engine", "gpu"], "unknown engine"),
        (["run", model, recording, "--threads", "4000"], "Invalid value for '--threads'"),
        (["run", model, recording, "--plot", tmp_path / "a.txt"], "unknown picture format"),
        (["run", model, "webcam://a:1"], "unknown kind of live source"),
        (["run", model, "udp://nowhere"], "not a live address"),
        (["run", model, "udp://localhost:1", "udp://localhost:2"], "stands alone"),
        (["run", model], "Missing argument"),
        (["run", model, recording, "--polcy", "x"], "No such option"),
        (["fly"], "No such command"),
        (["replay", recording], "too few arguments"),
        (["replay", recording, "localhost:1"], "not a live address"),
        (["inspect", tmp_path / "none.nir"], "no such file"),
        (["inspect", tmp_path / "text.nir"], "text.nir"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for words, what in cases:
        code, out, err = mpsl(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("mpsl: "), words
        assert err.count("\n") == 1, words
        assert what in err, words
    assert sorted(tmp_path.rglob("*")) == before


def test_a_foreign_model_runs_with_its_steps_given(
    mpsl: Run, write_model: Callable[..., Path], recording: Path
) -> None:
    words = ["--from", "nir", "--dt-s", "1e-4", "--steps", "3", "--step-us", "2000", "--json"]
    code, out, _ = mpsl("run", write_model(foreign=True), recording, *words)
    assert code == 0
    assert len(out.splitlines()) == 5


def test_ctrl_c_is_one_line_and_exit_130(
    mpsl: Run, model_file: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_verb, "_print_item", stop)
    assert mpsl("run", model_file, recording) == (130, "", "mpsl: interrupted\n")


def test_ctrl_c_on_a_live_source_ends_it_with_its_totals(
    mpsl: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mpsl_runtime.live.socket_queue.SocketQueue.take", stop)
    code, out, _ = mpsl("run", model_file, "udp://127.0.0.1:0", "--json")
    assert code == 0
    assert json.loads(out)["summary"]["steps"] == 0


def test_replay_and_run_meet_over_the_loopback(
    mpsl: Run, model_file: Path, recording: Path
) -> None:
    _, from_file, _ = mpsl("run", model_file, recording, "--json")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{free.getsockname()[1]}"

    def send() -> None:
        from mpsl_runtime.live.replay import replay

        for _ in range(5):  # until somebody listens; the end of the first replay ends the run
            time.sleep(0.3)
            replay([recording], address)

    sender = threading.Thread(target=send)
    sender.start()
    code, live, err = mpsl("run", model_file, address, "--json", "--timeout-s", "10")
    sender.join(timeout=20)
    assert code == 0
    assert err == f"mpsl: listening at {address}\n"

    def decisions(text: str) -> list[Any]:
        items = [json.loads(line) for line in text.splitlines()][:-1]
        return [(i.get("step"), i.get("prediction", i)["scores"]) for i in items]

    assert decisions(live) == decisions(from_file)


def test_a_fault_of_ours_is_one_line_and_exit_70_and_debug_shows_where(
    mpsl: Run, model_file: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise AttributeError("lost\n" + "x" * 1000)

    monkeypatch.setattr(run_verb, "print_summary", fault)
    code, _, err = mpsl("run", model_file, recording)
    assert code == cli.Code.FAULT == 70
    assert err.startswith("mpsl: fault in mpsl itself: AttributeError: lost x")
    assert err.endswith("(mpsl --debug … shows where)\n")
    assert len(err) < 320
    assert err.count("\n") == 1
    code, _, err = mpsl("--debug", "run", model_file, recording)
    assert code == 70
    assert "Traceback (most recent call last):" in err
    assert "in fault" in err
    assert "mpsl: fault in mpsl itself" in err


def test_no_number_of_any_verb_is_nan(mpsl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(app: typer.Typer) -> None:
        def tune(gain_db: float = 1.0) -> None:
            raise AssertionError

        group = typer.Typer()
        group.command("deep")(tune)
        app.command("tune")(tune)
        app.add_typer(group, name="more")

    class AddOn:
        name, dist = "tuner", None

        def load(self) -> Callable[[typer.Typer], None]:
            return register

    monkeypatch.setattr(cli, "entry_points", lambda group: [AddOn()])
    for words in (["tune"], ["more", "deep"]):
        code, _, err = mpsl(*words, "--gain-db", "nan")
        assert (code, err) == (2, "mpsl: no number; got nan; expected a number; in --gain-db\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "0"], "'--steps': Input should be greater than or equal to 1; got 0 (try"),
        (["--steps=-7"], "equal to 1; got -7 (try"),
        (["--steps", "many"], "; got many (try"),
        (["--dt-s", "nan"], "; got nan (try"),
        (["--steps"], "Option '--steps' requires an argument. (try"),
    ],
)
def test_an_option_out_of_its_range_says_what_was_given(
    mpsl: Run, words: list[str], said: str
) -> None:
    code, out, err = mpsl("run", "a.nir", "a.csv", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_debug_shows_where_bad_input_was_found_too(mpsl: Run) -> None:
    code, _, err = mpsl("--debug", "inspect", "none.nir")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1] == "mpsl: no such file or folder; in none.nir"


def test_the_help_says_what_each_exit_code_means(mpsl: Run) -> None:
    out = mpsl("--help")[1]
    for code in cli.Code:
        assert f"\n    {code:<4} " in out, code


def test_a_full_disk_is_one_line(
    mpsl: Run, model_file: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), "out.png")

    monkeypatch.setattr(run_verb, "print_summary", full)
    code, _, err = mpsl("run", model_file, recording)
    assert (code, err) == (2, "mpsl: No space left on device; in out.png\n")


def test_a_reader_that_leaves_early_is_no_error(model_file: Path, labelled_folder: Path) -> None:
    command = "from mpsl_runtime.cli import main; import sys; main(sys.argv[1:])"
    words = [sys.executable, "-c", command, "run", str(model_file), str(labelled_folder), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"BrokenPipe" not in process.stderr.read()
        assert process.wait(timeout=30) in (0, 141)
