"""The model of a card, written again as the exporter writes today; its card follows.

The encoding may come to name things otherwise when the run is long gone. The network stays the same
to the bit, so what was measured of it stays true: only the file's size and hash are new.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsl_export.card.card import LARGEST_MODEL, save_card
from mpsl_export.card.card_text import card_text
from mpsl_export.provenance import WRITTEN_BY, merge_report, verified_text
from mpsl_export.strict_json import LARGEST_JSON_BYTES, parse_json
from mpsl_runtime.errors import ModelError, RunError
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.provenance import Provenance
from mpsl_runtime.model.seal import check_seal
from mpsl_runtime.run.marked_file import write_marked
from mpsl_runtime.run.state import network_hash

__all__ = ["rewrite"]


def rewrite(folder: Path) -> list[Path]:
    """Writes model.nir, report.json and card.md of a folder that has them, in one step.

    Args:
        folder: of a card, as `mpsl card` left it.

    Raises:
        RunError: its report is damaged, or of another model.
        ModelError: the model is damaged, or would not be the same network, bit for bit.
        OutputError: the folder cannot be written.
    """
    card, path = _read_card(folder), folder / "model.nir"
    before = load_plan(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["model"]["sha256"]:
        raise RunError("model is not the one of its card", got=path.name, where=folder)
    check_seal(path)
    with tempfile.TemporaryDirectory() as place:
        written = Path(place) / path.name
        graph = load_graph(path)
        graph.metadata = {**graph.metadata, **_provenance(card)}
        write_marked(graph, before, written)
        after = load_plan(written)
        if network_hash(after) != network_hash(before) or after.metadata != before.metadata:
            raise ModelError("network would not be the same when written again", where=path)
        content = written.read_bytes()
        model = {
            **card["model"],
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "published": len(content) < LARGEST_MODEL,
        }
        return save_card(folder, {**card, "model": model}, written)


def _provenance(card: Mapping[str, Any]) -> dict[str, str]:
    """What the card knows of the run that is gone."""
    layers = {
        str(layer["name"]): {"mechanisms": layer["mechanisms"], "lambda": layer["lambda"]}
        for layer in card["layers"]
    }
    verification = card["verification"]
    entry = next((e for e in verification["models"] if e["file"] == "model.nir"), None)
    data = str(card["data"]["test_hash"])
    return Provenance(
        written_by=WRITTEN_BY,
        data_sha256=data,
        merge_report=merge_report(card["parameters"], layers),
        verified=verified_text(entry, verification["samples"], data, "") if entry else "",
    ).to_mapping()


def _read_card(folder: Path) -> Mapping[str, Any]:
    """A card's report.json that says all that its card.md needs."""
    path = folder / "report.json"
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        card: Mapping[str, Any] = parse_json(path.read_bytes())
        card_text(card)
        str(card["model"]["sha256"])
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise RunError("not the report of a card", got=got, where=path) from None
    return card
