"""The seal of an ONNX file, as `mpsl_runtime.model.seal` makes it: the sha256 of all the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

__all__ = ["SEAL", "add_properties", "is_broken", "seal"]

SEAL = "seal"


def add_properties(model: Any, properties: Mapping[str, Any]) -> None:
    """Entries of the metadata of an `onnx.ModelProto`, behind those that it has."""
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)


def seal(model: Any) -> None:
    """Seals a model that has no seal yet."""
    add_properties(model, {SEAL: _hash(model)})


def is_broken(model: Any) -> bool | None:
    """Whether a model is not as it was sealed; None: it has no seal."""
    said = [entry.value for entry in model.metadata_props if entry.key == SEAL]
    return None if not said else said != [_hash(model)]


def _hash(model: Any) -> str:
    bare = type(model)()
    bare.CopyFrom(model)
    kept = [entry for entry in model.metadata_props if entry.key != SEAL]
    del bare.metadata_props[:]
    bare.metadata_props.extend(kept)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
