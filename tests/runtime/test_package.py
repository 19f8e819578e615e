"""The package itself: quick to import, alone, with public names in order."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mpsl_runtime

MODULES = sorted(
    module.name.removeprefix("mpsl_runtime.")
    for module in pkgutil.walk_packages(mpsl_runtime.__path__, "mpsl_runtime.")
    if not module.ispkg and not module.name.endswith("._native")
)


def constants_then_classes(name: str) -> tuple[bool, bool, str]:
    """The order that the linter keeps."""
    return not name.isupper(), not name[0].isupper(), name


@pytest.mark.parametrize("name", ["", *MODULES])
def test_public_names_are_sorted_and_there(name: str) -> None:
    assert len(MODULES) > 30
    module = importlib.import_module(f"mpsl_runtime.{name}" if name else "mpsl_runtime")
    names = list(module.__all__)
    assert names
    assert names == sorted(names, key=constants_then_classes)
    for public in names:
        assert hasattr(module, public)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = mpsl_runtime.laod  # type: ignore[attr-defined]
    assert set(mpsl_runtime.__all__) <= set(dir(mpsl_runtime))


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_but_itself() -> None:
    """Without `site`, whose hooks for editable installs load some of the standard library."""
    home = Path(str(mpsl_runtime.__file__)).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(home)!r}); before = set(sys.modules)\n"
        "import mpsl_runtime\nprint(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__future__", "mpsl_runtime"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import mpsl_runtime")
    assert not loaded & {"numpy", "nir", "h5py", "lz4", "typer", "torch", "matplotlib"}


def test_a_model_class_needs_no_unpacker_and_no_training_framework() -> None:
    loaded = modules_after("import sys; sys.modules['lz4'] = None\nimport mpsl_runtime.run.model")
    assert "mpsl_runtime.run.stream" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "matplotlib", "lightning", "mpsl_train"}
