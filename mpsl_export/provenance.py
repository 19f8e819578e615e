"""What an exported file says of the run that it comes from, and of what `mpsl verify` found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpsl_export.checkpoint import Checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.merge import merge, parameter_counts
from mpsl_runtime import __version__
from mpsl_runtime.model.provenance import Provenance
from mpsl_runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WRITTEN_BY", "merge_report", "provenance_of_run", "verified_text"]

WRITTEN_BY = f"mpsl {__version__}"


def provenance_of_run(run: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """The entries of the metadata; without a record nothing is said of the data.

    Raises:
        RunError: the record is damaged.
    """
    digest = ""
    if RunFolder(run).evaluation.is_file():
        digest = str(read_evaluation(run).record.get("test_hash", ""))
    return Provenance(
        written_by=WRITTEN_BY, data_sha256=digest, merge_report=_merged(checkpoint)
    ).to_mapping()


def verified_text(entry: Mapping[str, Any], samples: int, data: str, before: str) -> str:
    """The result of one file for its metadata, with that of programs which only an earlier one had.

    Args:
        entry: of the report of `mpsl verify`. data: sha256 of the test set. before: what the file
            says until now.
    """
    programs = {
        name: {"accuracy": entry["accuracy"][name], "spike_mismatch": mismatch}
        for name, mismatch in entry["spike_mismatch"].items()
    }
    found = {
        "passed": entry["passed"],
        "by": WRITTEN_BY,
        "against": entry["against"],
        "samples": samples,
        "data_sha256": data,
        "explained_ties": entry["explained_ties"],
        "trained_accuracy": entry["accuracy"]["trained"],
    }
    try:
        older = json.loads(before or "{}")
        if all(older.get(key) == value for key, value in found.items()):
            programs = {**older["programs"], **programs}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass  # what a stranger wrote there is not kept
    return json.dumps({**found, "programs": programs}, sort_keys=True, separators=(",", ":"))


def merge_report(parameters: Mapping[str, int], layers: Mapping[str, Any]) -> str:
    """Parameters with all banks and merged, and by layer what its banks were."""
    report = {"parameters": dict(parameters), "layers": dict(layers)}
    return json.dumps(report, separators=(",", ":"))


def _merged(checkpoint: Checkpoint) -> str:
    counts = parameter_counts(checkpoint)
    layers = {
        layer.name: {
            "mechanisms": list(layer.mechanisms),
            "lambda": [
                float(f"{float(value):.6g}")
                for value in layer.coefficients.reshape(len(layer.banks), -1).mean(axis=1)
            ],
            "batchnorm": layer.norm is not None,
            "exact": merge(layer).exact,
        }
        for layer in checkpoint.layers
    }
    return merge_report({"banks": counts.banks, "merged": counts.merged}, layers)
