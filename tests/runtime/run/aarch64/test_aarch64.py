"""The engine built for aarch64, from the same source, fires the spikes of the reference.

Its tests run once more, with the engine compiled by a cross compiler and run by qemu's user mode:
the 128-bit vectors are NEON's there. `make test` installs both where it may (`make aarch64`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINE = HERE.parent / "engine"
SOURCE = HERE.parents[3] / "runtime" / "src"
COMPILER = shutil.which("aarch64-linux-gnu-g++")
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
# Not those of threads and forks, which are about this process.
FILES = ("test_engine.py", "test_engine_dense.py", "test_engine_int8.py", "test_engine_random.py")
# qemu takes seconds for the float32 sums of a crowded step: those with a stride stand for all. The
# driver's environment is its own. With dot products, only what they compute is run once more.
CHOICES = {
    "baseline": "(not (crowded and float32) or stride) and not crossover",
    "dotprod": "columns and int8 or beyond",
}

pytestmark = pytest.mark.skipif(
    not (COMPILER and QEMU),
    reason="neither built nor run for aarch64: apt-get install g++-aarch64-linux-gnu qemu-user",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine and driver.cpp as a program for aarch64, with the flags of CMakeLists.txt."""
    kept = [path for path in SOURCE.glob("*.cpp") if not path.stem.startswith("kernels_")]
    python = {"module.cpp", "arrays.cpp", "running.cpp"}
    sources = [path for path in kept if path.name not in python]
    sources += [SOURCE / "kernels_baseline.cpp", HERE / "driver.cpp"]
    target = tmp_path_factory.mktemp("aarch64") / "driver"
    products = target.with_name("dotprod.o")
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-psabi"]
    compiler = [str(COMPILER), *flags, "-I", str(SOURCE)]
    march = "-march=armv8.2-a+dotprod"
    subprocess.run(
        [*compiler, march, "-c", SOURCE / "kernels_dotprod.cpp", "-o", products], check=True
    )
    subprocess.run([*compiler, "-static", "-pthread", *sources, products, "-o", target], check=True)
    return target


@pytest.mark.parametrize(("isa", "least"), [("baseline", 200), ("dotprod", 15)])
def test_the_tests_of_the_engine_pass_on_aarch64(driver: Path, isa: str, least: int) -> None:
    assert driver.read_bytes()[18:20] == b"\xb7\x00", "not a program for aarch64"
    environment = {
        **os.environ,
        "FAR_ENGINE": f"{QEMU} {driver}",
        "MPSL_ISA": isa,
        "MPSL_CROSSOVER": "0.4",  # the driver's own: what is crowded takes the dense loops
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "far_engine", "-p", "no:cacheprovider"]
    command += ["-k", CHOICES[isa], "--durations=5"]
    done = subprocess.run(
        [*command, *(str(ENGINE / name) for name in FILES)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > least
