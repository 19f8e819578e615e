"""A run folder, one of whose files is damaged: what each verb makes of it. For `child.py`.

The folder's name says which file that is: `0007-report.json-as-written`.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

# Imported before memory is bounded.
import mpsl_export.card.card
import mpsl_export.verify.verify  # noqa: F401
import mpsl_train.training.training  # noqa: F401
from mpsl_runtime import cli

DATA = Path(os.environ["MPSL_FUZZ_DATA"])
VERBS: dict[str, list[str]] = {
    "recipe.toml": ["train {run}/recipe.toml --out {out}", "card {run} --out {out}",
                    "train {run}/recipe.toml --out {run} --resume"],
    "banks.safetensors": ["inspect {run}", "export {run} --format nir --out {out}/a.nir",
                          "verify {run}"],
    "evaluation.npz": ["inspect {run} --json", "verify {run} --json"],
    "report.json": ["card {run} --out {out}"],
    "metrics.csv": ["train {run}/recipe.toml --out {run} --resume"],
    "last.ckpt": ["train {run}/recipe.toml --out {run} --resume"],
}  # fmt: skip
torch.set_num_threads(1)


def verdict(path: Path) -> str:
    """`done`, or `refused` where a verb has ended with 2; anything else is a fault."""
    part = path.name.split("-")[1]
    out = path / "out"
    out.mkdir()
    (out / "recipe.toml").write_bytes((path / "recipe.toml").read_bytes())
    words = []
    for line in VERBS[part]:
        filled = [word.format(run=path, out=out) for word in line.split()]
        if filled[0] not in ("inspect", "export"):
            filled += ["--data", str(DATA)]
        words.append(_run(filled))
    return "refused" if "refused" in words else "done"


def _run(words: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main(["--debug", *words])
    except SystemExit as done:
        code = done.code
    about = f"{words[0]} {words[-1]}: {code} {err.getvalue()[-1500:]}"
    assert code in (0, 1, 2), about
    lines = err.getvalue().splitlines()
    if code == 2:
        assert lines[-1].startswith("mpsl: "), about
        assert lines[-1].isprintable(), about
        assert len(lines[-1]) < 330, about
    assert "\x1b" not in out.getvalue() + err.getvalue(), about
    assert sys.stdout is not out
    return "refused" if code == 2 else "done"
