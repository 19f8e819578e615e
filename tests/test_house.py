"""The house keeps its own rules: the README's tree, public names, size of files, what imports."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mpsl_runtime import cli

ROOT = Path(__file__).resolve().parent.parent
_SPEC = importlib.util.spec_from_file_location("trees", ROOT / "tests" / "trees.py")
assert _SPEC is not None
assert _SPEC.loader is not None
trees = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(trees)
PRINTING = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
PACKAGES = {
    "mpsl_train": ROOT / "mpsl_train",
    "mpsl_export": ROOT / "mpsl_export",
    "mpsl_runtime": ROOT / "runtime" / "mpsl_runtime",
}


def _modules() -> list[Path]:
    return sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def _tree() -> list[str]:
    """Paths named in the README's annotated tree, relative to the checkout."""
    block = trees.parts(ROOT / "README.md")[1]
    found: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in block.strip("\n").splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.split(r" {2,}", line.strip())[0].split()
        while folders and folders[-1][0] >= indent:
            folders.pop()
        parent = folders[-1][1] if folders else ""
        found += [parent + name for name in names]
        if names and names[0].endswith("/"):
            folders.append((indent, parent + names[0]))
    return found


def test_every_path_of_the_tree_in_the_readme_exists() -> None:
    tree = _tree()
    assert len(tree) > 20
    assert [name for name in tree if not (ROOT / name).exists()] == []


def test_every_room_stands_in_the_tree_of_the_readme() -> None:
    tree = {name.rstrip("/") for name in _tree()}
    rooms = {str(path.parent.relative_to(ROOT)) for path in _modules()}
    assert sorted(rooms - tree) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_of_a_package_shows_its_modules(package: str) -> None:
    shown = trees.parts(trees.PACKAGES[package][1])[1]
    assert shown == trees.tree(package), "docstrings have changed: `make tree` writes it anew"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_public_names_are_listed_sorted_and_there(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
    ]
    assert ast.get_docstring(tree), "a module says what it is"
    if path.name == "__init__.py" and not listed:
        return
    assert len(listed) == 1
    assert sorted(listed[0], key=str) == sorted(set(listed[0]), key=str)
    package = next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))
    relative = path.relative_to(PACKAGES[package]).with_suffix("")
    parts = [part for part in relative.parts if part != "__init__"]
    module = importlib.import_module(".".join([package, *parts]))
    assert [name for name in listed[0] if not hasattr(module, name)] == []


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    native = [ROOT / "runtime" / "src", ROOT / "mpsl_train" / "src"]
    sources = [*_modules(), *(ROOT / "tests").rglob("*.py")]
    for folder in native:
        found = list(folder.rglob("*.?pp"))
        assert len(found) > 5
        sources += found
    assert len(sources) > 200
    long = {str(p): n for p in sources if (n := len(p.read_text("utf-8").splitlines())) > 400}
    assert long == {}


def test_everything_that_is_printed_goes_through_one_module() -> None:
    """It escapes what a terminal would obey, and survives a poor encoding and a full disk."""
    printing = {
        f"{path.parent.name}/{path.name}:{node.lineno}"
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING
    }
    assert printing == set()


def test_no_function_is_longer_than_sixty_lines() -> None:
    """Docstring and body: the options of a verb are as many as they are."""
    functions = [
        (path.name, node.name, (node.end_lineno or 0) - node.body[0].lineno + 1)
        for path in [*_modules(), *(ROOT / "tests").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 2000
    assert [function for function in functions if function[2] > 60] == []


@pytest.mark.parametrize("name", ["native", "runtime", "models", "tests"])
def test_folders_of_the_checkout_are_not_importable(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-I", "-c", f"import {name}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in result.stderr


def test_the_command_line_starts_without_heavy_imports(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mpsl_runtime.cli import main\n"
        "sys.argv = ['mpsl', '--help']\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'lightning', 'onnx', 'tonic', 'matplotlib', 'sklearn', 'pydantic'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HEAVY []" in result.stdout
    for verb in ("train", "export", "verify", "run", "replay", "inspect", "data"):
        assert re.search(rf"^  {verb} +\w", result.stdout, re.M), verb
    assert result.stderr == ""


def _verbs(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb of `mpsl` with its words, `data make` too."""
    for name, verb in group.commands.items():
        if getattr(verb, "commands", None):
            yield from _verbs(verb, (*words, name))
        else:
            yield (*words, name), verb


def test_every_number_of_the_command_line_has_a_least_and_a_largest_value() -> None:
    found = 0
    for words, verb in _verbs(typer.main.get_command(cli.build())):
        for option in verb.params:
            kind = str(option.type_descriptor.annotation)
            if "int" in kind or "float" in kind:
                found += 1
                assert None not in (option.min, option.max), (words, option.opts)
    assert found > 40
