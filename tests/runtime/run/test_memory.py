"""Memory does not grow with steps, nor with engines that come and go: the short form of
`tests/benchmarks/soak.py`, in a process of its own, where nobody else allocates."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="needs /proc/self/statm (Linux)"
)


def soak(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SOAK), "--network", "small", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_memory_is_the_same_after_many_steps_and_many_engines(threads: str) -> None:
    steps = "200000" if threads == "1" else "20000"
    done = soak("--steps", steps, "--threads", threads, "--engines", "200")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    size = re.search(r"200 engines of (\d+) KiB", done.stdout)
    assert size is not None
    assert int(size[1]) * 200 > 3 * 1024, "if nothing were given back, nobody would notice"


def test_a_leak_would_be_found() -> None:
    done = soak("--steps", "20000", "--leak")
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
