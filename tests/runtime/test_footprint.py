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

# Packed, as in the wheel: the engine with the decoders, and all of our code with them. The small
# models that travel beside the code count in no figure here; tests/test_wheels.py bounds them. The
# page of `mpsl view` with its server is 45 kB of it; of the engine, the neurons of other frameworks
# are 10 kB, and the dense loops for three instruction sets 8 kB.
LARGEST_NATIVE = 280_000
LARGEST_CODE = 820_000
LARGEST_INSTALLATION = 100_000_000


def needed(name: str, found: dict[str, int]) -> None:
    """Adds to `found` the bytes that `name`, and what it needs without extras, has installed.

    Without the models beside the code, and without bytecode, which pip makes or leaves out.
    """
    name = name.lower().replace("_", "-")
    if name in found:
        return
    distribution = metadata.distribution(name)
    paths = [Path(str(file.locate())) for file in distribution.files or []]
    files = [path for path in paths if path.is_file() and path.suffix not in (".nir", ".pyc")]
    found[name] = sum(path.stat().st_size for path in files)
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, found)


def test_the_runtime_and_what_it_needs_take_up_to_100_mb() -> None:
    found: dict[str, int] = {}
    needed("mpsl-runtime", found)
    assert {"mpsl-runtime", "numpy", "nir", "h5py", "lz4", "typer"} <= set(found)
    assert not set(found) & {"faery", "torch", "onnx", "scipy", "pandas", "numba", "matplotlib"}
    assert found["numpy"] > 10_000_000, "its files were not found"
    assert sum(found.values()) <= LARGEST_INSTALLATION, found


def test_our_code_takes_up_to_820_kb_and_280_of_them_are_compiled(tmp_path: Path) -> None:
    """Packed here as a wheel is, from the files that are installed."""
    package = Path(str(mpsl_runtime.__file__)).parent
    left_out = {".nir", ".pyc", ".so"}
    files = [p for p in package.rglob("*") if p.is_file() and p.suffix not in left_out]
    assert sum(path.suffix == ".py" for path in files) > 90
    native = importlib.util.find_spec("mpsl_runtime._native")
    assert native is not None
    assert native.origin == _native.__file__
    wheel = tmp_path / "mpsl_runtime.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(str(native.origin), "mpsl_runtime/_native.so")
        for file in files:
            packed.write(file, f"mpsl_runtime/{file.relative_to(package)}")
        for file in metadata.files("mpsl-runtime") or []:
            if ".dist-info" in str(file):
                packed.write(str(file.locate()), str(file))
        compiled = packed.getinfo("mpsl_runtime/_native.so").compress_size
    assert 100_000 < compiled <= LARGEST_NATIVE
    assert compiled + 100_000 < wheel.stat().st_size <= LARGEST_CODE
