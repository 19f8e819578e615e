"""Files appear whole or not at all, one or several together.

What is written goes into a stage, a hidden folder beside the target, and is renamed from there. A
stage is locked while its writer lives; one that a killed writer left is undone and removed by the
next writer in the same folder, or by `sweep`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mpsl_runtime.errors import OutputError

__all__ = ["replacing", "replacing_often", "replacing_together", "stage_in", "sweep"]

_PREFIX = ".mpsl-stage-"
_STAGE = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")
# In a stage: new files; copies of the files that they replace; and, while files are being renamed,
# a list of their names, so that a killed writer's half can be undone.
_NEW, _OLD, _BEGUN = "new", "old", "begun"
_LONGEST_LIST = 1 << 16


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path; renames the file there to `path` when the block ends.

    The temporary path has the name of `path`, for writers that go by it. When the block raises, or
    writes nothing, `path` is left as it was.

    Raises:
        OutputError: the folder is absent or not writable, or the disk is full.
    """
    with _staged(path.parent, [path.name], path, keep=True) as new:
        yield new / path.name


@contextmanager
def replacing_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields an empty folder for new files of these names; when the block ends, `folder` has all of
    them, and none of the names that the block did not write: one step, seen from any later program.

    When the block raises, or a file cannot be put in place, `folder` is as it was.

    Raises:
        OutputError: the folder is absent or not writable, or the disk is full.
    """
    with _staged(folder, list(dict.fromkeys(names)), folder) as new:
        yield new


@contextmanager
def replacing_often(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yields a function that makes bytes the content of `path`, whole or not at all, however often
    it is called: a program that is killed leaves what it wrote last. It does not wait for the disk.

    Raises:
        OutputError: the folder is absent or not writable; from the function, the disk is full.
    """
    _check_target(path)
    with ExitStack() as stack:
        try:
            new = stack.enter_context(stage_in(path.parent))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError("cannot write output", got=reason, where=path) from error

        def replace(content: bytes) -> None:
            try:
                (new / path.name).write_bytes(content)
                (new / path.name).replace(path)
            except OSError as error:
                reason = error.strerror or error
                raise OutputError("cannot write output", got=reason, where=path) from error

        yield replace


@contextmanager
def stage_in(folder: Path) -> Iterator[Path]:
    """Yields an empty hidden folder in `folder`, to be filled and renamed from there; whatever is
    left of it when the block ends is removed, and so is what killed writers left.

    Raises:
        OSError: it cannot be made.
    """
    sweep(folder)
    with ExitStack() as stack:
        stage = _new_stage(folder, stack)
        try:
            yield stage / _NEW
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what killed writers left in `folder`; files that they had replaced in part are put
    back as they were. A folder that is absent or not ours to write is left alone."""
    try:
        stages = [entry for entry in folder.iterdir() if _STAGE.fullmatch(entry.name)]
    except (OSError, ValueError):
        return
    for stage in stages:
        # ValueError: a list that is no text. The stage may be a stranger's, like its folder.
        with suppress(OSError, ValueError), _locked(stage, wait=False):
            _undo(stage)
            shutil.rmtree(stage)


@contextmanager
def _staged(
    folder: Path, names: Sequence[str], where: Path, *, keep: bool = False
) -> Iterator[Path]:
    """A stage in `folder`, put in place at the end.

    Args:
        where: named in errors. keep: leave names as they are that were not written.
    """
    for name in names:
        _check_target(folder / name)
    sweep(folder)
    with ExitStack() as stack:
        try:
            stage = _new_stage(folder, stack)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            reason = getattr(error, "strerror", None) or error
            raise OutputError("cannot write output", got=reason, where=where) from error
        try:
            new = stage / _NEW
            yield new
            _put_in_place(stage, [n for n in names if not keep or (new / n).exists()])
        except OSError as error:
            reason = error.strerror or error
            raise OutputError("cannot write output", got=reason, where=where) from error
        finally:
            # Where even undoing failed, the next writer tries it again.
            if not (stage / _BEGUN).exists():
                shutil.rmtree(stage, ignore_errors=True)


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise OutputError("output is a folder", expected="a file name", where=path)
    if path.exists() and not path.is_file():
        # To rename onto /dev/null would be the end of it, for everybody, where root does it.
        raise OutputError(
            "output is no plain file",
            got="a device, pipe or socket",
            expected="a file name",
            where=path,
        )


def _new_stage(folder: Path, stack: ExitStack) -> Path:
    """An empty stage, locked until `stack` closes."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        try:
            stack.enter_context(_locked(stage, wait=True))
            (stage / _NEW).mkdir()
        except FileNotFoundError:
            # Another writer swept it between its making and the lock.
            continue
        return stage


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Holds the lock of a stage; the system lets go of it when the process ends, however it ends.

    Raises:
        OSError: another holds it (only without `wait`), or the folder is gone.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            # A file system without locks: there nothing is swept, and nothing is lost.
            if not wait:
                raise
        yield
    finally:
        os.close(handle)


def _put_in_place(stage: Path, names: Sequence[str]) -> None:
    """Renames the new files; if one cannot be, all are as they were, and OSError is raised."""
    folder, new = stage.parent, stage / _NEW
    umask = os.umask(0)
    os.umask(umask)
    for file in new.iterdir():
        file.chmod(0o666 & ~umask)
    if len(names) == 1 and (new / names[0]).exists():
        (new / names[0]).replace(folder / names[0])
        return
    (stage / _OLD).mkdir()
    for name in names:
        if (folder / name).exists():
            _copy(folder / name, stage / _OLD / name)
    (stage / "list").write_text("\0".join(names), "utf-8")
    (stage / "list").rename(stage / _BEGUN)
    try:
        for name in names:
            if (new / name).exists():
                (new / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    except OSError:
        _undo(stage)
        raise
    (stage / _BEGUN).unlink()


def _undo(stage: Path) -> None:
    """Puts back what a stage began to replace; nothing where it had not begun, or had ended."""
    if not (stage / _BEGUN).is_file():
        return
    if (stage / _BEGUN).stat().st_size > _LONGEST_LIST:
        raise OSError("stage names more files than any step of ours")
    for name in (stage / _BEGUN).read_text("utf-8").split("\0"):
        if Path(name).name != name:
            raise OSError("stage names a file outside its folder")
        old, target = stage / _OLD / name, stage.parent / name
        if (stage / _NEW / name).exists():
            continue  # it was not put in place
        if not old.exists():
            target.unlink(missing_ok=True)
        elif not (target.exists() and target.samefile(old)):
            # A copy of the copy, so that an end in the middle of this can be undone too.
            _copy(old, stage / "back")
            (stage / "back").replace(target)
    (stage / _BEGUN).unlink()


def _copy(source: Path, target: Path) -> None:
    """A second name of the same file, or, where a file system has no such thing, a copy."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
