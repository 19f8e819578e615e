"""Files appear whole or not at all: when a block fails, when the disk fails, and after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpsl_runtime.atomic import replacing, replacing_together, sweep
from mpsl_runtime.errors import OutputError

NAMES = ("a.txt", "b.txt", "c.txt")


def contents(folder: Path) -> dict[str, str]:
    """Everything that lies in a folder, hidden stages too."""
    return {
        path.name: path.read_text() if path.is_file() else "a folder" for path in folder.iterdir()
    }


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


def test_a_file_is_replaced_in_one_step_and_readable_by_all(tmp_path: Path) -> None:
    fill(tmp_path, a="old")
    with replacing(tmp_path / "a.txt") as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert contents(tmp_path) == {"a.txt": "new"}
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_block_that_raises_or_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, a="old")

    def broken() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    with replacing(tmp_path / "a.txt"):
        pass
    assert contents(tmp_path) == {"a.txt": "old"}


def test_files_are_replaced_together_and_the_rest_of_the_names_removed(tmp_path: Path) -> None:
    fill(tmp_path, a="old", b="old", d="mine")
    with replacing_together(tmp_path, (*NAMES, "a.txt")) as stage:
        (stage / "a.txt").write_text("new")
        (stage / "c.txt").write_text("new")
    assert contents(tmp_path) == {"a.txt": "new", "c.txt": "new", "d.txt": "mine"}


def test_when_the_second_file_cannot_be_put_in_place_the_first_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, a="old", c="old")
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target == tmp_path / "b.txt":
            raise PermissionError(1, "Operation not permitted")
        return rename(self, target)

    def write() -> None:
        with replacing_together(tmp_path, NAMES) as stage:
            fill(stage, a="new", b="new", c="new")
            monkeypatch.setattr(Path, "replace", failing)

    with pytest.raises(OutputError, match="not permitted"):
        write()
    assert contents(tmp_path) == {"a.txt": "old", "c.txt": "old"}


def test_a_folder_in_the_way_and_an_absent_folder_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    def write(folder: Path) -> None:
        with replacing_together(folder, NAMES) as stage:
            fill(stage, a="new")

    with pytest.raises(OutputError, match="output is a folder"):
        write(tmp_path)
    with pytest.raises(OutputError, match="No such file or directory"):
        write(tmp_path / "absent")


KILLED = """
import os, signal, sys
from pathlib import Path
from mpsl_runtime.atomic import replacing_together
folder, after = Path(sys.argv[1]), int(sys.argv[2])
renamed = 0
rename = Path.replace
def counting(self, target):
    global renamed
    rename(self, target)
    renamed += target.parent == folder
    if renamed == after:
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = counting
with replacing_together(folder, ["a.txt", "b.txt", "c.txt"]) as stage:
    for name in ("a.txt", "b.txt"):
        (stage / name).write_text("new")
    if after == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_a_killed_writer_left_is_undone_at_the_next_start(tmp_path: Path, after: int) -> None:
    fill(tmp_path, a="old", c="old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(after)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == ("new" if after else "old")
    assert len(contents(tmp_path)) > 2
    sweep(tmp_path)
    assert contents(tmp_path) == {"a.txt": "old", "c.txt": "old"}


def test_the_next_writer_sweeps_too_but_not_the_stage_of_one_that_lives(tmp_path: Path) -> None:
    (tmp_path / ".mpsl-stage-12345678" / "new").mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from mpsl_runtime.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('slow'); print('ready', flush=True); sys.stdin.read()"
    )
    slow = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "b.txt")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert slow.stdout is not None
    assert slow.stdout.readline() == "ready\n"
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("fast")
    assert "a.txt" in contents(tmp_path)
    assert ".mpsl-stage-12345678" not in contents(tmp_path)
    assert len(contents(tmp_path)) == 2
    slow.communicate()
    assert slow.returncode == 0
    assert contents(tmp_path) == {"a.txt": "fast", "b.txt": "slow"}


def test_a_stage_of_a_stranger_reaches_no_file_outside_its_folder(tmp_path: Path) -> None:
    folder, stage = tmp_path / "run", tmp_path / "run" / ".mpsl-stage-abcdefgh"
    (stage / "old").mkdir(parents=True)
    fill(tmp_path, a="mine")
    (stage / "begun").write_text("../a.txt")
    (folder / ".mpsl-stage-linked00").symlink_to(tmp_path)
    sweep(folder)
    assert (tmp_path / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("listed", [b"\xff\xfe", b"a.txt\0" * 20_000, b"", b"\0\0", b"."])
def test_a_list_that_is_none_of_ours_neither_stops_a_writer_nor_removes_a_file(
    tmp_path: Path, listed: bytes
) -> None:
    stage = tmp_path / ".mpsl-stage-abcdefgh"
    (stage / "old").mkdir(parents=True)
    (stage / "begun").write_bytes(listed)
    fill(tmp_path, a="mine")
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert (tmp_path / "b.txt").read_text() == "new"


def test_a_folder_that_no_name_can_have_is_one_line() -> None:
    with pytest.raises(OutputError, match="null byte"), replacing(Path("a\0b/c")):
        pass


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    """As root, to rename a file onto /dev/null would take it from every program."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        before = path.stat()
        with pytest.raises(OutputError, match="no plain file"), replacing(path) as temporary:
            temporary.write_bytes(b"x")
        after = path.stat()
        assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
