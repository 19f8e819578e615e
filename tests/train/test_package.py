"""What holds for every module of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mpsl_train"
TESTS = Path(__file__).resolve().parent


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_no_function_is_longer_than_sixty_lines(folder: Path) -> None:
    lengths = {
        f"{path.relative_to(folder)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_no_test_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in TESTS.rglob("*.py")}
    assert len(lengths) > 20
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}
