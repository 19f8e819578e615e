"""`mpsl run --plot`: a picture of the first recording, or one line about what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.errors import MissingExtraError, OutputError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.run.model import load
from mpsl_runtime.run.plotting import Watcher, check_plot, save_plot


def watched(model_file: Path, make_events: Callable[..., Events]) -> Watcher:
    model = load(model_file)
    watcher = Watcher(model.binning.sensor_size)
    recordings = [Recording(f"{seed}.bin", [Chunk(make_events(seed))], 0, True) for seed in (1, 2)]
    for item in model.stream(watcher.watch(recordings)):
        watcher.see(item)
    return watcher


def test_the_first_recording_alone_is_kept(
    model_file: Path, make_events: Callable[..., Events]
) -> None:
    watcher = watched(model_file, make_events)
    events = make_events(1)
    assert sum(len(piece) for piece in watcher.events) == len(events) == 300
    counts, begin_ms, end_ms = watcher.busiest()
    assert counts.shape == (2, 10, 12)
    inside = (events.t >= begin_ms * 1000) & (events.t < end_ms * 1000)
    assert counts.sum() == inside.sum() >= 30
    assert counts[1].sum() == events.p[inside].sum()
    assert [step.step for step in watcher.steps] == [0, 1, 2, 3, 4]
    assert watcher.prediction is not None
    assert watcher.prediction.file == "1.bin"
    assert np.array_equal(watcher.prediction.scores, watcher.steps[-1].scores)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_written_whole(
    tmp_path: Path, model_file: Path, make_events: Callable[..., Events], suffix: str
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    path = tmp_path / f"out{suffix}"
    save_plot(path, watched(model_file, make_events), ("a", "b", "c"), 1000)
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert path.stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.nir", path.name]
    with pytest.raises(OutputError, match="cannot write output"):
        save_plot(
            tmp_path / "no" / "a.png", watched(model_file, make_events), ("a", "b", "c"), 1000
        )


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mpsl-runtime\[plot\]"):
        check_plot(Path("a.png"))


def test_a_suffix_that_is_no_picture_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown picture format; got '\.jpeg2000'"):
        check_plot(Path("a.jpeg2000"))


def test_a_recording_without_events_has_an_empty_picture(model_file: Path) -> None:
    model = load(model_file)
    watcher = Watcher(model.binning.sensor_size)
    for item in model.stream(watcher.watch([Recording("a", [Chunk(Events.empty())], 0, True)])):
        watcher.see(item)
    assert watcher.busiest()[0].sum() == 0
    assert len(watcher.steps) == 5
