"""The stub of the C++ part says what the built module says of itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mpsl_train

_native = pytest.importorskip("mpsl_train._native", reason="mpsl was installed without C++")
STUB = Path(str(mpsl_train.__file__)).parent / "_native.pyi"


def _signature(function: ast.FunctionDef) -> tuple[list[str], str]:
    """Types of the arguments and of the result, aliases of the stub resolved."""
    arguments = function.args.posonlyargs
    assert function.args.args == [], "the module knows no names of arguments"
    types = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation]
    assert len(types) == len(arguments)
    assert function.returns is not None
    shape = "tuple[int, int, int, int]"
    return [kind.replace("_Shape", shape) for kind in types], ast.unparse(function.returns)


def _built(text: str) -> tuple[list[str], str]:
    """The same of nanobind's docstring, `name(arg0: int, …, /) -> None`."""
    arguments, result = text.split(") -> ")
    return re.findall(r"arg\d+: (tuple\[[^]]*\]|\w+)", arguments), result


@pytest.mark.parametrize("numbers", ["float32", "float64"])
def test_the_stub_has_the_functions_of_the_module_with_their_types(numbers: str) -> None:
    tree = ast.parse(STUB.read_text("utf-8"))
    (functions,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    stubs = {node.name: node for node in functions.body if isinstance(node, ast.FunctionDef)}
    module = getattr(_native, numbers)
    there = {name for name in dir(module) if not name.startswith("_")}
    assert set(stubs) == there
    for name in sorted(there):
        assert _signature(stubs[name]) == _built(getattr(module, name).__doc__), name


def test_the_stub_has_all_that_the_module_has() -> None:
    tree = ast.parse(STUB.read_text("utf-8"))
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named |= {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert named == {name for name in dir(_native) if not name.startswith("_")}
