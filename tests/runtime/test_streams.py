"""Where `mpsl` prints: closed and full streams, poor encodings, names that are no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.terminal import show_json

MPSL = [sys.executable, "-c", "from mpsl_runtime.cli import main; main()"]


@pytest.fixture
def recording(tmp_path: Path, make_events: Callable[..., Events]) -> Path:
    write_nmnist_bin(tmp_path / "a.bin", make_events(1, 40))
    return tmp_path / "a.bin"


def mpsl(
    *words: object, redirect: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command with `redirect` as a shell would read it."""
    script = f'exec "$@" {redirect}'
    command = ["/bin/sh", "-c", script, "sh", *MPSL, *(os.fsencode(str(word)) for word in words)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=False, timeout=60
    )


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_closed_stream_is_as_good_as_none(
    model_file: Path, recording: Path, redirect: str, json_option: list[str]
) -> None:
    done = mpsl("run", model_file, recording, *json_option, redirect=redirect)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (" >&-" not in f" {redirect}")


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_a_mistake_ends_with_2_though_nobody_can_be_told(redirect: str) -> None:
    done = mpsl("inspect", "none.nir", redirect=redirect)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == (0 if "2>&-" in redirect else 1)


def test_what_is_printed_never_lands_in_a_file_that_is_opened(
    model_file: Path, recording: Path
) -> None:
    before = model_file.read_bytes(), recording.read_bytes()
    mpsl("run", model_file, recording, redirect=">&- 2>&- <&-")
    assert (model_file.read_bytes(), recording.read_bytes()) == before


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"], ["RUN"]])
def test_a_full_disk_for_stdout_is_one_line(
    model_file: Path, recording: Path, words: list[str]
) -> None:
    command = ["run", model_file, recording, "--json"] if words == ["RUN"] else words
    done = mpsl(*command, redirect=">/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith(b"mpsl: ")
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


def test_a_full_disk_for_stderr_leaves_the_exit_code() -> None:
    done = mpsl("inspect", "none.nir", redirect="2>/dev/full")
    assert (done.returncode, done.stdout) == (2, b"")
    done = mpsl("inspect", "none.nir", redirect=">/dev/full 2>/dev/full")
    assert (done.returncode, done.stderr) == (2, b"")


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C"},
     {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)  # fmt: skip
def test_a_terminal_that_lacks_characters_gets_them_escaped(
    write_model: Callable[..., Path], recording: Path, environment: dict[str, str]
) -> None:
    model = write_model("modèle-Σ.nir", classes="一,Σ,é")
    for words in (["--help"], ["run", model, recording], ["inspect", model], ["run", model, "Σ"]):
        done = mpsl(*words, **environment)
        assert done.returncode == (2 if words[-1] == "Σ" else 0), words
        assert b"Traceback" not in done.stderr
        assert done.stdout or done.stderr.count(b"\n") == 1
    if environment.get("PYTHONIOENCODING") == "ascii":
        assert b"\\u4e00" in mpsl("inspect", model, **environment).stdout


def test_a_path_that_is_not_utf_8_works_and_is_shown_escaped(
    model_file: Path, recording: Path, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "caf") + b"\xe9\x1b[31m"
    os.mkdir(folder)  # noqa: PTH102
    odd = folder + b"/a.bin"
    Path(os.fsdecode(odd)).write_bytes(recording.read_bytes())
    name = os.fsdecode(odd)
    done = mpsl("run", model_file, name)
    assert done.returncode == 0
    assert b"\\xe9\\x1b[31m/a.bin: " in done.stdout
    assert b"\x1b" not in done.stdout
    done = mpsl("run", model_file, name, "--json")
    files = {json.loads(line).get("file") for line in done.stdout.splitlines()} - {None}
    assert files == {name}
    done = mpsl("run", model_file, name + "x")
    assert done.returncode == 2
    assert b"\\xe9\\x1b[31m/a.binx" in done.stderr
    assert done.stderr.count(b"\n") == 1
    done.stderr.decode("ascii")


def test_json_has_null_where_json_has_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": [float("nan"), float("inf"), 1.5], "b": Path("x"), "c": (1, "\udcff\x1b")})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"a": [None, None, 1.5], "b": "x", "c": [1, "\udcff\x1b"]}
