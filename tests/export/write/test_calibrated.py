"""A calibrated model is still the exporter's: limits for streams change no number of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.write.nir_alterations import nir_alterations
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.nir_writer import graph_bytes, write_graph


def altered(run: Any, tmp_path: Path, **metadata: object) -> list[str]:
    graph = graph_of(read_checkpoint(run.path))
    plan, content = plan_of(graph, source="run"), graph_bytes(graph)
    graph.metadata = {**graph.metadata, **metadata}
    write_graph(graph, tmp_path / "model.nir")
    return [each.text for each in nir_alterations(tmp_path / "model.nir", content, plan)]


def test_limits_for_streams_are_no_alteration(event_run: Any, tmp_path: Path) -> None:
    assert altered(event_run, tmp_path, onset="40/10", least_events=3, early_margin=1.0) == []


def test_other_additions_are(event_run: Any, tmp_path: Path) -> None:
    assert len(altered(event_run, tmp_path, note="x")) == 1


def test_limits_that_cannot_be_are_refused(event_run: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="least_events"):
        altered(event_run, tmp_path, least_events=-1)
