"""What `mpsl bench` runs a model on: its test set, where that is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.events.binning import frames
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.model.graph import load_plan

Mpsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def digits(tmp_path: Path, make_events: Callable[..., Any]) -> Path:
    """`data/nmnist`: a test set of one recording of each digit."""
    for label in range(10):
        path = tmp_path / "data" / "nmnist" / "Test" / str(label) / "00000.bin"
        path.parent.mkdir(parents=True)
        write_nmnist_bin(path, make_events(label, 100 + label))
    return tmp_path / "data"


def test_a_model_runs_on_its_own_test_set_where_that_is_found(
    mpsl: Mpsl,
    digits: Path,
    write_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    make_events: Callable[..., Any],
) -> None:
    size = {"sensor_width": 34, "sensor_height": 34, "classes": "0,1,2,3,4,5,6,7,8,9"}
    path = write_model(**size)

    def row(*words: object) -> dict[str, Any]:
        code, out, err = mpsl("bench", path, "--rounds", "1", "--json", *words)
        assert (code, err) == (0, "")
        return dict(json.loads(out)["rows"][0])

    assert row()["input"] == "synthetic events, seed 3"
    found = row("--data", digits, "--samples", "3")
    assert found["input"] == "3 test samples of nmnist"
    binning = load_plan(path).metadata.binning  # type: ignore[union-attr]
    events = [np.count_nonzero(frames(make_events(i, 100 + i), binning)) for i in (0, 4, 9)]
    assert found["events"] == pytest.approx(sum(events) / 15, abs=0.1)
    monkeypatch.setenv("MPSL_DATA", str(digits))
    assert row()["input"] == "8 test samples of nmnist"
    assert row("--density", "0.1")["input"] == "synthetic events, seed 3"


def test_a_test_set_that_is_asked_for_must_be_there_and_fit(
    mpsl: Mpsl, digits: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = write_model()
    foreign = write_model("foreign.nir", foreign=True)
    recording = digits / "nmnist" / "Test" / "3" / "00000.bin"
    for words, word in (
        ((model, "--data", tmp_path / "nowhere"), "nowhere"),
        ((model, "--data", digits, "--source", recording), "--source and --data"),
        (
            (foreign, "--from", "nir", "--dt-s", "1e-4", "--data", digits),
            "expected --steps T, --step-us N, --dataset NAME;",
        ),
    ):
        code, out, err = mpsl("bench", *words, "--rounds", "1")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert word in err
