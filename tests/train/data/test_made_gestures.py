"""dvs-gesture-made: reproducible, in the published layout, its motions on their side and turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events import binning
from mpsl_train.data import made_gestures
from mpsl_train.data.made_gestures import make, record_person


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person a split."""
    root = tmp_path_factory.mktemp("made") / "dvs-gesture-made"
    make(root, progress=False, limit=1)
    return root


def test_the_files_are_those_of_the_published_layout(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {
        "dvs-gesture-made.json",
        "trials_to_test.txt",
        "trials_to_train.txt",
        "user01_made.aedat",
        "user01_made_labels.csv",
        "user37_made.aedat",
        "user37_made_labels.csv",
    }
    # Persons of the test are not in training.
    assert (made / "trials_to_train.txt").read_text() == "user01_made.aedat\n"
    assert (made / "trials_to_test.txt").read_text() == "user37_made.aedat\n"
    for split in ("train", "test"):
        opened = datasets.open_split(
            "dvs-gesture-made", datasets.find("dvs-gesture-made", made), split
        )
        assert sorted(opened.labels.tolist()) == list(range(11))
        for index in range(11):
            events = opened.events(index)
            assert 3_000 < len(events) < 150_000
            assert 0 <= events.t[0] < 20_000
            assert 1_600_000 < events.t[-1] < 1_640_000


def test_a_person_is_the_same_for_the_same_seed_and_alone(made: Path) -> None:
    events, rows = record_person(0, 1)
    again, same = record_person(0, 1)
    assert rows == same
    assert all(np.array_equal(getattr(events, n), getattr(again, n)) for n in "txyp")
    other, _ = record_person(1, 1)
    assert len(other) != len(events)
    split = datasets.open_split("dvs-gesture-made", made, "train")
    first = split.events(0)
    label, start, end = rows[0]
    inside = (events.t >= start) & (events.t < end)
    assert split.labels[0] == label - 1
    assert np.array_equal(first.t, events.t[inside] - start)
    assert np.array_equal(first.x, events.x[inside])


def test_gestures_of_one_arm_happen_on_its_side(made: Path) -> None:
    split = datasets.open_split("dvs-gesture-made", made, "train")
    mean_x = {int(k): float(split.events(i).x.mean()) for i, k in enumerate(split.labels)}
    assert mean_x[1] < 64 < mean_x[2]
    assert max(mean_x[3], mean_x[4]) < min(mean_x[5], mean_x[6])


def test_circles_differ_by_the_order_of_time_alone(made: Path) -> None:
    split = datasets.open_split("dvs-gesture-made", made, "train")
    rule = binning.Binning(128, 128, step_us=40_000, steps=40, downsample=4)
    turned = {}
    for index, label in enumerate(split.labels):
        if label not in (3, 4):
            continue
        frames = binning.frames(split.events(index), rule)[1:].sum(1)
        # Edges sweep around the shoulder: the sense of rotation of the mean of the events.
        total = frames.sum((1, 2))
        y = (frames.sum(2) * np.arange(32)).sum(1) / total
        x = (frames.sum(1) * np.arange(32)).sum(1) / total
        x, y = x - x.mean(), y - y.mean()
        turned[int(label)] = float(np.mean(x[:-1] * y[1:] - x[1:] * y[:-1]))
    # y grows downwards, so a positive product is clockwise for who looks at the picture.
    assert turned[3] * turned[4] < 0
    assert turned[3] > 0


def test_what_is_there_is_kept_and_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    before = (made / "user01_made.aedat").stat().st_mtime_ns
    make(made, progress=False, limit=1)
    assert (made / "user01_made.aedat").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="made otherwise"):
        make(made, seed=3, progress=False, limit=1)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="something else than dvs-gesture-made"):
        make(tmp_path, progress=False, limit=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.txt"]
    with pytest.raises(UsageError, match="seed -1"):
        make(tmp_path / "new", seed=-1)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made_gestures, "encode_aedat3", broken)
    with pytest.raises(Exception, match="cannot be written; got No space left"):
        make(tmp_path / "a" / "made", progress=False, limit=1)
    assert list((tmp_path / "a").iterdir()) == []


def test_the_record_says_what_it_is(made: Path) -> None:
    assert json.loads((made / "dvs-gesture-made.json").read_text()) == {
        "dataset": "dvs-gesture-made",
        "version": 1,
        "seed": 0,
        "limit": 1,
    }
