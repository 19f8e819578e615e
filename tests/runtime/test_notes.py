"""What of a file was not taken at its word is one line on stderr, and a part of `inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.verbs.notes import show_notes


def leaky(path: Path) -> Path:
    """An Input with the batch in front, a node without edges, a loop."""
    ones = np.ones(3, np.float32)
    lif = nir.LIF(2e-4 * ones, ones, 0 * ones, 0.5 * ones)
    nodes = {
        "input": nir.Input({"input": np.array([1, 3])}),
        "fc": nir.Linear(np.eye(3, dtype=np.float32)),
        "lif": lif,
        "spare": lif,
        "output": nir.Output({"output": np.array([3])}),
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "lif"), ("lif", "output")]
    nir.write(str(path), nir.NIRGraph(nodes, edges, type_check=False))
    return path


def test_the_notes_are_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_plan(leaky(tmp_path / "a.nir"), dt_s=1e-4)
    show_notes(plan)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "note: the output does not see 'spare'; Input (1, 3) is taken as (3,); "
        f"in {tmp_path / 'a.nir'}\n"
    )


def test_inspect_shows_the_notes_and_what_each_node_sees(
    tmp_path: Path, mpsl: Callable[..., Any]
) -> None:
    path = leaky(tmp_path / "a.nir")
    found = json.loads(mpsl("inspect", path, "--from", "nir", "--dt-s", "1e-4", "--json")[1])
    assert len(found["notes"]) == 2
    assert [row["sees"] for row in found["layers"]] == ["input", "fc + (lif)"]
    assert "fc + (lif)" in mpsl("inspect", path, "--from", "nir", "--dt-s", "1e-4")[1]
