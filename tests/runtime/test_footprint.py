"""What an edge box has to carry: the size of our code, and of all that comes with it.

Times (import, load and first step) depend on the machine and are measured by
`tests/benchmarks/startup.py`.
"""

from __future__ import annotations

import importlib.util
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement  # pytest needs it too

import mpsl_runtime
from mpsl_runtime import _native

# Packed, as in the wheel. The small models that travel beside the code count in neither figure;
# tests/test_wheels.py bounds them.
LARGEST_CODE = 500_000
LARGEST_INSTALLATION = 122_000_000


def needed(name: str, found: dict[str, int]) -> None:
    """Adds to `found` the bytes that `name`, and what it needs without extras, has installed."""
    name = name.lower().replace("_", "-")
    if name in found:
        return
    distribution = metadata.distribution(name)
    paths = [Path(str(file.locate())) for file in distribution.files or []]
    files = [path for path in paths if path.is_file() and path.suffix != ".nir"]
    found[name] = sum(path.stat().st_size for path in files)
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, found)


def test_the_runtime_and_what_it_needs_take_up_to_122_mb() -> None:
    found: dict[str, int] = {}
    needed("mpsl-runtime", found)
    assert {"mpsl-runtime", "numpy", "nir", "h5py", "lz4", "typer"} <= set(found)
    assert not set(found) & {"faery", "torch", "onnx", "scipy", "pandas", "numba", "matplotlib"}
    assert found["numpy"] > 10_000_000, "its files were not found"
    assert sum(found.values()) <= LARGEST_INSTALLATION, found


def test_our_code_takes_up_to_500_kb(tmp_path: Path) -> None:
    """Packed here as a wheel is, from the files that are installed."""
    package = Path(str(mpsl_runtime.__file__)).parent
    files = [*package.rglob("*.py"), *package.glob("*.pyi"), package / "py.typed"]
    assert len(files) > 30
    native = importlib.util.find_spec("mpsl_runtime._native")
    assert native is not None
    assert native.origin == _native.__file__
    wheel = tmp_path / "mpsl_runtime.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in [*files, Path(str(_native.__file__))]:
            within = file.relative_to(package) if file.is_relative_to(package) else file.name
            packed.write(file, f"mpsl_runtime/{within}")
        for file in metadata.files("mpsl-runtime") or []:
            if ".dist-info" in str(file):
                packed.write(str(file.locate()), str(file))
    assert 100_000 < wheel.stat().st_size <= LARGEST_CODE
