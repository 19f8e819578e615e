"""`mpsl card --rewrite`: a model that an earlier version wrote, and its card, without the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.card.card_text import card_text
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.provenance import PROVENANCE_KEYS, provenance_of
from mpsl_runtime.model.seal import SEAL_KEYS
from mpsl_runtime.run.probe import PROBE_KEYS
from mpsl_runtime.run.proof import OWN_PROGRAMS, prove
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.state import network_hash

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def old_card(card: Command, runs: Path) -> Path:
    """A card whose model has other terminals."""
    assert card("a", options=("--backend", "engine", "--limit", "2"))[0] == 0
    folder = runs / "model"
    graph = load_graph(folder / "model.nir")
    older = {"input": "n00_input", "output": "n99_output"}
    marks = {*PROBE_KEYS, *SEAL_KEYS, *PROVENANCE_KEYS}
    graph.metadata = {key: v for key, v in graph.metadata.items() if key not in marks}
    graph.nodes = {older.get(name, name): node for name, node in graph.nodes.items()}
    graph.edges = [(older.get(a, a), older.get(b, b)) for a, b in graph.edges]
    nir.write(folder / "model.nir", graph)
    content = (folder / "model.nir").read_bytes()
    _say(folder, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    return folder


def _say(folder: Path, **model: Any) -> None:
    report = json.loads((folder / "report.json").read_text())
    report["model"] |= model
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "card.md").write_text(card_text(report))


def test_the_network_stays_and_the_card_follows(card: Command, runs: Path, old_card: Path) -> None:
    before, said = (
        load_plan(old_card / "model.nir"),
        json.loads((old_card / "report.json").read_text()),
    )
    code, out, err = card("model", options=("--rewrite",))
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines()] == [
        str(old_card / name) for name in ("report.json", "card.md", "model.nir")
    ]
    content = (old_card / "model.nir").read_bytes()
    proof = prove(old_card / "model.nir", OWN_PROGRAMS)
    assert proof.passed
    origin = provenance_of(load_graph(old_card / "model.nir").metadata, "test")
    assert origin["data_sha256"] == said["data"]["test_hash"]
    assert origin["merge_report"]["parameters"] == said["parameters"]
    (entry,) = [e for e in said["verification"]["models"] if e["file"] == "model.nir"]
    programs = origin["verified"]["programs"]
    assert {name: p["spike_mismatch"] for name, p in programs.items()} == entry["spike_mismatch"]
    report = json.loads((old_card / "report.json").read_text())
    said["model"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert report == said
    assert (old_card / "card.md").read_text() == card_text(report)
    after = load_plan(old_card / "model.nir")
    assert network_hash(after) == network_hash(before)
    frames = np.random.default_rng(0).integers(0, 3, (3, *after.input_shape)).astype(np.float32)
    assert np.array_equal(Reference(after).run(frames), Reference(before).run(frames))
    code, out, err = card("model", options=("--rewrite", "--json"))
    assert code == 0, err
    assert json.loads(out) == {
        "written": [str(old_card / name) for name in ("report.json", "card.md", "model.nir")]
    }
    assert (old_card / "model.nir").read_bytes() == content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _say(folder, sha256="0" * 64), "model is not the one of its card"),
        (lambda folder: (folder / "report.json").write_text("[]"), "not the report of a card"),
        (lambda folder: (folder / "report.json").write_text('{"name": 3}'), "not the report"),
        (lambda folder: (folder / "report.json").unlink(), "not the report of a card"),
        (lambda folder: (folder / "model.nir").unlink(), "no such model file"),
        (lambda folder: (folder / "model.nir").write_bytes(b"x"), "not HDF5"),
    ],
)
def test_what_is_no_card_is_one_line_and_nothing_is_written(
    card: Command, old_card: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(old_card)
    before = {path.name: path.read_bytes() for path in old_card.iterdir()}
    code, out, err = card("model", options=("--rewrite",))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert {path.name: path.read_bytes() for path in old_card.iterdir()} == before
