"""DVS128 Gesture's two layouts: trials cut by their label files, refused when something is off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.data.layouts import gestures
from mpsl_runtime.data.layouts.gestures import GestureSet
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.aedat import encode_aedat3
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import decode_events
from mpsl_runtime.live.sources import recordings

HEAD = "class,startTime_usec,endTime_usec\n"
TRIAL_US, GAP_US = 1000, 100


def recording(seed: int, trials: int = 11) -> Events:
    """Twenty events in each trial, and a few in the gaps."""
    rng = np.random.default_rng(seed)
    starts = GAP_US + np.arange(trials) * (TRIAL_US + GAP_US)
    times = [start + rng.integers(0, TRIAL_US, 20) for start in starts]
    t = np.sort(np.concatenate([*times, starts - 1]))
    x, y, p = (rng.integers(0, high, len(t)) for high in (128, 128, 2))
    return Events.from_columns(t, x, y, p)


def write_user(root: Path, name: str, seed: int, classes: range = range(1, 12)) -> None:
    rows = []
    for number, kind in enumerate(classes):
        start = GAP_US + number * (TRIAL_US + GAP_US)
        rows.append(f"{kind},{start},{start + TRIAL_US}")
    (root / f"{name}.aedat").write_bytes(encode_aedat3(recording(seed, len(rows))))
    (root / f"{name}_labels.csv").write_text(HEAD + "\n".join(rows) + "\n")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Two persons in training, one in the test, one in neither, inside the outer folder."""
    root = tmp_path / "dvs-gesture" / "DvsGesture"
    root.mkdir(parents=True)
    for seed, name in enumerate(("user01_led", "user02_lab", "user24_led", "user99_led")):
        write_user(root, name, seed)
    (root / "trials_to_train.txt").write_text("user02_lab.aedat\nuser01_led.aedat\n\n")
    (root / "trials_to_test.txt").write_text("user24_led.aedat\n")
    return root


def test_what_is_written_as_aedat3_is_read_back() -> None:
    events = Events.from_columns(
        np.arange(9000) * 200_000, np.arange(9000) % 128, np.arange(9000) % 77, np.arange(9000) % 2
    )
    back = decode_events(encode_aedat3(events), "a.aedat")
    for name in "txyp":
        assert np.array_equal(getattr(back, name), getattr(events, name))
    with pytest.warns(UserWarning, match=r"a\.aedat: no events"):
        assert len(decode_events(encode_aedat3(Events.empty()), "a.aedat")) == 0
    with pytest.raises(DataError, match=r"do not fit AEDAT 3\.1"):
        encode_aedat3(Events.from_columns([1 << 31], [0], [0], [0]))


def test_trials_are_cut_by_the_label_file_and_split_by_the_lists(published: Path) -> None:
    assert datasets.find("dvs-gesture", published.parent.parent) == published
    train = datasets.open_split("dvs-gesture", published, "train")
    test = datasets.open_split("dvs-gesture", published, "test")
    assert train.ids == [f"{u}/{n:02d}" for u in ("user01_led", "user02_lab") for n in range(11)]
    assert test.ids[3] == "user24_led/03"
    assert train.labels.tolist() == [*range(11), *range(11)]
    assert train.class_names[7] == "arm roll"
    whole = recording(2)
    start = GAP_US + 3 * (TRIAL_US + GAP_US)
    kept = (whole.t >= start) & (whole.t < start + TRIAL_US)
    cut = test.events(3)
    assert kept.sum() == 20
    for name in "xyp":
        assert np.array_equal(getattr(cut, name), getattr(whole, name)[kept])
    assert np.array_equal(cut.t, whole.t[kept] - start)
    assert cut.sensor_size == (128, 128)
    assert datasets.content_hash(test) != datasets.content_hash(train)


def test_trials_are_the_same_in_any_order_of_asking(published: Path) -> None:
    train = datasets.open_split("dvs-gesture", published, "train")
    forward = [train.raw(index) for index in range(22)]
    assert [train.raw(index) for index in (15, 2, 21, 0)] == [forward[i] for i in (15, 2, 21, 0)]


def table(seed: int) -> np.ndarray:
    """As tonic packs a trial: x, y, polarity, time in ms."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(500, 2000, 30))
    return np.stack([*rng.integers(0, 128, (2, 30)), rng.integers(0, 2, 30), t], axis=1)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """tonic's layout: one person a split, eleven files each."""
    root = tmp_path / "packed" / "DVSGesture"
    for split, user in (("Train", "user02_led"), ("Test", "user24_lab")):
        folder = root / f"ibmGesture{split}" / user
        folder.mkdir(parents=True)
        for label in range(11):
            np.save(folder / f"{label}.npy", table(label))
    return root


def test_tonics_layout_is_read_with_its_milliseconds(packed: Path) -> None:
    assert datasets.find("dvs-gesture", packed.parent) == packed
    test = datasets.open_split("dvs-gesture", packed, "test")
    assert test.ids == [f"user24_lab/{label}" for label in range(11)]
    assert test.labels.tolist() == list(range(11))
    events, expected = test.events(10), table(10)
    assert np.array_equal(events.t, (expected[:, 3] - expected[0, 3]) * 1000)
    assert np.array_equal(events.x, expected[:, 0])
    assert np.array_equal(events.p, expected[:, 2])


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "damaged or truncated recording"),
        (lambda p: p.write_bytes(b""), "damaged or truncated recording"),
        (lambda p: p.write_bytes(b"<html>"), "damaged or truncated recording"),
        (lambda p: np.save(p, table(0)[:, :3]), "no table of events"),
        (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "damaged or truncated recording"),
        (lambda p: np.save(p, table(0)[::-1]), "time runs backwards"),
        (lambda p: np.save(p, table(0) + 128), "out of range|outside the sensor"),
        (lambda p: np.save(p, table(0) * np.nan), "impossible numbers"),
    ],
)
def test_a_damaged_file_of_tonics_is_named(
    packed: Path, harm: Callable[[Path], object], what: str
) -> None:
    path = packed / "ibmGestureTest" / "user24_lab" / "4.npy"
    harm(path)
    with pytest.raises(DataError, match=what) as caught:
        datasets.open_split("dvs-gesture", packed, "test").events(4)
    assert "4.npy" in str(caught.value)


def test_a_mislabelled_file_of_tonics_is_refused(packed: Path) -> None:
    folder = packed / "ibmGestureTest" / "user24_lab"
    (folder / "3.npy").rename(folder / "11.npy")
    with pytest.raises(DataError, match="label is not a class; got '11'"):
        datasets.open_split("dvs-gesture", packed, "test")
    (folder / "11.npy").unlink()
    with pytest.raises(DataError, match="lacks recordings of class right arm clockwise"):
        datasets.open_split("dvs-gesture", packed, "test")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not a label file"),
        ("label,start,end\n1,2,3\n", "not a label file; got 'label,start,end'"),
        (HEAD, "has no trials"),
        (HEAD + "12,100,200\n", "label is not a class; got 12; expected 1…11"),
        (HEAD + "0,100,200\n", "label is not a class; got 0"),
        (HEAD + "3,200,200\n", "trial ends before it starts"),
        (HEAD + "3,100\n", "row is not a trial"),
        (HEAD + "3,-5,100\n", "row is not a trial"),
        (HEAD + "3,1e2,2e2\n", "row is not a trial"),
    ],
)
def test_a_damaged_label_file_is_refused(published: Path, text: str, what: str) -> None:
    (published / "user24_led_labels.csv").write_text(text)
    with pytest.raises(DataError, match=what) as caught:
        datasets.open_split("dvs-gesture", published, "test")
    assert "user24_led_labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files_are_named(published: Path) -> None:
    (published / "user02_lab_labels.csv").unlink()
    with pytest.raises(DataError, match=r"no such file; in .*user02_lab_labels\.csv"):
        datasets.open_split("dvs-gesture", published, "train")
    (published / "user24_led.aedat").unlink()
    with pytest.raises(DataError, match=r"trials_to_test\.txt is missing; in .*user24_led\.aedat"):
        datasets.open_split("dvs-gesture", published, "test")
    for line in ("../user24_led.aedat", "/etc/passwd", "user24_led.bin"):
        (published / "trials_to_test.txt").write_text(line + "\n")
        with pytest.raises(DataError, match="not the name of a recording"):
            datasets.open_split("dvs-gesture", published, "test")
    (published / "trials_to_test.txt").write_text("")
    with pytest.raises(DataError, match="no recordings are listed"):
        datasets.open_split("dvs-gesture", published, "test")
    (published / "trials_to_test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a text file"):
        datasets.open_split("dvs-gesture", published, "test")
    (published / "trials_to_test.txt").unlink()
    with pytest.raises(DataError, match="dvs-gesture has no test files"):
        datasets.open_split("dvs-gesture", published, "test")


def test_a_truncated_recording_and_a_silent_trial_are_named(published: Path) -> None:
    path = published / "user24_led.aedat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"not whole; got ends inside a packet.*user24_led\.aedat"):
        datasets.open_split("dvs-gesture", published, "test").events(0)
    path.write_bytes(encode_aedat3(recording(2, trials=4)))
    split = datasets.open_split("dvs-gesture", published, "test")
    assert len(split.events(3)) == 20
    with pytest.raises(DataError, match=r"trial has no events.*user24_led\.aedat"):
        split.events(4)
    path.write_bytes(encode_aedat3(Events.from_columns([200], [128], [0], [1])))
    with pytest.raises(DataError, match=r"outside the sensor.*user24_led\.aedat"):
        datasets.open_split("dvs-gesture", published, "test").events(0)


def test_made_recordings_are_never_taken_for_the_real_ones(published: Path) -> None:
    with pytest.raises(DataError, match="dvs-gesture-made is not there"):
        datasets.find("dvs-gesture-made", published)
    (published / gestures.MADE_RECORD).write_text("{}")
    assert datasets.find("dvs-gesture-made", published) == published
    assert datasets.open_split("dvs-gesture-made", published, "test").name == "dvs-gesture-made"
    with pytest.raises(DataError, match="dvs-gesture is not there"):
        datasets.find("dvs-gesture", published)
    with pytest.raises(DataError, match="dvs-gesture has no test files"):
        datasets.open_split("dvs-gesture", published, "test")


def test_a_source_with_labels_gives_its_trials(published: Path) -> None:
    binning = Binning(128, 128, step_us=125, steps=8, downsample=4)
    names = datasets.DATASETS["dvs-gesture"].class_names
    for source in (published, published.parent):
        found = list(recordings(source, binning, names))
        assert [one.file for one in found] == [f"user24_led/{n:02d}" for n in range(11)]
        assert [one.target for one in found] == list(range(11))
        assert all(one.trial and one.origin_us == 0 for one in found)
    one = list(recordings(published / "user99_led.aedat", binning, names))
    assert [part.file for part in one] == [f"user99_led/{n:02d}" for n in range(11)]
    (published / "user99_led_labels.csv").unlink()
    whole = list(recordings(published / "user99_led.aedat", binning, names))
    assert [part.trial for part in whole] == [False]


def test_a_recording_that_others_wrote_is_cut_by_its_labels(
    tmp_path: Path, recordings_folder: Path
) -> None:
    truth = np.load(recordings_folder / "truth.npz")
    t, x = truth["gesture_t"], truth["gesture_x"]
    shutil.copy(recordings_folder / "gesture-aedat31.aedat", tmp_path / "user01_made.aedat")
    start, middle, end = int(t[0]), int(t[500]), int(t[-1]) + 1
    rows = f"3,{start},{middle}\n9,{middle},{end}\n"
    (tmp_path / "user01_made_labels.csv").write_text(HEAD + rows)
    trials = GestureSet.of_recording(tmp_path / "user01_made.aedat", 11)
    assert trials.labels.tolist() == [2, 8]
    for number, (part, begin) in enumerate([(t < middle, start), (t >= middle, middle)]):
        assert np.array_equal(trials.events(number).t, t[part] - begin)
        assert np.array_equal(trials.events(number).x, x[part])


def test_the_fixture_of_the_published_layout_is_cut(shared_data: Path) -> None:
    folder = shared_data / "events" / "aedat3"
    if not folder.is_dir():
        pytest.skip(f"no AEDAT 3.1 fixture in {folder}")
    trials = GestureSet.of_recording(folder / "aedat3_for_testing.aedat", 11)
    assert trials.ids == ["aedat3_for_testing/00", "aedat3_for_testing/01"]
    assert trials.labels.tolist() == [3, 5]
    assert trials.events(1).t.tolist() == [0, 11, 34]
    with pytest.raises(DataError, match="trial has no events; got 89…90 µs"):
        trials.events(0)
