"""The package keeps the house rules."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import mpsl_export

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mpsl_export.__path__, "mpsl_export.")
    if not module.ispkg or module.name.endswith("backends")
)


def test_every_module_is_found() -> None:
    assert {"mpsl_export.merge", "mpsl_export.verify.backends.onnx_runtime"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_listed_sorted_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    names = module.__all__
    assert list(names) == sorted(names, key=lambda word: (not word.isupper(), word))
    for public in names:
        value = getattr(module, public)
        if callable(value):
            assert value.__doc__, f"{name}.{public}"


@pytest.mark.parametrize("name", MODULES)
def test_a_file_has_under_400_lines(name: str) -> None:
    source = importlib.import_module(name).__file__
    assert source is not None
    assert len(Path(source).read_text(encoding="utf-8").splitlines()) < 400
