"""A damaged export: `inspect` and `verify` refuse it, or it is what it was. For `child.py`.

The folder's name says which file is damaged: `0007-model.onnx-wires`; beside the folders lies the
whole run.
"""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # noqa: F401
import torch

import mpsl_export.verify.verify  # noqa: F401  Imported before memory is bounded.
from mpsl_runtime import cli
from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.tree import read_tree

DATA, RUN = Path(os.environ["MPSL_FUZZ_DATA"]), Path(os.environ["MPSL_FUZZ_RUN"])
torch.set_num_threads(1)


def verdict(path: Path) -> str:
    """`refused`, or `passed`, which a file that is another must not be."""
    part = path.name.split("-")[1]
    code = _run(["inspect", str(path / part)])
    assert code != 1
    code = _run(["verify", str(RUN), "--model", str(path / part), "--data", str(DATA)])
    if code == 0:
        assert _same(path / part, RUN / part), "verify passes another model than was exported"
    return "refused" if code else "passed"


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".onnx":
        parsed = [onnx.load_model_from_string(path.read_bytes()) for path in (one, other)]
        return bool(parsed[0] == parsed[1])
    trees = [read_tree(path, error=ModelError, noun="model file") for path in (one, other)]
    return _equal(*(tree["node"] for tree in trees))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    return type(one) is type(other) and bool(np.array_equal(one, other))  # type: ignore[arg-type]


def _run(words: list[str]) -> int:
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main(["--debug", *words])
    except SystemExit as done:
        code = int(done.code or 0)
    about = f"{words[0]}: {code} {err.getvalue()[-1500:]}"
    assert code in (0, 1, 2), about
    if code == 2:
        last = err.getvalue().splitlines()[-1]
        assert last.startswith("mpsl: "), about
        assert last.isprintable(), about
        assert len(last) < 330, about
    assert "\x1b" not in out.getvalue() + err.getvalue(), about
    return code
