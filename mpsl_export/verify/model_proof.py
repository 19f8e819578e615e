"""Proves model files by their probes in every program that is installed; no run, no data.

A `.nir` file runs in the engine, in the reference, in torch, as ONNX in ONNX Runtime and, asked
for by name, as C (a compiler takes longer than the rest); an `.onnx` file in ONNX Runtime, as it
is.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import Backend
from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.probe import Probe
from mpsl_runtime.run.proof import OWN_PROGRAMS, Program, Proof, no_probe, prove

__all__ = ["prove_model"]

Array = NDArray[np.float32]
_Shown = tuple[list[NDArray[np.bool_]], Array | None]


def prove_model(path: Path, names: Sequence[str] = ()) -> Proof:
    """Proves one file.

    Args:
        names: of the programs; default all that are installed, but c.

    Raises:
        ModelError: the file is damaged, or has no probe. UsageError: a program that is not known,
            or does not run such a file.
    """
    if path.suffix.lower() == ".onnx":
        _chosen(names, {"onnx": _torch})
        return _prove_onnx(path)
    known = {**OWN_PROGRAMS, "onnx": _onnx, "torch": _torch, "c": _c}
    return prove(path, _chosen(names, known))


def _chosen(names: Sequence[str], known: Mapping[str, Program]) -> dict[str, Program]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            "no program of that name runs a probe of this file",
            got=unknown[0], expected=", ".join(known), where="--backend",
        )  # fmt: skip
    needs = {"onnx": ("onnx", "onnxruntime"), "torch": ("torch",)}
    asked = names or [
        name
        for name in known
        if name != "c" and all(importlib.util.find_spec(n) for n in needs.get(name, ()))
    ]
    return {name: program for name, program in known.items() if name in asked}


def _onnx(plan: Plan, frames: Array) -> _Shown:
    from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime
    from mpsl_export.write.to_onnx import write_onnx

    with tempfile.TemporaryDirectory() as folder:
        sequence, _ = write_onnx(plan, Path(folder) / "model.onnx")
        return _shown(OnnxRuntime(sequence), frames)


def _torch(plan: Plan, frames: Array) -> _Shown:
    from mpsl_export.verify.backends.torch_plan import TorchPlan

    return _shown(TorchPlan(plan), frames)


def _c(plan: Plan, frames: Array) -> _Shown:
    from mpsl_export.verify.backends.c_compiler import CompiledC
    from mpsl_export.write.c.lower import lowered
    from mpsl_export.write.to_c import PREFIX, model_files

    with tempfile.TemporaryDirectory() as folder:
        for name, content in model_files(lowered(plan, PREFIX)).items():
            (Path(folder) / name).write_bytes(content)
        return _shown(CompiledC(Path(folder)), frames)


def _shown(backend: Backend, frames: Array) -> _Shown:
    """Spikes of every population, and what is read out."""
    membrane = backend.run(frames[:, None]).membrane
    layers = [layer.spikes for layer in backend.record(frames)]
    return layers, None if membrane is None else membrane[0]


def _prove_onnx(path: Path) -> Proof:
    from mpsl_export.verify.backends.onnx_runtime import OnnxRuntime
    from mpsl_export.write.onnx_file import read_model
    from mpsl_export.write.onnx_seal import is_broken
    from mpsl_export.write.to_onnx import FORMAT

    model = read_model(path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    probe, broken = Probe.of(said, str(path)), is_broken(model)
    if probe is None or broken is None:
        raise no_probe(path)
    proof = Proof(str(path), ["the file"] if broken else [])
    plan = Plan((), *FORMAT.shapes(path), _metadata(said, path), str(path))
    frames = probe.frames(plan)
    layers, outputs = _shown(OnnxRuntime(path), frames)
    proof.programs["onnx"] = probe.difference(layers, outputs)
    proof.steps, proof.populations = len(frames), len(layers)
    names = [layer.layer for layer in OnnxRuntime(path).record(frames)]
    proof.silent = [n for n, spikes in zip(names, layers, strict=True) if not spikes.any()]
    return proof


def _metadata(said: Mapping[str, str], path: Path) -> ModelMetadata | None:
    """ONNX keeps text."""
    if "mpsl" not in said:
        return None
    kinds = ModelMetadata.__annotations__
    values: dict[str, object] = {}
    for key, text in said.items():
        try:
            values[key] = {"int": int, "float": float}.get(kinds.get(key, "str"), str)(text)
        except ValueError as error:
            raise ModelError("metadata cannot be read", got=error, where=path) from None
    return ModelMetadata.from_mapping(values, str(path))
