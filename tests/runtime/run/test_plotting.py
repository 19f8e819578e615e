"""`mpsl run --plot`: a picture of the first recording, or one line about what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.errors import MissingExtraError, OutputError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.onset import Onset
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.plotting import check_plot, save_plot
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.run.watcher import Span, Watcher

RECORDINGS = Path(__file__).parents[2] / "recordings"
MakeEvents = Callable[..., Events]
Mpsl = Callable[..., tuple[int, str, str]]


def watched(
    model_file: Path, sources: list[Any], policy: Policy | str = "tumbling", **options: Any
) -> Watcher:
    model = load(model_file)
    feed = model.feed(sources, **options)
    watcher = Watcher(model.binning)
    feed.on_camera = watcher.see_camera
    for item in model.stream(watcher.watch(feed), policy, feed=feed):
        watcher.see(item)
    return watcher


def a_stream(events: Events) -> Any:
    return iter([events])


def test_the_first_recording_alone_is_kept(model_file: Path, make_events: MakeEvents) -> None:
    watcher = watched(model_file, [make_events(1), make_events(2)])
    events = make_events(1)
    assert len(watcher.camera) == len(watcher.seen) == len(events) == 300
    assert [step.step for step in watcher.steps] == [0, 1, 2, 3, 4]
    (prediction,) = watcher.predictions
    assert np.array_equal(prediction.scores, watcher.steps[-1].scores)
    begin_us, end_us = watcher.slice_us()
    counts = watcher.camera_counts(begin_us, end_us)
    assert counts.shape == (2, 10, 12)
    inside = (events.t >= begin_us) & (events.t < end_us)
    assert counts.sum() == inside.sum() >= 20
    assert counts[1].sum() == events.p[inside].sum()
    assert np.array_equal(watcher.input_frame(begin_us, end_us), counts)


def test_what_the_network_sees_of_a_camera_is_shown_beside_it(model_file: Path) -> None:
    watcher = watched(model_file, [RECORDINGS / "gesture.es"], fit=True)
    assert watcher.pixels is not None
    assert watcher.camera_size == (128, 128)
    begin_us, end_us = watcher.slice_us()
    counts = watcher.camera_counts(begin_us, end_us)
    columns, rows = watcher.pixels.columns >= 0, watcher.pixels.rows >= 0
    seen = watcher.input_frame(begin_us, end_us)
    assert seen.shape == (2, 10, 12)
    assert seen.sum() == counts[:, rows][:, :, columns].sum() > 0
    assert len(watcher.seen) < len(watcher.camera) == 1000


def test_a_flash_of_all_pixels_is_not_what_is_shown(model_file: Path) -> None:
    flash = np.arange(120)
    rest = np.repeat(np.arange(1000, 20_000, 50), 2)
    events = Events.from_columns(
        np.concatenate([flash * 0, rest]),
        np.concatenate([flash % 12, rest % 7]),
        np.concatenate([flash // 12, rest % 5]),
        np.ones(120 + len(rest)),
        sensor_size=(12, 10),
    )
    begin_us, _ = watched(model_file, [a_stream(events)]).slice_us()
    assert begin_us > 0


def bursts(*begins_us: int) -> Events:
    random = np.random.default_rng(0)
    t = np.concatenate([begin + np.sort(random.integers(0, 4000, 200)) for begin in begins_us])
    columns = (random.integers(0, high, len(t)) for high in (12, 10, 2))
    return Events.from_columns(t, *columns, sensor_size=(12, 10))


def test_the_band_has_the_answers_with_gaps_where_no_window_was(model_file: Path) -> None:
    policy = Policy("onset", onset=Onset.parse("20/1"))
    watcher = watched(model_file, [a_stream(bursts(2000, 30_000))], policy)
    first, second = watcher.answers()
    assert (first.end_us - first.begin_us, second.end_us - second.begin_us) == (5000, 5000)
    assert second.begin_us - first.end_us > 20_000
    labels = [item.label for item in watcher.predictions]
    assert [first.label, second.label] == labels


def test_windows_that_overlap_or_agree_are_one_stretch_of_the_band(model_file: Path) -> None:
    for policy in ("sliding", "tumbling", "continuous"):
        watcher = watched(model_file, [a_stream(bursts(0, 4000, 8000, 12_000))], policy)
        spans = watcher.answers()
        assert all(a.end_us == b.begin_us for a, b in pairwise(spans))
        assert all(a.class_name != b.class_name for a, b in pairwise(spans))
        assert spans[-1].end_us == watcher.predictions[-1].t_us
        assert all(isinstance(span, Span) and span.end_us > span.begin_us for span in spans)


def drawn(watcher: Watcher, path: Path) -> str:
    """All text of the picture, as an SVG has it in comments."""
    save_plot(path, watcher, ("a", "b", "c"))
    return path.read_text("utf-8")


def texts(svg: str) -> set[str]:
    import re

    return {match.strip() for match in re.findall(r"<!-- (.*?) -->", svg)}


def test_nothing_is_called_answered_where_nothing_came(
    model_file: Path, tmp_path: Path, make_events: MakeEvents
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    silent = Policy("tumbling", rule=AnswerRule(least_events=10_000))
    calm = Policy("onset", onset=Onset.parse("1000/1"))
    cases = {
        "none": (watched(model_file, [a_stream(make_events(1))], silent), "answered “none”"),
        "calm": (watched(model_file, [a_stream(make_events(1))], calm), "answered “none”"),
        "empty": (
            watched(model_file, [a_stream(Events.empty((12, 10)))], calm),
            "no events, no answer",
        ),
    }
    for name, (watcher, title) in cases.items():
        found = texts(drawn(watcher, tmp_path / f"{name}.svg"))
        assert f"events: {title}" in found
        assert "scores: nothing is answered" in found
        assert not [text for text in found if "(answered)" in text or text.startswith("answered:")]
    assert "no window has begun" in texts((tmp_path / "calm.svg").read_text("utf-8"))
    some = watched(model_file, [a_stream(make_events(1))], "tumbling")
    found = texts(drawn(some, tmp_path / "some.svg"))
    name = some.predictions[0].class_name
    assert f"answered: {name}" in found


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_written_whole(
    tmp_path: Path, model_file: Path, make_events: MakeEvents, suffix: str
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    path = tmp_path / f"out{suffix}"
    watcher = watched(model_file, [make_events(1)])
    save_plot(path, watcher, ("a", "b", "c"))
    begin = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begin)
    assert path.stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.nir", path.name]
    with pytest.raises(OutputError, match="cannot write output"):
        save_plot(tmp_path / "no" / "a.png", watcher, ("a", "b", "c"))


def test_one_event_is_seen_on_a_camera_of_a_million_pixels(model_file: Path) -> None:
    from mpsl_runtime.run.plotting import _summed

    counts = np.zeros((2, 720, 1280), np.int64)
    counts[1, 719, 1279] = counts[0, 0, 3] = 1
    summed = _summed(counts)
    assert summed.shape[1] <= 360 >= summed.shape[2]
    assert summed[0, 0, 0] == summed[1, -1, -1] == 1
    assert summed.sum() == 2
    small = np.ones((2, 34, 34), np.int64)
    assert _summed(small) is small


def test_the_verb_draws_streams_windows_and_images(
    model_file: Path, tmp_path: Path, mpsl: Mpsl
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    for policy in ("onset", "tumbling", "continuous", "sliding"):
        path = tmp_path / f"{policy}.png"
        words = ("run", model_file, RECORDINGS / "gesture.es", "--fit", "--policy", policy)
        code, _, err = mpsl(*words, "--step-us", 5000, "--plot", path)
        assert (code, "picture: " in err) == (0, True)
        assert path.stat().st_size > 20_000


def test_a_picture_keeps_no_more_than_it_can_show(
    model_file: Path, make_events: MakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpsl_runtime.run import watcher as module

    monkeypatch.setattr(module, "_MOST_EVENTS", 500)
    monkeypatch.setattr(module, "_MOST_ITEMS", 7)
    pieces = [replace(make_events(k), t=make_events(k).t + 5_000 * k) for k in range(20)]
    watcher = watched(model_file, [iter(pieces)])
    assert 500 <= len(watcher.camera) <= 800
    assert (len(watcher.steps), len(watcher.predictions)) == (7, 7)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mpsl-runtime\[plot\]"):
        check_plot(Path("a.png"))


def test_a_suffix_that_is_no_picture_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown picture format; got '\.jpeg2000'"):
        check_plot(Path("a.jpeg2000"))
