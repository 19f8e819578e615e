"""Where a model file comes from, as it says itself, in the metadata of its graph.

The recipe's hash is a field of `ModelMetadata`; here is the rest. Nothing the network does depends
on it, and a verifier may hold some of it against the run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mpsl_runtime.model.typed_metadata import plain_value, read_fields

__all__ = ["PROVENANCE_KEYS", "TOLD_KEYS", "Provenance", "provenance_of"]

_HASH = (re.compile("([0-9a-f]{64})?"), "64 hexadecimal digits")
_FORMS = {"data_sha256": _HASH, "exported_from": _HASH}
_DEEPEST_JSON = 8


@dataclass(frozen=True)
class Provenance:
    """What a file says; "" for nothing. The names are those in the metadata.

    Attributes:
        written_by: the program and its version. data_sha256: of the test set that its training
            evaluated. merge_report: JSON, the banks of each layer, their λ, and what the fold did.
        exported_from: sha256 of the model file that it was made from.
        calibrated_on: of an int8 model, the samples.
        verified: JSON, what `mpsl verify` found of it; written after all the rest.
    """

    written_by: str = ""
    data_sha256: str = ""
    merge_report: str = ""
    exported_from: str = ""
    calibrated_on: str = ""
    verified: str = ""

    def to_mapping(self) -> dict[str, str]:
        """For the metadata."""
        return {key: value for key, value in vars(self).items() if value}


PROVENANCE_KEYS = tuple(field.name for field in fields(Provenance))
TOLD_KEYS = ("written_by", "exported_from", "calibrated_on", "verified")
"""What a run alone does not tell: it is taken as the file says it."""


def provenance_of(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file says of where it comes from, the reports as what they hold.

    Raises:
        ModelError: a text that is not plain, or no hash.
    """
    said: Provenance = read_fields(Provenance, metadata, where, forms=_FORMS)
    found: dict[str, Any] = dict(said.to_mapping())
    for key in ("merge_report", "verified"):
        if key in found:
            found[key] = _report(found[key])
    recipe = plain_value(metadata.get("recipe_hash", ""))
    return {"recipe_sha256": recipe, **found} if recipe and found else found


def _report(text: str) -> Any:
    """What JSON holds, if it is a small table; else the text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) and _depth(found) <= _DEEPEST_JSON else text


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, parts), default=0)
    return 0
