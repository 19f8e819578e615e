"""Runs the plug-ins of a recipe, so that their rules are known by name."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from pathlib import Path

from mpsl_runtime.errors import RecipeError
from mpsl_train.network.plasticity.rule import load_rules
from mpsl_train.recipe.plugins import allow, code_of, pinned

__all__ = ["load_plugin", "run_plugin"]


class _Content(importlib.abc.SourceLoader):
    """A module out of the very bytes whose hash was checked."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content

    def get_filename(self, fullname: str) -> str:
        """For tracebacks."""
        return self._name

    def get_data(self, path: str | bytes) -> bytes:
        """The source; there is no cached bytecode."""
        if path != self._name:
            raise OSError("no such file")
        return self._content


def run_plugin(entry: str) -> None:
    """Imports a plug-in of a complete recipe.

    Args:
        entry: as `mpsl_train.recipe` has it, with its hash.

    Raises:
        RecipeError: the user has not named it, or it fails to import.
    """
    name, content = code_of(entry)
    load_rules()  # the built-in names are taken first
    try:
        if content is None:
            importlib.import_module(name)
            return
        module_name = f"mpsl_plugin_{Path(name).stem}"
        loader = _Content(name, content)
        spec = importlib.util.spec_from_loader(module_name, loader)
        if spec is None:
            raise ImportError(name)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        loader.exec_module(module)
    except RecipeError:
        raise
    except Exception as error:  # whatever a user's file raises is the user's to read, in one line
        raise RecipeError(
            "plug-in cannot be imported", got=f"{type(error).__name__}: {error}", where=name
        ) from error


def load_plugin(source: str) -> None:
    """Imports a rule of one's own: a path to a Python file, or the name of an installed module.

    Raises:
        RecipeError: it is not there, or fails to import.
    """
    allow(source)
    run_plugin(pinned(source, Path()))
