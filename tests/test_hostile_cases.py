"""Every model and recording of `../shared/cases/hostile`: one line, or its right value, in time.

Each has its kind's test beside the code; here they go through the whole command, bounded in memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MPSL = [sys.executable, "-c", "from mpsl_runtime.cli import main; main()"]
STEPS = ["--dt-s", "1e-4", "--steps", "3", "--step-us", "1000"]
# A number in a list of one is that number; a pool as large as its input is slow for who walks it;
# the last is a proper model, of another threshold than its run's.
RIGHT = {"flatten_dims.nir", "hang_pool.nir", "verify_bypass_metadata_threshold.nir"}


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "hostile"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is no folder")
    return folder


def mpsl(*words: object) -> tuple[int, str, str]:
    """The command in 2 GiB beside what importing takes, and in a minute on a busy machine."""
    limit = (1 << 31) + (1 << 28)
    done = subprocess.run(
        [*MPSL, *map(str, words)], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    if done.returncode == 2:
        assert done.stderr.startswith("mpsl: ")
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < 330
    return done.returncode, done.stdout, done.stderr


def test_every_model_is_refused_in_one_line_or_runs(cases: Path) -> None:
    paths = sorted(cases.glob("*.nir"))
    assert len(paths) > 15
    for path in paths:
        code, _, err = mpsl("run", path, cases / "tiny.csv", *STEPS)
        assert code == (0 if path.name in RIGHT else 2), (path.name, err)
        code, _, err = mpsl("inspect", path, "--dt-s", "1e-4")
        assert code in (0, 2), (path.name, err)


def test_every_recording_is_refused_in_one_line_or_read(cases: Path) -> None:
    paths = [path for path in sorted(cases.iterdir()) if path.suffix in (".aedat4", ".es", ".dat")]
    assert len(paths) > 6
    for path in paths:
        code, _, err = mpsl("run", "nmnist8-small", path, "--fit")
        assert code in (0, 2), (path.name, err)
