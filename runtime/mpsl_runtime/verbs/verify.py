"""`mpsl verify MODEL.nir`: a model file in, a verdict out. With the distribution `mpsl` installed,
its verb of the same name takes this one's place, and runs too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsl_runtime.terminal import show_json, show_lines
from mpsl_runtime.verbs.options import Json, MemoryLimit

if TYPE_CHECKING:
    from mpsl_runtime.run.proof import Proof

__all__ = ["show_proofs", "verify"]


def verify(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help=".nir files, or names of models.")
    ],
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Prove that model files still do what they did: each has a probe, and a seal over all of it.

    Exit code 0: they do; 1: one does not; 2: bad input, or a file without a probe.

    Example: mpsl verify nmnist8-small
    """
    from mpsl_runtime.errors import MissingExtraError
    from mpsl_runtime.run.proof import OWN_PROGRAMS, prove
    from mpsl_runtime.zoo import find_model

    if any(Path(model).is_dir() for model in models):
        raise MissingExtraError("what verifies a run folder", "mpsl")
    files = [find_model(model) for model in models]
    show_proofs([prove(Path(file), OWN_PROGRAMS) for file in files], as_json=as_json)


def show_proofs(proofs: list[Proof], *, as_json: bool) -> None:
    """Prints proofs; exits with 1 where one failed."""
    passed = all(proof.passed for proof in proofs)
    if as_json:
        show_json({"passed": passed, "models": [proof.to_mapping() for proof in proofs]})
    else:
        show_lines([line for proof in proofs for line in proof.lines()], err=True)
    if not passed:
        raise typer.Exit(1)
