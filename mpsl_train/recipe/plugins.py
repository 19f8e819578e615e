"""Plug-ins: code that a recipe names, and that runs only where the user has named it too.

A recipe, or a run folder, may come from a stranger; reading it runs nothing. In a complete recipe a
plug-in stands with the hash of its content, `plugins/plain.py#sha256=…`, and the run folder has a
copy: the run is the same on another machine, and the recipe hash tells of the code too.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from mpsl_runtime.errors import RecipeError
from mpsl_runtime.run_folder import RunFolder

__all__ = ["allow", "allowed_sources", "code_of", "pinned", "save_plugins"]

_MARK = "#sha256="
_LARGEST_BYTES = 1 << 20
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.py")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

# What the user of this process has named: sha256 or module -> how it was named.
_ALLOWED: dict[str, str] = {}
# What has been read, by its sha256.
_CONTENTS: dict[str, bytes] = {}


def allow(source: str) -> None:
    """The user names a plug-in: a Python file, or an installed module. It may run from now on.

    Raises:
        RecipeError: the file cannot be read, or is no name of a module.
    """
    if not source.endswith(".py"):
        _check_module(source)
        _ALLOWED[source] = source
        return
    _ALLOWED[_read(Path(source))] = str(Path(source).resolve())


def allowed_sources() -> list[str]:
    """The files and modules that were named, for the processes that this one starts."""
    return list(dict.fromkeys(_ALLOWED.values()))


def pinned(entry: str, folder: Path) -> str:
    """An entry of a recipe's `plugins` with the hash of its content; nothing is run.

    Args:
        entry: a Python file, seen from `folder`, or an installed module; with or without a hash.

    Returns:
        `plugins/NAME.py#sha256=…`; of a module that nobody has named, the entry.

    Raises:
        RecipeError: it cannot be read, or has another hash than the entry says.
    """
    source, mark, said = entry.partition(_MARK)
    if not source.endswith(".py"):
        _check_module(source)
        if source not in _ALLOWED:
            return entry
        found = _read(_module_file(source))
        shown = source
    else:
        path = folder / source
        # A recipe in the journal of a sweep has no folder of its own.
        found = said if said in _CONTENTS and not path.is_file() else _read(path)
        shown = f"{RunFolder.plugins.name}/{path.name}"
    if mark and said != found:
        raise RecipeError(
            "plug-in is not the one that the recipe names", got=f"sha256 {found[:12]}…",
            expected=f"{said[:12]}…", where=source,
        )  # fmt: skip
    return f"{shown}{_MARK}{found}"


def code_of(entry: str) -> tuple[str, bytes | None]:
    """What is to run for an entry of a complete recipe.

    Returns:
        (name, content): of a file; of a module its name and None.

    Raises:
        RecipeError: the user has not named it.
    """
    source, _, digest = entry.partition(_MARK)
    if source.endswith(".py"):
        if digest in _ALLOWED and digest in _CONTENTS:
            return source, _CONTENTS[digest]
    elif source in _ALLOWED:
        return source, None
    raise RecipeError(
        "plug-in is code that nobody has named here", got=source,
        expected=f"--plugins {Path(source).name}, once you have read it",
        where="recipe key plugins",
    )  # fmt: skip


def save_plugins(entries: Sequence[str], run: RunFolder) -> None:
    """Copies the files among a recipe's plug-ins into the run folder.

    Raises:
        OSError: they cannot be written. RecipeError: the user has not named one.
    """
    for entry in entries:
        source, content = code_of(entry)
        if content is not None:
            run.plugins.mkdir(exist_ok=True)
            (run.plugins / Path(source).name).write_bytes(content)


def _read(path: Path) -> str:
    """The sha256 of a plug-in, whose content is known from now on."""
    if not _FILE.fullmatch(path.name):
        raise RecipeError(
            "plug-in has no plain name",
            got=repr(path.name),
            expected="letters, digits, _ - and .py",
        )
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError("no such file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise OSError("more than 1 MiB")
    except (OSError, ValueError) as error:
        raise RecipeError("plug-in cannot be read", got=error, where=path) from error
    digest = hashlib.sha256(content).hexdigest()
    _CONTENTS[digest] = content
    return digest


def _check_module(source: str) -> None:
    if not _MODULE.fullmatch(source):
        raise RecipeError(
            "plug-in is neither a file nor a module", got=repr(source[:100]),
            expected="NAME.py or package.module",
        )  # fmt: skip


def _module_file(source: str) -> Path:
    """Where a module that the user has named lies; its package is imported to know it."""
    try:
        spec = importlib.util.find_spec(source)
    except Exception as error:  # whatever the package raises is the user's to read, in one line
        raise RecipeError(
            "plug-in cannot be imported", got=f"{type(error).__name__}: {error}", where=source
        ) from error
    if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        raise RecipeError("no such module of Python code", where=source)
    return Path(spec.loader.path)
