"""A disk that fills up while a model is written: one error, and nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import resource, signal, sys
from pathlib import Path
import nir, numpy as np
from mpsl_export.write.to_nir import write_nir
from mpsl_runtime.errors import OutputError
weight = np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32)
graph = nir.NIRGraph.from_list(nir.Linear(weight))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_nir(graph, Path(sys.argv[1]))
except OutputError as error:
    print(error)
"""


def test_a_disk_that_is_full_gives_one_error_and_no_file(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "model.nir")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.startswith("cannot write output; got ")
    assert list(tmp_path.iterdir()) == []
